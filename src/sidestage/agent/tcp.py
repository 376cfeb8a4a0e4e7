"""TCP reassembly, sans-IO: packets in any order in, each side's bytes in order out (RFC 9293).

A connection is joined only at its SYN, so that a program never sees the middle of a conversation. What a side sent is put in
order by sequence number; what the other has acknowledged and we never saw is lost for good: the connection is then dropped
rather than delivered with a hole. What the server answers is followed only where it was asked for, and its loss ends only that.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple, Union

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
MAX_CONNECTIONS = 4096  # followed at once; further ones are not mirrored, and counted
MAX_PENDING = 1 << 20  # bytes out of order kept for one connection
MAX_TOTAL = 16 << 20  # and for all together
COST = 256  # bytes that a kept segment takes beside its data: a client can send segments of one byte

Key = Tuple[bytes, int, bytes, int]  # client address, client port, server address, server port


class Segment(NamedTuple):
    source: bytes
    source_port: int
    target: bytes
    target_port: int
    seq: int
    ack: int
    flags: int
    data: bytes


class Started(NamedTuple):
    key: Key


class Bytes(NamedTuple):
    """What the client sent."""

    key: Key
    data: bytes


class Ended(NamedTuple):
    """The client closed its direction."""

    key: Key


class Answer(NamedTuple):
    """What the server sent."""

    key: Key
    data: bytes


class Answered(NamedTuple):
    """The server's answers end here; `whole` when it closed its direction, else some were lost."""

    key: Key
    whole: bool


class Aborted(NamedTuple):
    """RST from either side, or the server closed and the client has gone quiet."""

    key: Key


class Dropped(NamedTuple):
    """Bytes were lost, or limits reached: this connection is not followed any more."""

    key: Key


Event = Union[Started, Bytes, Ended, Answer, Answered, Aborted, Dropped]


class _Stream:
    """One direction of a connection."""

    __slots__ = ("ended", "expected", "fin", "held", "pending", "start")

    def __init__(self, start: int) -> None:
        self.start = start  # the sequence number of the first byte
        self.expected = start  # and of the next one
        self.pending: Dict[int, bytes] = {}
        self.held = 0  # bytes that `pending` costs
        self.fin: Optional[int] = None  # sequence number of the FIN
        self.ended = False

    def feed(self, segment: Segment) -> bytes:
        """Take a segment; returns the bytes that are in order now, and sets `ended` behind the last."""
        if segment.flags & FIN:
            self.fin = (segment.seq + len(segment.data)) & 0xFFFFFFFF
        if segment.data:
            self._take(segment.seq, segment.data)
        parts: List[bytes] = []
        while self.pending:
            data = self._next()
            if data is None:
                break
            parts.append(data)
            self.expected = (self.expected + len(data)) & 0xFFFFFFFF
        if self.fin == self.expected:
            self.ended = True
        return b"".join(parts)

    def lost(self, ack: int) -> bool:
        """Has the other side got what we have not?"""
        # A FIN takes one number: acknowledged, it is one beyond the data.
        return not self.ended and _distance(self.expected, ack) - (1 if self.fin is not None else 0) > 0

    def _take(self, seq: int, data: bytes) -> None:
        behind = _distance(self.expected, seq)
        if behind < 0:  # wholly or partly a repetition
            data = data[-behind:]
            seq = self.expected
        old = self.pending.get(seq)
        if data and (old is None or len(old) < len(data)):
            self.pending[seq] = data
            self.held += len(data) + COST if old is None else len(data) - len(old)

    def _next(self) -> Optional[bytes]:
        """The bytes at `expected`, maybe of a kept segment that starts before; None when there is a hole."""
        data = self.pending.pop(self.expected, None)
        if data is not None:
            self.held -= len(data) + COST
            return data
        for seq in list(self.pending):
            ahead = _distance(self.expected, seq)
            if ahead <= 0:
                data = self.pending.pop(seq)
                self.held -= len(data) + COST
                if len(data) > -ahead:
                    return data[-ahead:]
        return None


class _Connection:
    __slots__ = ("answers", "client", "server", "server_fin")

    def __init__(self, start: int, answers: bool) -> None:
        self.client = _Stream(start)
        self.answers = answers  # wanted, and nothing of them is lost
        self.server: Optional[_Stream] = None  # from its SYN on, if wanted
        self.server_fin = False

    def held(self) -> int:
        return self.client.held + (self.server.held if self.server else 0)


