"""What a connection to a target can do, measured: round trips, bulk both ways, names and connects. Blocking, step by step."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sidestage.protocol.messages import Buffer
from sidestage.session.bare import Bare
from sidestage.session.opened import Waiting
from sidestage.session.resolver import Question, Resolver
from sidestage.stream.link import Args, Link

FIRST = 1 << 20  # bytes of the first try, from which the next is reckoned
MOST = 256 << 20  # bytes of one direction; the agent gives no more
AIM = 1.5  # seconds that it is to take
LIMIT = 15.0  # seconds after which it is cut
CONNECT_LIMIT = 10.0
PIECE = os.urandom(256 << 10)

T = TypeVar("T")


def wait(bare: Bare, start: Callable[[Callable[[T], None]], object]) -> T:
    """`start(done)`, and what done was called with. Raises Lost, KeyboardInterrupt."""
    got: list[T] = []

    def done(result: T) -> None:
        if not got:
            got.append(result)
            bare.stop()

    def begin() -> None:
        start(done)

    bare.loop.soon(begin)
    bare.run()
    if not got:
        raise KeyboardInterrupt
    return got[0]


def pings(bare: Bare, count: int) -> list[float]:
    """Seconds of a call and its answer, one after the other."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        cpu(bare)
        found.append(time.perf_counter() - start)
    return found


def cpu(bare: Bare) -> float:
    """Seconds of processor that the agent has used."""

    def start(done: Callable[[float], None]) -> None:
        bare.links.control.call("cpu", {}, lambda result, *_: done(float(result.get("seconds", 0))))

    return wait(bare, start)


def bulk(bare: Bare, *, up: bool) -> tuple[int, float]:
    """Bytes through one channel of the least busy link, and the seconds it took."""
    size = FIRST
    while True:
        moved, seconds = wait(bare, lambda done, size=size: _Bulk(bare, size, up, done))  # type: ignore[misc]
        if moved < size or size >= MOST or seconds > AIM / 4:
            return moved, seconds
        size = min(MOST, max(size * 4, int(size / seconds * AIM)))


class _Bulk:
    def __init__(self, bare: Bare, size: int, up: bool, done: Callable[[tuple[int, float]], None]) -> None:
        self._size, self._up, self._done = size, up, done
        self._moved = self._sent = 0
        self._over = False
        self._link: Link = bare.links.carrier()
        self._start = time.perf_counter()
        self._timer = bare.loop.later(LIMIT, self._cut)
        self._channel = self._link.open("measure", {"give": 0 if up else size}, self)

    def on_accepted(self, info: Args) -> None:
        self._start = time.perf_counter()
        if self._up:
            self._give()
        else:
            self._link.send_eof(self._channel)

    def _give(self) -> None:
        while self._sent < self._size:
            room = min(self._link.writable(self._channel), self._size - self._sent, len(PIECE))
            if not room:
                return
            self._sent += room
            self._link.send(self._channel, memoryview(PIECE)[:room])
        self._link.send_eof(self._channel)

    def on_credit(self) -> None:
        if self._up and self._sent < self._size:
            self._give()

    def on_data(self, data: Buffer) -> None:
        self._moved += len(data)
        self._link.consumed(self._channel, len(data))

    def on_eof(self) -> None:
        self._end(self._size if self._up else self._moved)

    def on_reset(self) -> None:
        self._end(0)

    def on_refused(self, errno: int, text: str) -> None:
        self._end(0)

    def _cut(self) -> None:
        self._link.reset(self._channel)
        self._end(min(self._sent, self._size - 1) if self._up else self._moved)

    def _end(self, moved: int) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self._done((moved, time.perf_counter() - self._start))


def question(bare: Bare, server: str, name: str, timeout: float) -> float | None:
    """Seconds until a nameserver has answered, whatever; None if it hasn't."""
    start = time.perf_counter()

    def ask(done: Callable[[bool], None]) -> None:
        Question(bare.loop, bare.links, server, name, timeout, lambda messages, _cut: done(bool(messages)))

    return time.perf_counter() - start if wait(bare, ask) else None


def connect(bare: Bare, resolver: Resolver, host: str, port: int) -> dict[str, Any]:
    """Times of a look-up and of a connection, in seconds, or why there is none."""
    start = time.perf_counter()

    def look(done: Callable[[tuple[list[str], str]], None]) -> None:
        resolver.resolve(host, lambda addresses, why: done((addresses, why)))

    addresses, why = wait(bare, look)
    named = time.perf_counter() - start
    if not addresses:
        return {"name": named, "error": why}
    start = time.perf_counter()

    def open_it(done: Callable[[int], None]) -> None:
        link = bare.links.carrier()

        def connected(channel: int, _info: Args) -> None:
            link.reset(channel)
            done(0)

        bare.loop.later(CONNECT_LIMIT, lambda: done(110))
        Waiting(connected, done).open(link, "tcp", {"host": addresses[0], "port": port})

    code = wait(bare, open_it)
    found: dict[str, Any] = {"name": named, "address": addresses[0]}
    return found | ({"error": os.strerror(code).lower()} if code else {"connect": time.perf_counter() - start})


def used(without: int) -> dict[int, float]:
    """Seconds of processor that each of our processes has used; not of `without`, the agent on this machine."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for pid in _family(os.getpid()):
        if pid != without:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
                found[pid] = (int(fields[11]) + int(fields[12])) / tick
    return found


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as children:
                for child in children.read().split():
                    yield from _family(int(child))
