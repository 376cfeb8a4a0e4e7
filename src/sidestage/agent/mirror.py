"""The passive mirror: copies what clients send to subscribed ports, and touches nothing.

A packet socket (packet(7)) with a kernel filter for the ports gives every packet of both directions; tcp.py puts them in
order. Nothing is redirected: when the laptop is slow or packets are missed, mirrored connections are dropped and
counted, and the target's own are as they were.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional, Tuple, Union

from sidestage.agent.listeners import FIRST_PORT, PORTS, REMEMBERED, candidates
from sidestage.agent.target import MARK
from sidestage.agent.tcp import (
    Aborted,
    Answer,
    Answered,
    Bytes,
    Dropped,
    Key,
    Reassembler,
    Segment,
    Started,
)  # fmt: skip
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import Buffer
from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop

if TYPE_CHECKING:
    from sidestage.agent.sifted import Gone, SiftedFlow, Sifter

MAX_BUFFER = 1 << 20  # bytes kept for a connection that the laptop doesn't take, beyond the channel's window
MAX_TOTAL = 32 << 20  # bytes kept for all of them and in the link's own queues, when the link stands still
ROUND = 256  # packets a wake-up: the link has its turn
RECEIVE_BUFFER = 8 << 20  # bytes of socket buffer, about 20 ms of a full 10 GbE
REPORT = 1.0  # seconds between reports of drops
_libc = ctypes.CDLL(None, use_errno=True)
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 3, 0x0800, 0x86DD
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
MAX_PORTS = 59  # jumps of classic BPF reach 255 instructions, and a port takes four


class Mirror:
    def __init__(self, loop: Loop, links: Links) -> None:
        self._loop, self._links = loop, links
        self._flows: Dict[Key, Union[_Flow, SiftedFlow]] = {}
        self._answers: Dict[Key, _Flow] = {}
        self._reassembler = Reassembler()
        self._sock: Optional[socket.socket] = None
        self._kept = _Kept()
        self._lost: Dict[int, List[int]] = {}  # port -> [bytes, connections]
        self._reporting = False
        # On the loopback interface a client's packets are seen when their port has been rewritten by a steal beside us.
        self._redirected: Dict[int, int] = {}
        self._sifters: Dict[int, Optional[Sifter]] = {}  # port -> what follows a connection when only some requests are told

    def subscribe(self, port: int, answers: bool = False, only: Optional[Dict[str, Any]] = None) -> None:
        """Mirror connections to `port` that start from now on, with what the target answers in a channel of its own if asked;
        `only`: the requests that this filter takes (http/filters.py).

        Raises OSError (EPERM without CAP_NET_RAW), ValueError.
        """
        if not 0 < port < 65536:
            raise ValueError(f"{port} is no port")
        make = None
        if only is not None:
            from sidestage.agent.sifted import sifter

            make = sifter(only, self._links.control)
        if self._sock is None:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            try:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
                except PermissionError:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                # Bound only when the filter is in place, so that nothing unasked for is ever received.
                self._filter(sock, port)
                _bind_everywhere(sock)
            except BaseException:
                sock.close()
                raise
            self._sock = sock
            self._loop.watch(sock.fileno(), select.EPOLLIN, self._readable)
        else:
            self._filter(self._sock, port)
        for counts in self._counts(answers):
            counts[port] = counts.get(port, 0) + 1
        self._sifters[port] = make

    def unsubscribe(self, port: int, answers: bool = False) -> None:
        """Connections under way go on to their end."""
        for counts in self._counts(answers):
            if port in counts:
                counts[port] -= 1
                if not counts[port]:
                    del counts[port]

    def _counts(self, answers: bool) -> List[Dict[int, int]]:
        return [self._reassembler.ports, self._reassembler.answers][: 2 if answers else 1]

    def _filter(self, sock: socket.socket, new: int) -> None:
        ports = sorted({new, *self._reassembler.ports, *(key[3] for key in self._flows)})
        if len(ports) > MAX_PORTS:
            raise OSError(errno.E2BIG, f"more than {MAX_PORTS} ports")
        self._redirected = {other: port for port in ports for other in candidates(port)[:REMEMBERED]}
        program = packet_filter(ports)
        code = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)

    def _readable(self, _events: int) -> None:
        assert self._sock is not None
        for _ in range(ROUND):
            try:
                packet, address = self._sock.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    continue
                raise
            segment = parse(address[1], packet)
            if segment is not None and segment.target_port in self._redirected:
                segment = segment._replace(target_port=self._redirected[segment.target_port])
            # A packet that passes two interfaces is seen twice; to the reassembly it is a repetition.
            if segment is not None:
                for event in self._reassembler.feed(segment):
                    self._apply(event)

    def _apply(self, event: Any) -> None:
        key = event.key
        if isinstance(event, Started):
            try:
                self._flows[key] = self._flow(key)
                if key[3] in self._reassembler.answers:
                    self._answers[key] = _Flow(self._links.carrier(), "answer", key, self._gone, self._kept)
            except ProtocolError:  # all channels are in use
                self._reassembler.forget(key)
                self._count(key[3], 0)
            return
        if isinstance(event, Dropped):
            self._count(key[3], 0)
        answering = isinstance(event, (Answer, Answered))
        flow: Union[_Flow, SiftedFlow, None] = (self._answers if answering else self._flows).get(key)
        if isinstance(event, (Aborted, Dropped)):
            for each in (flow, self._answers.get(key)):
                if each is not None:
                    each.abort()
        elif flow is None:
            return
        elif isinstance(event, (Bytes, Answer)):
            flow.data(event.data)
        elif isinstance(event, Answered) and not event.whole:
            flow.abort()
        else:
            flow.eof()

    def _flow(self, key: Key) -> "Union[_Flow, SiftedFlow]":
        def opened(gone: "Gone") -> _Flow:
            return _Flow(self._links.carrier(), "mirror", key, gone, self._kept)

        sifter = self._sifters.get(key[3])
        return opened(self._gone) if sifter is None else sifter(key, opened, self._gone)

    def _gone(self, flow: "Union[_Flow, SiftedFlow]", unsent: int) -> None:
        """A flow's end; `unsent` is not 0 when the laptop was too slow for it."""
        if self._flows.get(flow.key) is flow:
            del self._flows[flow.key]
            if not flow.finished:
                self._reassembler.forget(flow.key)
        elif self._answers.get(flow.key) is flow:
            del self._answers[flow.key]
        if unsent:
            self._count(flow.key[3], unsent)

    def _count(self, port: int, size: int) -> None:
        lost = self._lost.setdefault(port, [0, 0])
        lost[0] += size
        lost[1] += 1
        if not self._reporting:
            self._reporting = True
            self._loop.later(REPORT, self._report)

    def _report(self) -> None:
        self._reporting = False
        lost, self._lost = self._lost, {}
        for port, (size, connections) in lost.items():
            self._links.control.event("mirror.dropped", {"port": port, "bytes": size, "connections": connections})


