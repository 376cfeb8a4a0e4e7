"""Many calls and channels over one byte stream, sans-IO: bytes in, events out; orders in, bytes out.

A channel is OPENING until accepted or refused, then OPEN; each direction ends by EOF, the whole by RESET. A channel that
has ended is forgotten by the side that saw both ends; frames that were under way to a forgotten channel are ignored when
its number is one that was in use, and break the protocol when it never was. Credit counts payload bytes; the receiver
grants half windows, so that a sender with a fast reader never stops.
"""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Union

from sidestage.protocol import body, wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import (
    Accepted,
    Args,
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

_EMFILE = 24

Buffer = Union[bytes, bytearray, memoryview]


class _Channel:
    __slots__ = ("credit", "eof_in", "eof_out", "open", "owed", "room")

    def __init__(self, window: int, opened: bool) -> None:
        self.open = opened
        self.credit = window  # what we may still send
        self.room = window  # what the peer may still send
        self.owed = 0  # consumed and not yet granted back
        self.eof_in = self.eof_out = False


class Mux:
    def __init__(self, side: str, *, window: int = wire.WINDOW, max_data: int = wire.MAX_DATA) -> None:
        self._window, self._max_data = window, max_data
        self._parity = 1 if side == "laptop" else 0
        self._next_channel = 1 if self._parity else 2
        self._next_call = 1
        self._calls: Dict[int, bool] = {}  # ours, unanswered
        self._theirs: Dict[int, bool] = {}  # the peer's, unanswered
        self._channels: Dict[int, _Channel] = {}
        self._seen = 0  # the highest channel number that the peer opened
        self._buffer = bytearray()
        self._greeted = False
        self._control: Deque[bytes] = deque([wire.PREAMBLE.pack(wire.MAGIC, wire.VERSION)])
        self._data: Deque[Buffer] = deque()
        self._pending = wire.PREAMBLE.size
        self._handlers: Dict[int, Callable[[int, bytes], Optional[Event]]] = {
            wire.CALL: self._on_call, wire.REPLY: self._on_reply, wire.FAIL: self._on_fail, wire.OPEN: self._on_open,
            wire.ACCEPT: self._on_accept, wire.REFUSE: self._on_refuse, wire.DATA: self._on_data,
            wire.EOF: self._on_eof, wire.RESET: self._on_reset, wire.CREDIT: self._on_credit,
            wire.EVENT: self._on_event, wire.PING: self._on_ping, wire.PONG: self._on_pong, wire.BYE: self._on_bye,
        }  # fmt: skip

    # -- bytes in --

    def feed(self, data: Buffer) -> List[Event]:
        """Take bytes of the stream; raises ProtocolError when the peer broke the protocol."""
        buffer = self._buffer
        buffer += data
        events: List[Event] = []
        at, size = 0, len(buffer)
        if not self._greeted:
            if size < wire.PREAMBLE.size:
                if not wire.MAGIC.startswith(bytes(buffer[:8])):
                    raise ProtocolError("the peer does not speak sidestage's protocol")
                return events
            magic, version = wire.PREAMBLE.unpack_from(buffer)
            if magic != wire.MAGIC:
                raise ProtocolError("the peer does not speak sidestage's protocol")
            if version != wire.VERSION:
                raise ProtocolError(f"the peer speaks version {version} of the protocol, we speak {wire.VERSION}")
            self._greeted = True
            at = wire.PREAMBLE.size
        view = memoryview(buffer)
        try:
            while size - at >= wire.HEADER.size:
                length, kind, channel = wire.HEADER.unpack_from(buffer, at)
                handler = self._handlers.get(kind)
                if handler is None:
                    raise ProtocolError(f"unknown frame type {kind}")
                if length > wire.MAX_PAYLOAD:
                    raise ProtocolError(f"frame of {length} bytes")
                start = at + wire.HEADER.size
                if size - start < length:
                    break
                event = handler(channel, bytes(view[start : start + length]))
                if event is not None:
                    events.append(event)
                at = start + length
        finally:
            view.release()
        del buffer[:at]
        return events

    def _on_call(self, call: int, payload: bytes) -> Event:
        if call in self._theirs or len(self._theirs) >= wire.MAX_CALLS:
            raise ProtocolError("too many calls, or one twice")
        head, raw = body.split(payload)
        self._theirs[call] = True
        return Called(call, body.text(head, "op"), body.obj(head, "args"), raw)

    def _on_reply(self, call: int, payload: bytes) -> Event:
        self._answered(call)
        head, raw = body.split(payload)
        return Replied(call, head, raw)

    def _on_fail(self, call: int, payload: bytes) -> Event:
        self._answered(call)
        head = body.load(payload)
        return CallFailed(call, body.errno_of(head), body.text(head, "text"))

    def _answered(self, call: int) -> None:
        if self._calls.pop(call, None) is None:
            raise ProtocolError(f"answer to call {call}, which was not asked")

    def _on_open(self, channel: int, payload: bytes) -> Optional[Event]:
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
        self._channels[channel] = _Channel(self._window, False)
        return event

    def _on_accept(self, channel: int, payload: bytes) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if state.open or channel & 1 != self._parity:
            raise ProtocolError(f"channel {channel} accepted twice, or by its opener")
        state.open = True
        return Accepted(channel, body.load(payload))

    def _on_refuse(self, channel: int, payload: bytes) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if state.open or channel & 1 != self._parity:
            raise ProtocolError(f"channel {channel} refused after it was accepted, or by its opener")
        head = body.load(payload)
        del self._channels[channel]
        return Refused(channel, body.errno_of(head), body.text(head, "text"))

    def _on_data(self, channel: int, payload: bytes) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if not state.open or state.eof_in or len(payload) > state.room:
            raise ProtocolError(f"data on channel {channel} before it is open, after its end or beyond its credit")
        state.room -= len(payload)
        return Data(channel, payload)

    def _on_eof(self, channel: int, payload: bytes) -> Optional[Event]:
        state = self._known(channel)
        if state is None:
            return None
        if not state.open or state.eof_in:
            raise ProtocolError(f"channel {channel} ended twice or before it is open")
        state.eof_in = True
        self._forget_if_done(channel, state)
        return Eof(channel)

    def _on_reset(self, channel: int, payload: bytes) -> Optional[Event]:
        if self._known(channel) is None:
            return None
        del self._channels[channel]
        return Reset(channel)

    def _on_credit(self, channel: int, payload: bytes) -> Optional[Event]:
        state = self._known(channel)
        if len(payload) != wire.LENGTH.size:
            raise ProtocolError("malformed credit")
        if state is None or state.eof_out:
            return None
        state.credit += wire.LENGTH.unpack(payload)[0]
        if state.credit > 64 * wire.WINDOW:
            raise ProtocolError("credit beyond all bounds")
        return Credit(channel, state.credit)

    def _on_event(self, _channel: int, payload: bytes) -> Event:
        head = body.load(payload)
        return Noticed(body.text(head, "name"), body.obj(head, "args"))

    def _on_ping(self, token: int, payload: bytes) -> None:
        self._no_flood()
        self._frame(wire.PONG, token)

    def _on_pong(self, token: int, payload: bytes) -> Event:
        return Pong(token)

    def _on_bye(self, _channel: int, payload: bytes) -> Event:
        return Bye()

    def _no_flood(self) -> None:
        """The mux's own answers don't pile up without bound for a peer that doesn't read them."""
        if len(self._control) > 4 * wire.MAX_CALLS:
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
        self._frame(wire.CALL, call, body.join({"op": op, "args": args}, raw))
        return call

    def reply(self, call: int, result: Args, raw: bytes = b"") -> None:
        self._frame(wire.REPLY, call, body.join(result, raw))
        del self._theirs[call]

    def fail(self, call: int, errno: int, text: str = "") -> None:
        self._frame(wire.FAIL, call, body.failure(errno, text))
        del self._theirs[call]

    def open(self, kind: str, args: Args) -> int:
        if len(self._channels) >= wire.MAX_CHANNELS:
            raise ProtocolError("too many channels at once", remote=False)
        channel = self._next_channel
        self._next_channel += 2
        self._channels[channel] = _Channel(self._window, False)
        self._frame(wire.OPEN, channel, body.dump({"kind": kind, "args": args}))
        return channel

    def accept(self, channel: int, info: Args) -> None:
        state = self._channels.get(channel)
        if state is not None:
            state.open = True
            self._frame(wire.ACCEPT, channel, body.dump(info))

    def refuse(self, channel: int, errno: int, text: str = "") -> None:
        if self._channels.pop(channel, None) is not None:
            self._frame(wire.REFUSE, channel, body.failure(errno, text))

    def writable(self, channel: int) -> int:
        state = self._channels.get(channel)
        return state.credit if state is not None and state.open and not state.eof_out else 0

    def send(self, channel: int, data: Buffer) -> None:
        state = self._channels.get(channel)
        if state is None:
            return
        if len(data) > state.credit or not state.open or state.eof_out:
            raise ProtocolError(f"sent beyond the credit or the end of channel {channel}", remote=False)
        state.credit -= len(data)
        size = self._max_data
        parts = [data] if len(data) <= size else [data[at : at + size] for at in range(0, len(data), size)]
        for part in parts:
            self._data.append(wire.HEADER.pack(len(part), wire.DATA, channel))
            self._data.append(part)
            self._pending += wire.HEADER.size + len(part)

    def send_eof(self, channel: int) -> None:
        state = self._channels.get(channel)
        if state is not None and not state.eof_out:
            if not state.open:
                raise ProtocolError(f"channel {channel} ended before it is open", remote=False)
            state.eof_out = True
            self._after_data(wire.EOF, channel)
            self._forget_if_done(channel, state)

    def reset(self, channel: int) -> None:
        if self._channels.pop(channel, None) is not None:
            self._after_data(wire.RESET, channel)

    def consumed(self, channel: int, n: int) -> None:
        state = self._channels.get(channel)
        if state is None or state.eof_in:
            return
        state.owed += n
        if state.owed * 2 >= self._window:
            state.room += state.owed
            self._frame(wire.CREDIT, channel, wire.LENGTH.pack(state.owed))
            state.owed = 0

    def event(self, name: str, args: Args) -> None:
        self._frame(wire.EVENT, 0, body.dump({"name": name, "args": args}))

    def ping(self, token: int) -> None:
        self._frame(wire.PING, token)

    def bye(self) -> None:
        self._after_data(wire.BYE, 0)

    def _forget_if_done(self, channel: int, state: _Channel) -> None:
        if state.eof_in and state.eof_out:
            self._channels.pop(channel, None)

    # -- bytes out --

    def _frame(self, kind: int, channel: int, payload: bytes = b"") -> None:
        if len(payload) > wire.MAX_PAYLOAD:
            raise ProtocolError(f"a frame of {len(payload)} bytes can't be sent", remote=False)
        frame = wire.HEADER.pack(len(payload), kind, channel) + payload
        self._control.append(frame)
        self._pending += len(frame)

    def _after_data(self, kind: int, channel: int) -> None:
        """A frame that must not overtake its channel's data."""
        self._data.append(wire.HEADER.pack(0, kind, channel))
        self._data.append(b"")
        self._pending += wire.HEADER.size

    def pending(self) -> int:
        """Bytes that wait to be taken."""
        return self._pending

    def take(self, limit: int) -> List[Buffer]:
        """Wire bytes for the next write: all control first, then whole data frames until `limit` is reached."""
        out: List[Buffer] = list(self._control)
        self._control.clear()
        size = sum(map(len, out))
        data = self._data
        while data and size < limit:
            header, part = data.popleft(), data.popleft()
            out.append(header)
            out.append(part)
            size += len(header) + len(part)
        self._pending -= size
        return out
