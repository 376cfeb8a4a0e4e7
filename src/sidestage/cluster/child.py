"""Forks of ours that go on beside the user's program: how they let go of the terminal, and how they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def fork(work: Callable[[], object], debug: bool) -> int:
    """The child's pid. It does `work` and ends: with 1 after an exception, which is shown with `debug`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        if debug:
            import traceback

            traceback.print_exc()
    finally:
        os._exit(code)


def detach(debug: bool) -> None:
    """The terminal's signals are the program's from here on, and nothing is said on it any more, but errors with `debug`."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1) if debug else (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
