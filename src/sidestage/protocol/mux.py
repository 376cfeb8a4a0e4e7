"""Many calls and channels over one byte stream, sans-IO: bytes in, events out; orders in, bytes out.

A channel is OPENING until accepted or refused, then OPEN; each direction ends by EOF, the whole by RESET. A channel that
has ended is forgotten by the side that saw both ends; frames that were under way to a forgotten channel are ignored when
its number is one that was in use, and break the protocol when it never was. Credit counts payload bytes; how much is granted
is window.py's, what leaves next outbox.py's.

What is long is not copied: it is told as a view of the bytes that were fed. A DATA frame of more than MAX_RECORD is part of a
stream, and told in the pieces in which it comes.
"""

from __future__ import annotations

import time
from typing import Callable, Dict, List, Optional

from sidestage.protocol import body, wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.inbox import Inbox
from sidestage.protocol.messages import (
    Accepted,
    Args,
    Buffer,
    Bye,
    Called,
    CallFailed,
    Credit,
    Data,
    Eof,
    Event,
    Noticed,
    Opened,
    Pong,
    Refused,
    Replied,
    Reset,
)  # fmt: skip
from sidestage.protocol.outbox import Outbox, Queue
from sidestage.protocol.window import MAX_GROWN, Pool, Window

_EMFILE = 24
MAX_CREDIT = 2 * MAX_GROWN  # a peer that grants more is broken


class _Channel:
    __slots__ = ("credit", "eof_in", "eof_out", "open", "queue", "room", "window")

    def __init__(self, number: int, pool: Pool) -> None:
        self.open = False
        self.credit = pool.first  # what we may still send
        self.room = pool.first  # what the peer may still send
        self.window = Window(pool)
        self.queue = Queue(number)
        self.eof_in = self.eof_out = False


