"""The receive loop: one thread, one epoll; each notification becomes a Call that a family of system calls answers.

A Call may be answered at once or, when session must be asked, later from a callback; but exactly once. Everything that would
wait is either session's or a watched descriptor, so that one slow call never holds up another.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import os
import select
import signal
import time
from collections.abc import Callable, Collection
from typing import Any

from sidestage.trap import kernel
from sidestage.trap.bpf import number
from sidestage.trap.broker import Broker
from sidestage.trap.network import Network
from sidestage.trap.ports import Begin, Policy

PAGE = 4096
HUNG_UP = 60.0  # seconds until a listener without tasks is closed: an answer for one of its calls may be on the way still
MAX_PIDFDS = 512  # cached, one a thread; about half of the usual limit of open files


class Call:
    """One notification."""

    __slots__ = ("answered", "args", "id", "listener", "nr", "sup", "tid")

    def __init__(self, sup: Supervisor, listener: int, ident: int, tid: int, nr: int, args: tuple[int, ...]) -> None:
        self.sup, self.listener, self.id, self.tid, self.nr, self.args = sup, listener, ident, tid, nr, args
        self.answered = False

    def cont(self) -> None:
        """Let the kernel do it."""
        self.answered = True
        kernel.respond(self.listener, self.id, 0, 0, go_on=True)

    def ret(self, value: int = 0) -> None:
        self.answered = True
        kernel.respond(self.listener, self.id, value, 0)

    def fail(self, error: int) -> None:
        self.answered = True
        kernel.respond(self.listener, self.id, 0, error)

    def give(self, fd: int, *, cloexec: bool) -> None:
        """Answer with a duplicate of `fd`, which is closed here in any case."""
        self.answered = True
        try:
            kernel.add_fd(self.listener, self.id, fd, cloexec)
        except OSError as error:
            if error.errno != errno.ENOENT:  # EMFILE: the caller still waits for its answer
                kernel.respond(self.listener, self.id, 0, error.errno or errno.EMFILE)
        finally:
            os.close(fd)

    def valid(self) -> bool:
        """Is the caller still in this very call?"""
        return kernel.valid(self.listener, self.id)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of the caller's memory; EFAULT where it has fewer, as the kernel would say."""
        data = kernel.read_memory(self.tid, address, size)
        if len(data) != size:
            raise OSError(errno.EFAULT, "short read")
        return data

    def string(self, address: int, limit: int = PAGE) -> bytes:
        """A NUL-terminated string of fewer than `limit` bytes; EFAULT, ENAMETOOLONG."""
        got = b""
        while len(got) < limit:
            here = address + len(got)
            chunk = kernel.read_memory(self.tid, here, min(256 if not got else PAGE, PAGE - here % PAGE))
            if not chunk:
                raise OSError(errno.EFAULT, "string runs out of memory")
            end = chunk.find(b"\0")
            if end >= 0:
                return got + chunk[:end]
            got += chunk
        raise OSError(errno.ENAMETOOLONG, "string without end")

    def write(self, address: int, data: bytes) -> None:
        kernel.write_memory(self.tid, address, data)

    def fd(self, descriptor: int) -> int:
        """A duplicate of the caller's descriptor, ours to close."""
        return self.sup.duplicate(self.tid, descriptor)


Handler = Callable[[Call], None]


