"""A recording as a target: a process that plays it, in the place of an agent."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from sidestage.record import reel, tape
from sidestage.targets.spec import TargetError

MAX_DATA = 256 << 10


class Playing:
    """targets.plug.Plug."""

    max_data, news = MAX_DATA, -1

    def __init__(self, fd: int, pid: int) -> None:
        self._fd, self._pid = fd, pid

    def wait_ready(self, say: Callable[[str, str], None]) -> int:
        return self._fd

    def read_news(self) -> tuple[dict[str, Any], list[int]]:
        return {}, []

    def send(self, op: str, **args: Any) -> None:
        return

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def start(path: str) -> Playing:
    """Raises TargetError."""
    try:
        recording = reel.load(tape.read(path))
    except OSError as error:
        why = os.strerror(error.errno or 5).lower()
        raise TargetError(f"{path}: {why}", "name a file that `sidestage record` wrote") from error
    except tape.TapeError as error:
        raise TargetError(str(error), "name a file that this version of `sidestage record` wrote") from error
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return Playing(ours.detach(), pid)
    try:
        from sidestage.record.player import Player

        keep = theirs.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, 1 << 16)  # the parent's end of the stream above all: its end is ours
        Player(recording, keep).run()
    finally:
        os._exit(0)