class _Kept:
    """Bytes in all flows' queues."""

    size = 0


class _Flow:
    """One direction of a mirrored connection: a channel to the laptop, with a bounded queue."""

    def __init__(self, link: Link, kind: str, key: Key, gone: Callable[["_Flow", int], None], kept: _Kept) -> None:
        self._link, self.key, self._gone, self._kept = link, key, gone, kept
        self._queue: Deque[bytes] = deque()
        self._size = 0
        self._open = self._eof = self._ended = False
        self.finished = False
        client, client_port, server, server_port = key
        args = {"port": server_port, "peer": [_text(client), client_port], "local": [_text(server), server_port]}
        self.channel = link.open(kind, args, self)

    def data(self, data: bytes) -> None:
        self._queue.append(data)
        self._grow(len(data))
        if self._open:
            self._flush()
        if self._size > MAX_BUFFER or self._kept.size + self._link.mux.pending() > MAX_TOTAL:
            self._end(reset=True, unsent=self._size or len(data))

    def eof(self) -> None:
        self._eof = self.finished = True
        if self._open:
            self._flush()

    def abort(self) -> None:
        self.finished = True
        self._end(reset=True)

    def _flush(self) -> None:
        link, queue = self._link, self._queue
        while queue:
            room = link.writable(self.channel)
            if not room:
                return
            data = queue.popleft()
            if len(data) > room:
                queue.appendleft(data[room:])
                data = data[:room]
            self._grow(-len(data))
            link.send(self.channel, data)
        if self._eof:
            self._eof = False
            link.send_eof(self.channel)

    def on_accepted(self, info: Dict[str, Any]) -> None:
        self._open = True
        self._flush()

    def on_credit(self) -> None:
        self._flush()

    def on_data(self, data: Buffer) -> None:
        self._link.consumed(self.channel, len(data))

    def on_eof(self) -> None:
        if self.finished and not self._queue:
            self._end()

    def on_refused(self, code: int, text: str) -> None:
        self._end()

    def on_reset(self) -> None:
        self._end()

    def _end(self, reset: bool = False, unsent: int = 0) -> None:
        if not self._ended:
            self._ended = True
            if reset:
                self._link.reset(self.channel)
            self._grow(-self._size)
            self._queue.clear()
            self._gone(self, unsent)

    def _grow(self, size: int) -> None:
        self._size += size
        self._kept.size += size


