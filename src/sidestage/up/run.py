"""Runs services side by side: starts, prefixes what they print, starts again, and ends all. One loop; pure of what a service is.

A service ends by SIGTERM, and by SIGKILL when its grace is over. One that fails ends all, unless it is to be started again or, with
--watch, waits for a change. Should we be killed, warden.py does what is left to do.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from sidestage.session import interrupts
from sidestage.stream.loop import Loop, Timer
from sidestage.up.warden import Warden
from sidestage.up.watch import Watch

READ = 64 << 10
MAX_LINE = 64 << 10  # bytes of a line; longer ones are broken
MAX_LAST = 1024  # reads of a pipe whose service has ended
BACKOFF, MAX_BACKOFF = 1.0, 30.0  # seconds before a service starts again, doubled each time
SETTLED = 30.0  # seconds that it must have lived for the next pause to be the shortest again

Spawn = Callable[[int, int], int]  # the service's standard output and error; returns a pid


@dataclass(slots=True)
class Part:
    """One service as this module sees it."""

    name: str
    spawn: Spawn
    restart: str = "never"
    grace: float = 10.0
    watch: Watch | None = None
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    backoff: float = BACKOFF
    done: bool = False
    again: bool = False  # start as soon as it has ended
    timer: Timer | None = None
    pipes: dict[int, str] = field(default_factory=dict)
    rest: dict[int, bytes] = field(default_factory=dict)  # of a line, by pipe


class Runner:
    def __init__(self, parts: list[Part], show: Callable[[str, str, bytes], None]) -> None:
        """`show(name, stream, line)`: stream is out, err or say."""
        self._parts, self._show = parts, show
        self._loop = Loop()
        self._ending = False
        self._warden = Warden()
        self.status = 0

    def run(self) -> int:
        """Until all have ended; the status of the first that failed, or 128+n for a signal."""
        with interrupts.heard(self._loop, self._signal):
            for part in self._parts:
                self._start(part)
                if part.watch:
                    self._look(part, part.watch)
            self._loop.run()
        self._warden.close()
        return self.status

    def _say(self, part: Part, text: str) -> None:
        self._show(part.name, "say", text.encode())

    # -- start --

    def _start(self, part: Part) -> None:
        part.timer, part.again, part.done = None, False, False
        (out, theirs_out), (err, theirs_err) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        part.pid = part.spawn(theirs_out, theirs_err)
        os.close(theirs_out)
        os.close(theirs_err)
        part.started = time.monotonic()
        part.pidfd = os.pidfd_open(part.pid)
        self._warden.add(part.pidfd)
        for fd, stream in ((out, "out"), (err, "err")):
            os.set_blocking(fd, False)
            part.pipes[fd] = stream
            self._loop.watch(fd, select.EPOLLIN, partial(self._readable, part, fd))
        self._loop.watch(part.pidfd, select.EPOLLIN, lambda _: self._ended(part))

    def _readable(self, part: Part, fd: int, _events: int) -> None:
        self._read(part, fd)

    def _read(self, part: Part, fd: int) -> bool:
        """False when there is no more for now."""
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return False
        *lines, rest = (part.rest.pop(fd, b"") + data).split(b"\n")
        if len(rest) > MAX_LINE or (rest and not data):
            lines, rest = [*lines, rest], b""
        for line in lines:
            self._show(part.name, part.pipes[fd], line)
        if data:
            part.rest[fd] = rest
        else:
            self._loop.unwatch(fd)
            os.close(fd)
            del part.pipes[fd]
        return bool(data)

    # -- end --

    def _ended(self, part: Part) -> None:
        self._loop.unwatch(part.pidfd)
        os.close(part.pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(part.pid, 0)[1])
        code = code if code >= 0 else 128 - code
        part.pid = 0
        for fd in list(part.pipes):  # its last words come before ours; what a process of its own holds open goes on
            for _ in range(MAX_LAST):
                if not self._read(part, fd):
                    break
        if part.timer:
            part.timer.cancel()
            part.timer = None
        if self._ending:
            part.done = True
        elif part.again:
            self._start(part)
        elif part.restart == "always" or (code and part.restart == "on-failure"):
            if time.monotonic() - part.started > SETTLED:
                part.backoff = BACKOFF
            self._say(part, f"ended with {code}, starts again in {part.backoff:g} s")
            part.timer = self._loop.later(part.backoff, lambda: self._start(part))
            part.backoff = min(part.backoff * 2, MAX_BACKOFF)
        elif part.watch:
            self._say(part, f"ended with {code}, waits for a change")
        else:
            part.done = True
            ends_others = code and any(each is not part and not each.done for each in self._parts)
            self._say(part, f"ended with {code}" + (", which ends the others (`restart` says otherwise)" if ends_others else ""))
            if code:
                self.status = code
                self._end()
        if all(each.done for each in self._parts):
            self._loop.soon(self._loop.stop)

    def _end(self) -> None:
        """All."""
        self._ending = True
        for part in self._parts:
            if part.pid:
                self._stop(part)
            else:
                part.done = True
                if part.timer:
                    part.timer.cancel()
        if all(each.done for each in self._parts):
            self._loop.stop()

    def _stop(self, part: Part) -> None:
        if part.timer:
            part.timer.cancel()
        os.kill(part.pid, signal.SIGTERM)
        part.timer = self._loop.later(part.grace, lambda: self._kill(part))

    def _kill(self, part: Part) -> None:
        part.timer = None
        if part.pid:
            self._say(part, f"did not end within {part.grace:g} s: killed")
            os.kill(part.pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """The first ends all; a second one does not wait."""
        if not self._ending:
            self.status = self.status or 128 + number
            self._end()
            return
        for part in self._parts:
            if part.pid:
                os.kill(part.pid, signal.SIGKILL)

    # -- change --

    def _look(self, part: Part, watch: Watch) -> None:
        if self._ending:
            return
        changed = watch.look()
        if changed:
            self._say(part, f"{changed} changed: starts again")
            part.backoff = BACKOFF
            if not part.pid:
                if part.timer:
                    part.timer.cancel()
                self._start(part)
            elif not part.again:
                part.again = True
                self._stop(part)
        self._loop.later(watch.pause, lambda: self._look(part, watch))
