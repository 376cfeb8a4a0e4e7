"""The mirror's kernel filter, interpreted, and its parser: the filter never hides what the parser wants."""

from __future__ import annotations

import random
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as s
from tests.testkit.bpf import check, decode, run

from sidestage.agent.mirror import MAX_PORTS, packet_filter, parse
from sidestage.agent.target import MARK
from sidestage.agent.tcp import ACK, Segment

IP4, IP6, VLAN, ARP = 0x0800, 0x86DD, 0x8100, 0x0806
TCP, HOP_BY_HOP, FRAGMENT = 6, 0, 44
PORTS = [80, 8080, 65535]
FILTER = decode(packet_filter(PORTS))
SKF_AD_PROTOCOL = 0xFFFFF000
SKF_AD_MARK = 0xFFFFF014
A4, B4 = socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")
A6, B6 = socket.inet_pton(socket.AF_INET6, "fd00::1"), socket.inet_pton(socket.AF_INET6, "fd00::2")


def tcp(source: int, target: int, data: bytes = b"data", options: int = 0, offset: int | None = None) -> bytes:
    words = 5 + options if offset is None else offset
    return struct.pack("!HHIIBBHHH", source, target, 7, 9, words << 4, ACK, 1000, 0, 0) + bytes(4 * options) + data


def v4(body: bytes, kind: int = TCP, options: int = 0, fragment: int = 0, length: int | None = None) -> bytes:
    size = 20 + 4 * options + len(body) if length is None else length
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + options, 0, size, 1, fragment, 64, kind, 0, A4, B4)
    return head + bytes(4 * options) + body


def v6(body: bytes, kind: int = TCP, length: int | None = None) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(body) if length is None else length, kind, 64, A6, B6) + body


def passes(protocol: int, packet: bytes, mark: int = 0) -> bool:
    def load(offset: int, size: int) -> int:
        if offset == SKF_AD_MARK:
            return mark
        if offset == SKF_AD_PROTOCOL:
            return protocol
        if offset + size > len(packet):
            raise IndexError
        return int.from_bytes(packet[offset : offset + size], "big")

    return run(FILTER, load) > 0


def segment(six: bool, source: int, target: int, data: bytes = b"data") -> Segment:
    return Segment(A6 if six else A4, source, B6 if six else B4, target, 7, 9, ACK, data)


TAKEN: dict[str, tuple[int, bytes, Segment]] = {
    "to a port": (IP4, v4(tcp(5000, 80)), segment(False, 5000, 80)),
    "from a port": (IP4, v4(tcp(8080, 5000)), segment(False, 8080, 5000)),
    "the last port": (IP4, v4(tcp(5000, 65535)), segment(False, 5000, 65535)),
    "options of IP": (IP4, v4(tcp(5000, 80), options=10), segment(False, 5000, 80)),
    "options of TCP": (IP4, v4(tcp(5000, 80, options=10)), segment(False, 5000, 80)),
    "padded by Ethernet": (IP4, v4(tcp(5000, 80, b"")) + bytes(6), segment(False, 5000, 80, b"")),
    "do not fragment": (IP4, v4(tcp(5000, 80), fragment=0x4000), segment(False, 5000, 80)),
    "length 0 of segmentation offload": (IP4, v4(tcp(5000, 80), length=0), segment(False, 5000, 80)),
    "IPv6": (IP6, v6(tcp(5000, 80)), segment(True, 5000, 80)),
    "IPv6 from a port": (IP6, v6(tcp(80, 5000)), segment(True, 80, 5000)),
    "IPv6 padded": (IP6, v6(tcp(5000, 80)) + bytes(9), segment(True, 5000, 80)),
    "IPv6 jumbogram": (IP6, v6(tcp(5000, 80), length=0), segment(True, 5000, 80)),
}
LEFT = {
    "another port": (IP4, v4(tcp(81, 5000))), "its bytes swapped": (IP4, v4(tcp(0x5000, 5000))),
    "UDP": (IP4, v4(tcp(5000, 80), 17)),
    "a later fragment": (IP4, v4(tcp(5000, 80), fragment=1)), "the last fragment": (IP4, v4(tcp(5000, 80), fragment=0x1FFF)),
    "the port's number in the data": (IP4, v4(tcp(5000, 5001, struct.pack("!HH", 80, 80)))), "cut": (IP4, v4(tcp(5000, 80))[:21]),
    "ARP": (ARP, v4(tcp(5000, 80))), "a tag that the card left in": (VLAN, struct.pack("!HH", 5, IP4) + v4(tcp(5000, 80))),
    "IPv6 another port": (IP6, v6(tcp(81, 5000))), "IPv6 UDP": (IP6, v6(tcp(5000, 80), 17)),
    "IPv6 fragment": (IP6, v6(bytes([TCP, 0, 0, 0, 0, 0, 0, 1]) + tcp(5000, 80), FRAGMENT)),
    "IPv6 with an extension header": (IP6, v6(bytes([TCP, 0, 1, 4, 0, 0, 0, 0]) + tcp(5000, 80), HOP_BY_HOP)),
    "nothing": (IP4, b""), "nothing of IPv6": (IP6, b""),
}  # fmt: skip
BROKEN = {  # TCP that the target's kernel drops: the filter lets it through, the parser doesn't
    "a first fragment": (IP4, v4(tcp(5000, 80), fragment=0x2000)),
    "a TCP header shorter than itself": (IP4, v4(tcp(5000, 80, offset=4))),
    "a TCP header of no length": (IP4, v4(tcp(5000, 80, offset=0))),
    "a TCP header beyond its packet": (IP4, v4(tcp(5000, 80, offset=15))),
    "an IP header shorter than itself": (IP4, b"\x41" + v4(tcp(5000, 80))[1:]),
    "longer than itself": (IP4, v4(tcp(5000, 80), length=1000)),
    "IPv6 longer than itself": (IP6, v6(tcp(5000, 80), length=1000)),
    "cut in its header": (IP4, v4(tcp(5000, 80))[:30]),
}