class Supervisor:
    def __init__(
        self, policy: Policy, begin: Begin, say: Callable[[str], None], skip: Collection[str] = frozenset()
    ) -> None:
        self.policy, self.hello = policy, begin
        self._skip = frozenset(skip)
        self.broker: Broker
        self.network = Network()
        self.boxed = False  # do the tasks have a root of their own?
        self._listeners: set[int] = set()
        self._say, self._said = say, set[str]()
        self._handlers: dict[int, Handler] = {}
        self.names: set[str] = set()
        self._events: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], object]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._pidfds: dict[int, int] = {}
        self._ended = False
        self.traced: dict[int, Callable[[int, int], None]] = {}  # tasks traced for a moment: who hears of their changes

    def on(self, name: str, handler: Handler) -> None:
        nr = number(name)
        if nr is not None:
            self._handlers[nr] = handler
            self.names.add(name)

    def on_event(self, name: str, handler: Callable[[dict[str, Any]], None]) -> None:
        """Hear session's event `name`."""
        self._events[name] = handler

    def event(self, name: str, args: dict[str, Any]) -> None:
        handler = self._events.get(name)
        if handler:
            handler(args)

    def say(self, text: str) -> None:
        """Tell the user, once."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self._watched[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None):
            self._epoll.unregister(fd)

    def later(self, seconds: float, fn: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._order, fn))

    def duplicate(self, tid: int, descriptor: int) -> int:
        descriptor &= 0xFFFFFFFF
        pidfd = self._pidfds.get(tid)
        if pidfd is not None:
            try:
                return kernel.pidfd_getfd(pidfd, descriptor)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise
                os.close(self._pidfds.pop(tid))  # the thread id is in use again
        if len(self._pidfds) >= MAX_PIDFDS:
            os.close(self._pidfds.pop(next(iter(self._pidfds))))
        pidfd = self._pidfds[tid] = kernel.pidfd_open(tid)
        return kernel.pidfd_getfd(pidfd, descriptor)

    def skipped(self, tid: int) -> bool:
        """Is this one of the programs that are let through by name? Asked only when a call is about to be the target's."""
        if not self._skip:
            return False
        try:
            image = os.readlink(f"/proc/{tid}/exe")
            fd = os.open(f"/proc/{tid}/cmdline", os.O_RDONLY)  # a file object would take three times as long
        except OSError:
            return False
        try:
            first = os.fsdecode(os.read(fd, PAGE).partition(b"\0")[0])
        except OSError:
            return False
        finally:
            os.close(fd)
        return image.rpartition("/")[2] in self._skip or first.rpartition("/")[2] in self._skip

    def changed(self, pid: int, status: int) -> bool:
        """What wait(2) said of a task; True when it was traced, and the change is no news for others unless it has ended."""
        tid = pid
        if pid not in self.traced and status >> 16 == kernel.EVENT_EXEC:
            with contextlib.suppress(ProcessLookupError):  # killed just now
                tid = kernel.former_thread(pid)  # one thread of several executed: it is the first now
        if tracer := self.traced.get(tid):
            tracer(pid, status)
        return tracer is not None

    def stop(self) -> None:
        self._ended = True

    def attach(self, listener: int) -> None:
        """Serve the tasks of this filter too."""
        kernel.synchronous(listener)
        self._listeners.add(listener)
        self._epoll.register(listener, select.EPOLLIN)

    def run(self) -> None:
        """Serve until stop()."""
        while not self._ended:
            self._turn(None)

    def linger(self, seconds: float, needed: Callable[[], object]) -> None:
        """After run(): go on answering for `seconds`, or until nobody is `needed` for."""
        deadline = time.monotonic() + seconds
        while needed() and time.monotonic() < deadline:
            self._turn(0.01)

    def _turn(self, limit: float | None) -> None:
        watched, timers = self._watched, self._timers
        wait = max(0.0, timers[0][0] - time.monotonic()) if timers else limit
        for fd, events in self._epoll.poll(wait if limit is None or wait is None else min(wait, limit)):
            if fd in self._listeners:
                if events & select.EPOLLIN:
                    self._receive(fd)
                else:  # hang-up: no task uses the filter any more; the end of the child says the rest
                    self._epoll.unregister(fd)
                    self._listeners.discard(fd)
                    self.later(HUNG_UP, functools.partial(os.close, fd))
            else:
                callback = watched.get(fd)
                if callback:
                    callback()
        while timers and timers[0][0] <= time.monotonic():
            heapq.heappop(timers)[2]()

    def _receive(self, listener: int) -> None:
        got = kernel.receive(listener)
        if got is None:
            return
        ident, tid, _flags, nr, _arch, _ip, *args = got
        call = Call(self, listener, ident, tid, nr, tuple(args))
        try:
            self._handlers[nr](call)
        except kernel.Protected:
            if not call.answered:
                if call.valid():
                    self.say(f"process {tid} can't be inspected (set-uid or protected): it runs unplugged")
                call.cont()
        except OSError as error:
            # Never the kernel's own way here: what was meant for the target would go somewhere else.
            if not call.answered:
                call.fail(error.errno or errno.EIO)
        except Exception as error:
            self.say(f"internal error in system call {nr}: {error!r}; the call was left to the kernel")
            if not call.answered:
                call.cont()


def children(pid: int) -> list[int]:
    """All descendants of `pid` that have not ended."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    parents.setdefault(int(parent), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def terminate(pids: list[int], number: int = signal.SIGTERM) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def is_filtered(pid: int) -> bool:
    """Does `pid` run under one more filter than we do, which is ours? A container's own filter counts for both."""
    return _filters(pid) > _filters(os.getpid())


def _filters(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Seccomp_filters:"):
                return int(line.split()[1])
    return 0