class Reassembler:
    """Follows connections to the ports in `ports`, and the answers of those in `answers`; their owner changes both at will."""

    def __init__(self) -> None:
        self.ports: Dict[int, int] = {}
        self.answers: Dict[int, int] = {}
        self._connections: Dict[Key, _Connection] = {}
        self._held = 0

    def feed(self, segment: Segment) -> List[Event]:
        key = (segment.source, segment.source_port, segment.target, segment.target_port)
        connection = self._connections.get(key)
        if connection is not None or (segment.flags & (SYN | ACK) == SYN and segment.target_port in self.ports):
            return self._from_client(key, connection, segment)
        back = (segment.target, segment.target_port, segment.source, segment.source_port)
        connection = self._connections.get(back)
        return self._from_server(back, connection, segment) if connection is not None else []

    def forget(self, key: Key) -> None:
        connection = self._connections.pop(key, None)
        if connection is not None:
            self._held -= connection.held()

    def keys(self) -> List[Key]:
        return list(self._connections)

    def _from_client(self, key: Key, connection: Optional[_Connection], segment: Segment) -> List[Event]:
        events: List[Event] = []
        if segment.flags & SYN:
            start = (segment.seq + 1) & 0xFFFFFFFF
            if connection is not None:
                if connection.client.start == start and not connection.client.ended:
                    return events  # the SYN again, perhaps late
                self.forget(key)  # the port is used anew
                events.append(Aborted(key))
            if len(self._connections) >= MAX_CONNECTIONS:
                return [*events, Dropped(key)]
            self._connections[key] = connection = _Connection(start, key[3] in self.answers)
            events.append(Started(key))
            if not segment.data:
                return events
            segment = segment._replace(seq=start)  # TCP fast open: data in the SYN (RFC 7413)
        assert connection is not None
        if segment.flags & RST:
            self.forget(key)
            return [*events, Aborted(key)]
        ended = connection.client.ended
        data = self._feed(connection, connection.client, segment)
        if data:
            events.append(Bytes(key, data))
        if connection.client.ended and not ended:
            events.append(Ended(key))
        if connection.server is not None and segment.flags & ACK and connection.server.lost(segment.ack):
            events.append(self._unanswered(key, connection))
        if connection.client.held > MAX_PENDING or (connection.client.held and self._held > MAX_TOTAL):
            self.forget(key)
            return [*events, Dropped(key)]
        self._forget_if_over(key, connection)
        return events

    def _from_server(self, key: Key, connection: _Connection, segment: Segment) -> List[Event]:
        if segment.flags & RST:
            self.forget(key)
            return [Aborted(key)]
        if segment.flags & ACK and connection.client.lost(segment.ack):
            self.forget(key)
            return [Dropped(key)]
        events = self._answer(key, connection, segment) if connection.answers else []
        if segment.flags & FIN:
            connection.server_fin = True
        self._forget_if_over(key, connection)
        return events

    def _answer(self, key: Key, connection: _Connection, segment: Segment) -> List[Event]:
        if segment.flags & SYN:
            if connection.server is None:
                connection.server = _Stream((segment.seq + 1) & 0xFFFFFFFF)
            return []
        server = connection.server
        if server is None:  # its SYN was missed
            return [self._unanswered(key, connection)]
        ended = server.ended
        data = self._feed(connection, server, segment)
        events: List[Event] = [Answer(key, data)] if data else []
        if server.held > MAX_PENDING or (server.held and self._held > MAX_TOTAL):
            return [*events, self._unanswered(key, connection)]
        return [*events, Answered(key, True)] if server.ended and not ended else events

    def _unanswered(self, key: Key, connection: _Connection) -> Event:
        if connection.server is not None:
            self._held -= connection.server.held
        connection.server, connection.answers = None, False
        return Answered(key, False)

    def _feed(self, connection: _Connection, stream: _Stream, segment: Segment) -> bytes:
        before = stream.held
        data = stream.feed(segment)
        self._held += stream.held - before
        return data

    def _forget_if_over(self, key: Key, connection: _Connection) -> None:
        """Both sides have closed, and all is told."""
        server = connection.server
        if connection.client.ended and connection.server_fin and (server is None or server.ended):
            self.forget(key)


def _distance(start: int, end: int) -> int:
    """end - start for 32-bit sequence numbers that wrap around (RFC 9293 3.4)."""
    return ((end - start + 0x80000000) & 0xFFFFFFFF) - 0x80000000
