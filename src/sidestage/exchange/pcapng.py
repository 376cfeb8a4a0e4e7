"""TCP connections as a capture file for Wireshark (draft-ietf-opsawg-pcapng): packets made from their bytes.

What a mirror gives is each side's bytes in order; the packets are new: a handshake, segments that acknowledge what the other side
has sent, and the end. Addresses, ports, bytes and times are the real ones. Link type RAW: they begin with the IP header.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
LINKTYPE_RAW = 101
MAX_SEGMENT = 32 << 10
WINDOW = 65535
_SCALE = b"\x03\x03\x0e\x01"  # window scale 14 and padding (RFC 7323): no window is ever full, as none is known
_MICROSECONDS = 1_000_000

Address = tuple[str, int]


class Pcapng:
    def __init__(self, write: Callable[[bytes], None], program: str) -> None:
        self._write = write
        write(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _options((4, program.encode()))))
        write(_block(1, struct.pack("<HHI", LINKTYPE_RAW, 0, 0) + _options((2, b"target"))))

    def flow(self, client: Address, server: Address, at: float) -> Flow:
        """A connection that begins."""
        return Flow(self.packet, (client, server), at)

    def packet(self, data: bytes, at: float) -> None:
        stamp = int(at * _MICROSECONDS)
        head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
        self._write(_block(6, head + data + bytes(-len(data) % 4)))


@dataclass(slots=True)
class _Side:
    address: Address
    packed: bytes
    next: int = 0  # sequence number of its next byte
    ended: bool = field(default=False)


class Flow:
    """Side 0 is the client, 1 the server."""

    def __init__(self, packet: Callable[[bytes, float], None], addresses: tuple[Address, Address], at: float) -> None:
        self._packet = packet
        client, server = addresses
        self._sides = tuple(_Side(each, ipaddress.ip_address(each[0].partition("%")[0]).packed) for each in (client, server))
        self._over = False
        self._send(0, SYN, at, options=_SCALE)
        self._send(1, SYN | ACK, at, options=_SCALE)
        self._send(0, ACK, at)

    def data(self, side: int, data: bytes, at: float) -> None:
        for start in range(0, len(data), MAX_SEGMENT):
            self._send(side, PSH | ACK, at, data[start : start + MAX_SEGMENT])

    def end(self, side: int, at: float) -> None:
        """It closed its direction."""
        if not (self._over or self._sides[side].ended):
            self._sides[side].ended = True
            self._send(side, FIN | ACK, at)
            if self._sides[1 - side].ended:
                self._send(1 - side, ACK, at)
                self._over = True

    def abort(self, side: int, at: float) -> None:
        if not self._over:
            self._over = True
            self._send(side, RST | ACK, at)

    def _send(self, side: int, flags: int, at: float, data: bytes = b"", options: bytes = b"") -> None:
        ours, theirs = self._sides[side], self._sides[1 - side]
        seq, ack = ours.next & 0xFFFFFFFF, theirs.next & 0xFFFFFFFF if flags & ACK else 0
        size = 20 + len(options)
        head = struct.pack("!HHIIBBHHH", ours.address[1], theirs.address[1], seq, ack, size << 2, flags, WINDOW, 0, 0) + options
        pseudo = ours.packed + theirs.packed + struct.pack("!II", size + len(data), 6)
        head = head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:]
        ours.next += len(data) + bool(flags & (SYN | FIN))
        self._packet(_ip(ours.packed, theirs.packed, size + len(data)) + head + data, at)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ip(source: bytes, target: bytes, size: int) -> bytes:
    if len(source) != len(target):
        raise ValueError("a connection is of one version of IP")
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, size, 6, 64) + source + target
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, 6, 0) + source + target
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def _options(*found: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in found]
    return b"".join(parts) + bytes(4)


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)
