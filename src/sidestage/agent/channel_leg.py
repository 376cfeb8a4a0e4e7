"""The end of an intercepted connection that is a channel: to a session's program, on the laptop."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Dict, Optional

from sidestage.agent.legs import Leg
from sidestage.protocol.messages import Buffer
from sidestage.stream.link import Link
from sidestage.stream.loop import Loop

ANSWER_TIMEOUT = 3.0  # seconds for a session to take a connection: then the target has it


class ChannelLeg(Leg):
    """A channel to the session that claimed the connection. `heard(bool)` learns whether the session answers in time."""

    def __init__(
        self, loop: Loop, owner: Any, number: int, link: Link, args: Dict[str, Any], heard: Callable[[bool], None]
    ) -> None:
        super().__init__(loop, owner, number)
        self._link, self._heard = link, heard
        self._held: Deque[Optional[Buffer]] = deque()  # came while the owner didn't read; None is the end
        self._late = False
        self._channel = link.open("steal", args, self)
        self._timer = loop.later(ANSWER_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        if not self.over:
            self._late = True  # the channel stays until its answer, which tells that the session lives
            self._heard(False)
            self._end()
            self.owner.on_failed(self)

    def on_accepted(self, info: Dict[str, Any]) -> None:
        self._heard(True)
        if self.over:
            self._link.reset(self._channel)
            return
        self._timer.cancel()
        self.open = True
        self.owner.on_open(self)
        self._flush()

    def on_refused(self, errno: int, text: str) -> None:
        self._heard(True)
        if not self.over:
            self._end()
            self.owner.on_failed(self)

    def on_data(self, data: Buffer) -> None:
        if self.over:
            return
        if self._reading and not self._held:
            self._link.consumed(self._channel, len(data))
            self.owner.on_data(self, data)
        else:
            self._held.append(data)

    def on_eof(self) -> None:
        if self._reading and not self._held:
            self._ended()
        else:
            self._held.append(None)

    def _ended(self) -> None:
        self.eof_in = True
        self.owner.on_eof(self)
        self._end_if_done()

    def on_reset(self) -> None:
        if not self.over:
            opened = self.open
            self._end()
            (self.owner.on_reset if opened else self.owner.on_failed)(self)

    def on_credit(self) -> None:
        if not self.over:
            self._flush()

    def send(self, data: Buffer) -> None:
        if self.over or self.eof_out:
            return
        self._out.append(data)
        self._queued += len(data)
        self._flush()

    def _flush(self) -> None:
        if not self.open:
            self._mark()
            return
        out, link = self._out, self._link
        while out:
            room = link.writable(self._channel)
            if not room:
                break
            data = out.popleft()
            if len(data) > room:
                out.appendleft(data[room:])
                data = data[:room]
            self._queued -= len(data)
            link.send(self._channel, data)
        self._mark()
        if self.eof_out and not out and not self.over:
            link.send_eof(self._channel)
            self._end_if_done()

    def eof(self) -> None:
        if not self.over and not self.eof_out:
            self.eof_out = True
            if self.open and not self._out:
                self._flush()

    def read(self, wanted: bool) -> None:
        self._reading = wanted
        while self._reading and self._held and not self.over:
            data = self._held.popleft()
            if data is None:
                self._ended()
            else:
                self._link.consumed(self._channel, len(data))
                self.owner.on_data(self, data)

    def reset(self) -> None:
        if not self.over:
            self._end()
            if not self._late:
                self._link.reset(self._channel)

    def _end_if_done(self) -> None:
        if self.eof_in and self.eof_out and not self._out:
            self._end()
            self._link.forget(self._channel)

    def _end(self) -> None:
        self.over = True
        self._timer.cancel()
        self._out.clear()
        self._held.clear()
