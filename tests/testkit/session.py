"""The laptop's half of a session without a program under the trap: an agent, a link to it, and stolen connections to real
local servers. Tests of the agent drive it directly, where a whole `exec` would only take longer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.stream.pump import SocketPump
from sidestage.targets import local
from tests.testkit.target import Target

CALL = 10.0  # seconds
DRAINED = 20.0  # seconds for the agent to see its last clients off


class Laptop:
    """`program` is the address of the local server that takes stolen connections; None refuses them."""

    def __init__(self, target: Target, program: tuple[str, int] | None, session: str, **args: Any) -> None:
        self.program = program
        self.taken: list[dict[str, Any]] = []  # of the channels that were opened to us
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.closed = threading.Event()
        self.agent = local.start_agent(target.pid, session, sys.executable, args or None)
        self._fd = fd = self.agent.wait_ready()
        self._loop = Loop()
        self.link = Link(
            self._loop, fd, fd, "laptop", on_call=lambda call, *_: self.link.fail(call, errno.ENOSYS), on_open=self._opened,
            on_event=lambda name, args: self.events.put((name, args)), on_closed=lambda _: self.closed.set(),
        )  # fmt: skip
        self._links = Links(self.link)
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC)
        self._jobs: queue.Queue[Any] = queue.Queue()
        self._loop.watch(self._wake_r, 1, self._work)
        self._thread = threading.Thread(target=self._loop.run, daemon=True)
        self._thread.start()

    def _work(self, _events: int) -> None:
        os.read(self._wake_r, 1)
        self._jobs.get()()

    def do(self, job: Any) -> None:
        """In the loop's thread."""
        self._jobs.put(job)
        os.write(self._wake_w, b"x")

    def call(self, op: str, **args: Any) -> tuple[int, dict[str, Any]]:
        """The errno and the result."""
        answer: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self.do(lambda: self.link.call(op, args, lambda result, _raw, code: answer.put((code, result))))
        return answer.get(timeout=CALL)

    def steal(self, port: int, spec: dict[str, Any] | None = None, **args: Any) -> tuple[int, dict[str, Any]]:
        return self.call("steal", port=port, owner="alice@laptop", **({"filter": spec} if spec else {}), **args)

    def _opened(self, channel: int, kind: str, args: dict[str, Any]) -> None:
        self.taken.append(args)
        if kind != "steal" or self.program is None:
            self.link.refuse(channel, errno.ECONNREFUSED)
            return
        sock = socket.socket()
        try:
            sock.connect(self.program)  # on loopback: at once
        except OSError as error:
            self.link.refuse(channel, error.errno or errno.ECONNREFUSED)
            return
        self.link.accept(channel, {})
        SocketPump(self._loop, self.link, channel, sock).start()

    def end(self) -> None:
        """As a session does: the agent may go on to see clients off."""
        if not self._thread.is_alive():
            return
        self.do(lambda: self.link.close("the end"))
        self.do(self._loop.stop)
        self._thread.join(CALL)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        for fd in (self._wake_r, self._wake_w):
            os.close(fd)

    def finished(self) -> bool:
        return self.agent.process.poll() is not None


@contextlib.contextmanager
def laptop(target: Target, program: tuple[str, int] | None, session: str = "a" * 16, **args: Any) -> Iterator[Laptop]:
    made = Laptop(target, program, session, **args)
    try:
        yield made
    finally:
        made.end()
        try:
            made.agent.process.wait(DRAINED)
        except subprocess.TimeoutExpired:
            made.agent.process.kill()
            made.agent.process.wait()
            raise
        if made.agent.process.stderr:
            made.agent.process.stderr.close()
