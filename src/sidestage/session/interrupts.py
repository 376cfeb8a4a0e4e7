"""Signals that are to end a loop, heard by the loop itself: a handler alone would not wake it (PEP 475)."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidestage.stream.loop import Loop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heard(loop: Loop, came: Callable[[int], None]) -> Iterator[None]:
    """`came(number)` is called in the loop for each; afterwards all is as before."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ready(_events: int) -> None:
        for number in os.read(reader, 64):
            came(number)

    loop.watch(reader, select.EPOLLIN, ready)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        loop.unwatch(reader)
        os.close(reader)
        os.close(writer)