def parse(protocol: int, packet: bytes) -> Optional[Segment]:
    """A TCP segment of an IP packet; None for others and for cut, broken or fragmented ones (RFC 791, RFC 8200)."""
    try:
        if protocol == _ETH_P_IP:
            start, end = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0] or len(packet)
            if packet[9] != 6 or struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
                return None
            source, target = packet[12:16], packet[16:20]
        elif protocol == _ETH_P_IPV6 and packet[6] == 6:
            start, end = 40, 40 + struct.unpack_from("!H", packet, 4)[0]
            if end == 40:  # a jumbogram of segmentation offload
                end = len(packet)
            source, target = packet[8:24], packet[24:40]
        else:
            return None
        source_port, target_port, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", packet, start)
    except (struct.error, IndexError):
        return None
    body = start + (offset >> 4) * 4
    # The target's kernel drops what contradicts itself, so it must not be told as data.
    if start < 20 or not start + 20 <= body <= end <= len(packet):
        return None
    return Segment(source, source_port, target, target_port, seq, ack, flags, packet[body:end])


def _bind_everywhere(sock: socket.socket) -> None:
    """bind(2) to all interfaces and protocols; Python's own bind wants the name of an interface."""
    address = struct.pack("=H", socket.AF_PACKET) + struct.pack("!H", _ETH_P_ALL) + bytes(16)  # struct sockaddr_ll
    if _libc.bind(sock.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), "bind")


def packet_filter(ports: List[int]) -> bytes:
    """Classic BPF for SOCK_DGRAM packets: TCP over IPv4 or IPv6 with one of `ports` at either end.

    What an agent passes on to the target is left out: the client's own packets have been seen.
    """
    checks: List[Tuple[int, int, int, int]] = []
    for port in ports:
        checks.append((0x15, 0, 1, port))
        checks.append((0x06, 0, 0, 0x40000))
    checks += [(0x35, 0, 2, FIRST_PORT), (0x35, 1, 0, FIRST_PORT + PORTS), (0x06, 0, 0, 0x40000)]  # see _redirected
    reject = (0x06, 0, 0, 0)
    # X holds the length of the IP header; source port at X, destination port at X+2
    ports_of = [(0x48, 0, 0, 0), *checks, (0x48, 0, 0, 2), *checks, reject]
    v4 = [
        (0x30, 0, 0, 9), (0x15, 1, 0, 6), reject,  # protocol TCP
        (0x28, 0, 0, 6), (0x45, 0, 1, 0x1FFF), reject,  # no later fragment
        (0xB1, 0, 0, 0), *ports_of,  # X = 4 * (header length)
    ]  # fmt: skip
    v6 = [(0x30, 0, 0, 6), (0x15, 1, 0, 6), reject, (0x01, 0, 0, 40), *ports_of]
    program = [
        (0x20, 0, 0, 0xFFFFF014), (0x15, 0, 1, MARK), reject,  # SKF_AD_OFF + SKF_AD_MARK
        (0x28, 0, 0, 0xFFFFF000),  # SKF_AD_OFF + SKF_AD_PROTOCOL
        (0x15, 0, len(v4), _ETH_P_IP), *v4, (0x15, 0, len(v6), _ETH_P_IPV6), *v6, reject,
    ]  # fmt: skip
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
