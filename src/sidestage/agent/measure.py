"""Channels of kind `measure {give: N}`, for `sidestage diagnose`: N bytes are given, and what comes is taken, both bounded.

The agent closes its direction when it has given all and the laptop has closed its own: so the laptop knows that all has arrived.
"""

from __future__ import annotations

import os
from typing import Any, Dict

from sidestage.protocol.messages import Buffer
from sidestage.stream.link import Link, QuietHandler

MAX = 256 << 20  # bytes in one channel, each way
PIECE = os.urandom(256 << 10)  # nothing on the way can compress it


class Measure(QuietHandler):
    def __init__(self, link: Link, channel: int, args: Dict[str, Any]) -> None:
        """Raises ValueError, KeyError."""
        self._link, self._channel = link, channel
        self._left = int(args["give"])
        self._taken = 0
        self._eof = self._ended = False
        if not 0 <= self._left <= MAX:
            raise ValueError("more than is ever given")
        link.accept(channel, {})
        link.register(channel, self)
        self._give()

    def _give(self) -> None:
        while self._left:
            room = min(self._link.writable(self._channel), self._left, len(PIECE))
            if not room:
                return
            self._left -= room
            self._link.send(self._channel, memoryview(PIECE)[:room])
        if self._eof and not self._ended:
            self._ended = True
            self._link.send_eof(self._channel)
            self._link.forget(self._channel)

    def on_credit(self) -> None:
        self._give()

    def on_data(self, data: Buffer) -> None:
        self._taken += len(data)
        if self._taken > MAX:
            self._link.reset(self._channel)
            self._left = 0
        else:
            self._link.consumed(self._channel, len(data))

    def on_eof(self) -> None:
        self._eof = True
        self._give()

    def on_reset(self) -> None:
        self._left, self._ended = 0, True