class Mux:
    def __init__(
        self,
        side: str,
        *,
        window: int = wire.WINDOW,
        max_data: int = wire.MAX_DATA,
        max_grown: int = MAX_GROWN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_data, self._clock = max_data, clock
        self._pool = Pool(window, clock, max_grown)
        self._parity = 1 if side == "laptop" else 0
        self._next_channel = 1 if self._parity else 2
        self._next_call = 1
        self._calls: Dict[int, bool] = {}  # ours, unanswered
        self._theirs: Dict[int, bool] = {}  # the peer's, unanswered
        self._channels: Dict[int, _Channel] = {}
        self._seen = 0  # the highest channel number that the peer opened
        self._pinged = (-1, 0.0)  # the last token and its time
        self._inbox = Inbox()
        self._outbox = Outbox(wire.PREAMBLE.pack(wire.MAGIC, wire.VERSION))
        self._answers = Queue(0)  # long answers take turns with the channels
        self._handlers: Dict[int, Callable[[int, Buffer], Optional[Event]]] = {
            wire.CALL: self._on_call, wire.REPLY: self._on_reply, wire.FAIL: self._on_fail, wire.OPEN: self._on_open,
            wire.ACCEPT: self._on_accept, wire.REFUSE: self._on_refuse, wire.DATA: self._on_data,
            wire.EOF: self._on_eof, wire.RESET: self._on_reset, wire.CREDIT: self._on_credit,
            wire.EVENT: self._on_event, wire.PING: self._on_ping, wire.PONG: self._on_pong, wire.BYE: self._on_bye,
        }  # fmt: skip

    # -- bytes in --

    def feed(self, data: Buffer) -> List[Event]:
        """Take bytes of the stream; raises ProtocolError when the peer broke the protocol."""
        events: List[Event] = []
        for kind, channel, payload in self._inbox.feed(data):
            event = self._handlers[kind](channel, payload)
            if event is not None:
                events.append(event)
        return events

    def wanted(self) -> int:
        """How much to read next so that bulk comes in whole frames; 0: any number."""
        return self._inbox.wanted()

    def _on_call(self, call: int, payload: Buffer) -> Event:
        if call in self._theirs or len(self._theirs) >= wire.MAX_CALLS:
            raise ProtocolError("too many calls, or one twice")
        head, raw = body.split(payload)
        self._theirs[call] = True
        return Called(call, body.text(head, "op"), body.obj(head, "args"), raw)

    def _on_reply(self, call: int, payload: Buffer) -> Event:
        self._answered(call)
        head, raw = body.split(payload)
        return Replied(call, head, raw)

    def _on_fail(self, call: int, payload: Buffer) -> Event:
        self._answered(call)
        head = body.load(payload)
        return CallFailed(call, body.errno_of(head), body.text(head, "text"))

    def _answered(self, call: int) -> None:
        if self._calls.pop(call, None) is None:
            raise ProtocolError(f"answer to call {call}, which was not asked")

    def _on_open(self, channel: int, payload: Buffer) -> Optional[Event]:
        if channel & 1 == self._parity or channel <= self._seen:
            raise ProtocolError(f"channel {channel} can't be opened")
        head = body.load(payload)
        event = Opened(channel, body.text(head, "kind"), body.obj(head, "args"))
        self._seen = channel
        if len(self._channels) >= wire.MAX_CHANNELS:
            # No fault of the peer: both sides open towards the one limit, and an OPEN overtakes the RESET that made room.
            self._no_flood()
            self._frame(wire.REFUSE, channel, body.failure(_EMFILE, "too many channels"))
            return None
        self._channels[channel] = _Channel(channel, self._pool)
        return event

    def _on_accept(self, channel: int, payload: Buffer) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if state.open or channel & 1 != self._parity:
            raise ProtocolError(f"channel {channel} accepted twice, or by its opener")
        state.open = True
        return Accepted(channel, body.load(payload))

    def _on_refuse(self, channel: int, payload: Buffer) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if state.open or channel & 1 != self._parity:
            raise ProtocolError(f"channel {channel} refused after it was accepted, or by its opener")
        head = body.load(payload)
        self._forget(channel)
        return Refused(channel, body.errno_of(head), body.text(head, "text"))

    def _on_data(self, channel: int, payload: Buffer) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        early = not state.open and channel & 1 == self._parity
        if early or state.eof_in or len(payload) > state.room:
            raise ProtocolError(f"data on channel {channel} before it is open, after its end or beyond its credit")
        state.room -= len(payload)
        return Data(channel, payload)

    def _on_eof(self, channel: int, payload: Buffer) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if not state.open or state.eof_in:
            raise ProtocolError(f"channel {channel} ended twice or before it is open")
        state.eof_in = True
        self._forget_if_done(channel, state)
        return Eof(channel)

    def _on_reset(self, channel: int, payload: Buffer) -> Optional[Event]:
        if self._known(channel) is None:
            return None
        self._forget(channel)
        return Reset(channel)

    def _on_credit(self, channel: int, payload: Buffer) -> Optional[Event]:
        state = self._known(channel)
        if len(payload) != wire.LENGTH.size:
            raise ProtocolError("malformed credit")
        if state is None or state.eof_out:
            return None
        state.credit += wire.LENGTH.unpack(payload)[0]
        if state.credit > MAX_CREDIT:
            raise ProtocolError("credit beyond all bounds")
        return Credit(channel, state.credit)

    def _on_event(self, _channel: int, payload: Buffer) -> Event:
        head = body.load(payload)
        return Noticed(body.text(head, "name"), body.obj(head, "args"))

    def _on_ping(self, token: int, payload: Buffer) -> None:
        self._no_flood()
        self._frame(wire.PONG, token)

    def _on_pong(self, token: int, payload: Buffer) -> Event:
        if token == self._pinged[0]:
            self._pool.heard(self._clock() - self._pinged[1])
        return Pong(token)

    def _on_bye(self, _channel: int, payload: Buffer) -> Event:
        return Bye()

    def _no_flood(self) -> None:
        """The mux's own answers don't pile up without bound for a peer that doesn't read them."""
        if self._outbox.controls() > 4 * wire.MAX_CALLS:
            raise ProtocolError("flood of pings or channels")

    def _known(self, channel: int) -> Optional[_Channel]:
        state = self._channels.get(channel)
        if state is None:
            ours = channel & 1 == self._parity
            if not channel or (channel >= self._next_channel if ours else channel > self._seen):
                raise ProtocolError(f"channel {channel} was never opened")
        return state

    # -- orders --

    def call(self, op: str, args: Args, raw: bytes = b"") -> int:
        if len(self._calls) >= wire.MAX_CALLS:
            raise ProtocolError("too many calls at once", remote=False)
        call = self._next_call
        self._next_call = call % 0xFFFFFFFF + 1
        self._calls[call] = True
        self._frame(wire.CALL, call, body.head({"op": op, "args": args}) + raw)
        return call

    def reply(self, call: int, result: Args, raw: Buffer = b"") -> None:
        head = body.head(result)
        header = _header(wire.REPLY, call, len(head) + len(raw))
        if len(raw) <= wire.MAX_RECORD:
            self._outbox.control(b"".join((header, head, raw)))
        else:
            self._outbox.put(self._answers, header, head, raw)
        del self._theirs[call]

    def fail(self, call: int, errno: int, text: str = "") -> None:
        self._frame(wire.FAIL, call, body.failure(errno, text))
        del self._theirs[call]

    def open(self, kind: str, args: Args) -> int:
        if len(self._channels) >= wire.MAX_CHANNELS:
            raise ProtocolError("too many channels at once", remote=False)
        channel = self._next_channel
        self._next_channel += 2
        self._channels[channel] = _Channel(channel, self._pool)
        self._frame(wire.OPEN, channel, body.dump({"kind": kind, "args": args}))
        return channel

    def accept(self, channel: int, info: Args) -> None:
        state = self._channels.get(channel)
        if state is not None:
            state.open = True
            self._frame(wire.ACCEPT, channel, body.dump(info))

    def refuse(self, channel: int, errno: int, text: str = "") -> None:
        if self._forget(channel) is not None:
            self._frame(wire.REFUSE, channel, body.failure(errno, text))

    def writable(self, channel: int) -> int:
        """Bytes that may be sent now; when that is few, a Credit event or `relieved` says when it is more."""
        state = self._channels.get(channel)
        if state is None or state.eof_out or not self._may_send(channel, state):
            return 0
        return min(state.credit, self._outbox.room(state.queue))

    def send(self, channel: int, data: Buffer, *, record: bool = False) -> None:
        """Send what `writable` allows; a record is not split."""
        state = self._channels.get(channel)
        if state is None:
            return
        if len(data) > state.credit or state.eof_out or not self._may_send(channel, state):
            raise ProtocolError(f"sent beyond the credit or the end of channel {channel}", remote=False)
        state.credit -= len(data)
        size = self._max_data
        if record or len(data) <= size:
            self._outbox.data(state.queue, data)
        else:
            view = memoryview(data)
            for at in range(0, len(data), size):
                self._outbox.data(state.queue, view[at : at + size])

    def _may_send(self, channel: int, state: _Channel) -> bool:
        """Who opened a channel may send at once; what is refused then was not read."""
        return state.open or channel & 1 == self._parity

    def send_eof(self, channel: int) -> None:
        state = self._channels.get(channel)
        if state is not None and not state.eof_out:
            if not state.open:
                raise ProtocolError(f"channel {channel} ended before it is open", remote=False)
            state.eof_out = True
            self._outbox.put(state.queue, _header(wire.EOF, channel))
            self._forget_if_done(channel, state)

    def reset(self, channel: int) -> None:
        state = self._forget(channel)
        if state is not None:
            self._outbox.put(state.queue, _header(wire.RESET, channel))

    def consumed(self, channel: int, n: int) -> None:
        state = self._channels.get(channel)
        if state is None or state.eof_in:
            return
        granted = state.window.consumed(n)
        if granted:
            state.room += granted
            self._frame(wire.CREDIT, channel, wire.LENGTH.pack(granted))

    def event(self, name: str, args: Args) -> None:
        self._frame(wire.EVENT, 0, body.dump({"name": name, "args": args}))

    def ping(self, token: int) -> None:
        self._pinged = (token, self._clock())
        self._frame(wire.PING, token)

    def bye(self) -> None:
        self._outbox.last(_header(wire.BYE, 0))

    def _forget(self, channel: int) -> Optional[_Channel]:
        state = self._channels.pop(channel, None)
        if state is not None:
            state.window.release()
        return state

    def _forget_if_done(self, channel: int, state: _Channel) -> None:
        if state.eof_in and state.eof_out:
            self._forget(channel)

    # -- bytes out --

    def _frame(self, kind: int, channel: int, payload: bytes = b"") -> None:
        self._outbox.control(_header(kind, channel, len(payload)) + payload)

    def pending(self) -> int:
        """Bytes that wait to be taken."""
        return self._outbox.pending

    def take(self, limit: int) -> List[Buffer]:
        """Wire bytes for the next write: all control first, then whole data frames until `limit` is reached."""
        return self._outbox.take(limit)

    def relieved(self) -> List[int]:
        """Channels that may send again, as what they had queued has been taken."""
        return self._outbox.relieved()


def _header(kind: int, channel: int, length: int = 0) -> bytes:
    if length > wire.MAX_PAYLOAD:
        raise ProtocolError(f"a frame of {length} bytes can't be sent", remote=False)
    return wire.HEADER.pack(length, kind, channel)
