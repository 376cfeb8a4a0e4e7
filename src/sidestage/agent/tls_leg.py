"""A leg inside TLS: what its owner sends and hears is in the clear, what goes over the leg below is not.

An end that the peer has not said within TLS is no proof that nothing is missing. It is passed on as it is (`cut_in`, `cut_out`):
who is at the other end decides, as if nobody stood between.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, Optional

from sidestage.agent.legs import Leg
from sidestage.protocol.messages import Buffer
from sidestage.stream.loop import Loop
from sidestage.tls.engine import Engine

FAREWELL = 5.0  # seconds for a peer to close its connection after both have said that no more comes


class TlsLeg(Leg):
    """It is open when the handshake is done. `parked`: nothing is told until it is released."""

    def __init__(self, loop: Loop, owner: Any, number: int, below: Leg, engine: Engine, *, parked: bool = False) -> None:
        super().__init__(loop, owner, number)
        self.below, self.engine, self._parked = below, engine, parked
        self._held: Deque[Optional[Buffer]] = deque()  # came while the owner didn't read; None is the end
        below.owner = self

    @property
    def over(self) -> bool:
        return self._over or (self.open and self.below.over)

    @over.setter
    def over(self, value: bool) -> None:
        self._over = value

    def start(self) -> None:
        """The connection below may be on its way still. A server says nothing yet."""

    def greet(self) -> None:
        """A client's first message."""
        self.engine.start()
        self._flush()

    def release(self) -> None:
        self._parked = False
        if not self._over:
            self.read(self._reading)

    # -- from below --

    def on_open(self, leg: Leg) -> None:
        return

    def on_failed(self, leg: Leg) -> None:
        self._fail()

    def on_reset(self, leg: Leg) -> None:
        if not self.open:
            self._fail()
        elif not self._over:
            self._over = True
            self.owner.on_reset(self)

    def on_eof(self, leg: Leg) -> None:
        if not self.open:
            self._fail()
        elif not self.eof_in and None not in self._held:
            self.cut_in = True
            self._tell(None)

    def on_blocked(self, leg: Leg) -> None:
        if self.open and not self.blocked:
            self.blocked = True
            self.owner.on_blocked(self)

    def on_ready(self, leg: Leg) -> None:
        if self.blocked:
            self.blocked = False
            self.owner.on_ready(self)

    def on_data(self, leg: Leg, data: Buffer) -> None:
        engine = self.engine
        inside = engine.feed(data)
        self._flush()
        if engine.ready and not self.open:
            self._opened()
        if inside and not self._over:
            self._tell(inside)
        if engine.ended and not self._over and not self.eof_in and None not in self._held:
            self._tell(None)
        if engine.broken and not self._over:
            self._broken()

    def _opened(self) -> None:
        self.open = True
        self.below.read(self._reading and not self._parked)
        self.owner.on_open(self)
        while self._out and not self._over:
            data = self._out.popleft()
            self._queued -= len(data)
            self.engine.write(data)
        self._flush()
        if not self._over and self.blocked and not self.below.blocked:
            self.on_ready(self.below)
        if not self._over and self.eof_out:
            self._finish()

    def _tell(self, inside: Optional[Buffer]) -> None:
        if not self._reading or self._parked or self._held:
            self._held.append(inside)
        elif inside is None:
            self._ended()
        else:
            self.owner.on_data(self, inside)

    def _ended(self) -> None:
        self.eof_in = True
        self.below.read(True)  # its end is yet to come
        self.owner.on_eof(self)
        if self.eof_out and not self._over:
            self.below.linger(FAREWELL)

    def _fail(self) -> None:
        if not self._over and not self.open:
            self._over = True
            self._timer.cancel()
            if self.engine.broken:
                self.below.dismiss(FAREWELL)  # behind what it says of it
            else:
                self.below.reset()
            self.owner.on_failed(self)

    def _broken(self) -> None:
        if not self.open:
            self._fail()
        elif not self._over:
            self._over = True
            self._timer.cancel()
            self.below.dismiss(FAREWELL)
            self.owner.on_reset(self)

    # -- from the owner --

    def send(self, data: Buffer) -> None:
        if self.over or self.eof_out:
            return
        if not self.open:
            self._out.append(data)
            self._queued += len(data)
            self._mark()
            return
        self.engine.write(data)
        self._flush()
        if self.engine.broken:
            self._loop.soon(self._broken)  # the owner is in the middle of its orders

    def _flush(self) -> None:
        data = self.engine.take()
        if data:
            self.below.send(data)

    def eof(self) -> None:
        if not self.over and not self.eof_out:
            self.eof_out = True
            if self.open:
                self._finish()

    def _finish(self) -> None:
        if not self.cut_out:
            self.engine.end()
            self._flush()
        self.below.eof()
        if self.eof_in:
            self.below.linger(FAREWELL)

    def read(self, wanted: bool) -> None:
        self._reading = wanted
        if not self.open or self._parked:
            return
        while self._reading and self._held and not self._over:
            inside = self._held.popleft()
            if inside is None:
                self._ended()
            else:
                self.owner.on_data(self, inside)
        if not self._over:
            self.below.read(self._reading or self.eof_in)

    def reset(self) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self.below.reset()