@pytest.mark.parametrize(("protocol", "packet", "expected"), TAKEN.values(), ids=TAKEN.keys())
def test_taken(protocol: int, packet: bytes, expected: Segment) -> None:
    assert passes(protocol, packet)
    assert parse(protocol, packet) == expected


@pytest.mark.parametrize(("protocol", "packet"), LEFT.values(), ids=LEFT.keys())
def test_left(protocol: int, packet: bytes) -> None:
    assert not passes(protocol, packet)
    got = parse(protocol, packet)
    assert got is None or not {got.source_port, got.target_port} & {*PORTS}


@pytest.mark.parametrize(("protocol", "packet"), BROKEN.values(), ids=BROKEN.keys())
def test_broken(protocol: int, packet: bytes) -> None:
    assert parse(protocol, packet) is None


@pytest.mark.parametrize("count", [1, 2, MAX_PORTS])
def test_the_program_is_sound(count: int) -> None:
    ports = random.Random(count).sample(range(65536), count)
    code = decode(packet_filter(ports))
    check(code)
    for six in (False, True):
        for port in (*ports, 0, 1):
            for source, target in ((port, 2), (2, port)):
                packet = (v6 if six else v4)(tcp(source, target))

                def load(offset: int, size: int, packet: bytes = packet, protocol: int = IP6 if six else IP4) -> int:
                    if offset == SKF_AD_MARK:
                        return 0
                    return protocol if offset == SKF_AD_PROTOCOL else int.from_bytes(packet[offset : offset + size], "big")

                assert (run(code, load) > 0) == bool({port, 2} & {*ports})


def test_what_the_agent_passes_on_is_not_seen_twice() -> None:
    assert passes(IP4, v4(tcp(5000, 80)), MARK + 1)
    assert not passes(IP4, v4(tcp(5000, 80)), MARK)


def test_the_kernel_takes_the_longest_program() -> None:
    """The kernel's own checker, on a socket of any kind."""
    import ctypes

    program = packet_filter(list(range(MAX_PORTS)))
    code = ctypes.create_string_buffer(program, len(program))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))


packets = s.one_of(
    s.binary(max_size=80),
    s.builds(
        lambda packet, at, byte, size: bytes(byte if n == at else was for n, was in enumerate(packet))[:size],
        s.sampled_from([packet for _, packet, _ in TAKEN.values()]), s.integers(0, 63), s.integers(0, 255), s.integers(0, 130),
    ),
)  # fmt: skip


@given(s.sampled_from([IP4, IP6, VLAN]), packets)
@example(IP4, b"\x45")
def test_whatever_comes_is_parsed_or_not(protocol: int, packet: bytes) -> None:
    got = parse(protocol, packet)
    if got is not None and {got.source_port, got.target_port} & {*PORTS}:
        assert passes(protocol, packet)  # nothing that the parser would take is hidden by the filter
        assert len(got.data) < len(packet)
