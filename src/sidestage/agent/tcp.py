"""TCP reassembly, sans-IO: packets in any order in, each client's bytes in order out (RFC 9293).

A connection is joined only at its SYN, so that a program never sees the middle of a conversation. What the client sent
is put in order by sequence number; what the server has acknowledged and we never saw is lost for good, and the
connection is then dropped rather than delivered with a hole.
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
    key: Key
    data: bytes


class Ended(NamedTuple):
    """The client closed its direction."""

    key: Key


class Aborted(NamedTuple):
    """RST from either side, or the server closed and the client has gone quiet."""

    key: Key


class Dropped(NamedTuple):
    """Bytes were lost, or limits reached: this connection is not followed any more."""

    key: Key


Event = Union[Started, Bytes, Ended, Aborted, Dropped]


class _Connection:
    __slots__ = ("ended", "expected", "fin", "held", "pending", "server_fin", "start")

    def __init__(self, start: int) -> None:
        self.start = start  # the sequence number of the client's first byte
        self.expected = start  # and of the next one
        self.pending: Dict[int, bytes] = {}
        self.held = 0
        self.fin: Optional[int] = None  # sequence number of the client's FIN
        self.ended = False
        self.server_fin = False


class Reassembler:
    """Follows connections to the ports in `ports`, which its owner changes at will."""

    def __init__(self) -> None:
        self.ports: Dict[int, int] = {}
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
            self._held -= connection.held

    def keys(self) -> List[Key]:
        return list(self._connections)

    def _from_client(self, key: Key, connection: Optional[_Connection], segment: Segment) -> List[Event]:
        events: List[Event] = []
        if segment.flags & SYN:
            start = (segment.seq + 1) & 0xFFFFFFFF
            if connection is not None:
                if connection.start == start and not connection.ended:
                    return events  # the SYN again, perhaps late
                self.forget(key)  # the port is used anew
                events.append(Aborted(key))
            if len(self._connections) >= MAX_CONNECTIONS:
                return [*events, Dropped(key)]
            self._connections[key] = connection = _Connection(start)
            events.append(Started(key))
            if not segment.data:
                return events
            segment = segment._replace(seq=start)  # TCP fast open: data in the SYN (RFC 7413)
        assert connection is not None
        if segment.flags & RST:
            self.forget(key)
            return [*events, Aborted(key)]
        if segment.flags & FIN:
            connection.fin = (segment.seq + len(segment.data)) & 0xFFFFFFFF
        if segment.data:
            self._take(connection, segment.seq, segment.data)
        events += self._deliver(key, connection)
        if connection.held > MAX_PENDING or (connection.held and self._held > MAX_TOTAL):
            self.forget(key)
            events.append(Dropped(key))
        return events

    def _take(self, connection: _Connection, seq: int, data: bytes) -> None:
        behind = _distance(connection.expected, seq)
        if behind < 0:  # wholly or partly a repetition
            data = data[-behind:]
            seq = connection.expected
        old = connection.pending.get(seq)
        if data and (old is None or len(old) < len(data)):
            connection.pending[seq] = data
            self._hold(connection, len(data) + COST if old is None else len(data) - len(old))

    def _hold(self, connection: _Connection, size: int) -> None:
        connection.held += size
        self._held += size

    def _deliver(self, key: Key, connection: _Connection) -> List[Event]:
        parts: List[bytes] = []
        pending = connection.pending
        while pending:
            data = pending.pop(connection.expected, None)
            if data is None:
                data = self._overlapping(connection)
                if data is None:
                    break
            else:
                self._hold(connection, -len(data) - COST)
            parts.append(data)
            connection.expected = (connection.expected + len(data)) & 0xFFFFFFFF
        events: List[Event] = [Bytes(key, b"".join(parts))] if parts else []
        if connection.fin == connection.expected and not connection.ended:
            connection.ended = True
            events.append(Ended(key))
        if connection.ended and connection.server_fin:
            self.forget(key)
        return events

    def _overlapping(self, connection: _Connection) -> Optional[bytes]:
        """What a kept segment that starts before `expected` adds to it; None when there is a hole."""
        for seq in list(connection.pending):
            ahead = _distance(connection.expected, seq)
            if ahead <= 0:
                data = connection.pending.pop(seq)
                self._hold(connection, -len(data) - COST)
                if len(data) > -ahead:
                    return data[-ahead:]
        return None

    def _from_server(self, key: Key, connection: _Connection, segment: Segment) -> List[Event]:
        if segment.flags & RST:
            self.forget(key)
            return [Aborted(key)]
        if segment.flags & ACK:
            # A FIN takes one number: acknowledged, it is one beyond the data.
            beyond = _distance(connection.expected, segment.ack) - (1 if connection.fin is not None else 0)
            if beyond > 0 and not connection.ended:
                self.forget(key)
                return [Dropped(key)]
        if segment.flags & FIN:
            connection.server_fin = True
            if connection.ended:
                self.forget(key)
        return []


def _distance(start: int, end: int) -> int:
    """end - start for 32-bit sequence numbers that wrap around (RFC 9293 3.4)."""
    return ((end - start + 0x80000000) & 0xFFFFFFFF) - 0x80000000
