"""A capture made of a connection's bytes, read by a parser that knows nothing of the writer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sidestage.agent.mirror import parse
from sidestage.agent.tcp import Answer, Answered, Bytes, Ended, Reassembler
from sidestage.exchange.pcapng import Pcapng, checksum

CLIENT, SERVER = ("10.0.0.5", 40000), ("10.0.0.7", 8080)
CLIENT6, SERVER6 = ("fd00::5", 40000), ("fd00::7", 8080)


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4)[0] == size
        yield kind, data[8 : size - 4]
        data = data[size:]


def packets(data: bytes) -> list[tuple[float, bytes]]:
    found = []
    for kind, body in list(blocks(data))[2:]:
        assert kind == 6
        interface, high, low, kept, size = struct.unpack_from("<5I", body)
        assert (interface, kept) == (0, size)
        found.append((((high << 32) + low) / 1_000_000, body[20 : 20 + size]))
    return found


@pytest.mark.parametrize("client, server", [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["v4", "v6"])
def test_what_goes_in_comes_out_of_a_reassembly(client: tuple[str, int], server: tuple[str, int]) -> None:
    out = bytearray()
    flow = Pcapng(out.extend, "test").flow(client, server, 1_700_000_000.25)
    long = bytes(range(256)) * 512  # of several segments
    flow.data(0, b"hello", 1_700_000_000.5)
    flow.data(1, long, 1_700_000_001.0)
    flow.data(0, b"more", 1_700_000_002.0)
    flow.end(0, 1_700_000_003.0)
    flow.data(1, b"last", 1_700_000_003.5)
    flow.end(1, 1_700_000_004.0)
    flow.abort(0, 1_700_000_005.0)  # too late: nothing
    reassembler = Reassembler()
    reassembler.ports[server[1]] = reassembler.answers[server[1]] = 1
    told: list[Any] = []
    times = []
    for at, packet in packets(bytes(out)):
        times.append(at)
        segment = parse(0x86DD if packet[0] >> 4 == 6 else 0x0800, packet)
        assert segment is not None
        told += reassembler.feed(segment)
    assert b"".join(event.data for event in told if isinstance(event, Bytes)) == b"hellomore"
    assert b"".join(event.data for event in told if isinstance(event, Answer)) == long + b"last"
    assert [type(event) for event in told if isinstance(event, (Ended, Answered))] == [Ended, Answered]
    assert (times[0], times[-1], times) == (1_700_000_000.25, 1_700_000_004.0, sorted(times))


@pytest.mark.parametrize("client, server", [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["v4", "v6"])
def test_checksums_add_up(client: tuple[str, int], server: tuple[str, int]) -> None:
    out = bytearray()
    Pcapng(out.extend, "test").flow(client, server, 1.0).data(0, b"odd", 1.0)
    for _, packet in packets(bytes(out)):
        if packet[0] >> 4 == 4:
            assert checksum(packet[:20]) == 0
            addresses, tcp = packet[12:20], packet[20:]
        else:
            addresses, tcp = packet[8:40], packet[40:]
        assert checksum(addresses + struct.pack("!II", len(tcp), 6) + tcp) == 0


def test_a_reset_ends_it() -> None:
    out = bytearray()
    flow = Pcapng(out.extend, "test").flow(CLIENT, SERVER, 1.0)
    flow.abort(1, 2.0)
    flow.abort(0, 2.0)
    flow.end(0, 2.0)
    flags = [packet[33] for _, packet in packets(bytes(out))]
    assert flags == [0x02, 0x12, 0x10, 0x14]


def test_the_head_of_the_file() -> None:
    out = bytearray()
    Pcapng(out.extend, "sidestage 1")
    (section, head), (interface, described) = blocks(bytes(out))
    assert (section, interface) == (0x0A0D0D0A, 1)
    assert struct.unpack_from("<IHH", head) == (0x1A2B3C4D, 1, 0)
    assert struct.unpack_from("<H", described)[0] == 101
    assert b"sidestage 1" in head
