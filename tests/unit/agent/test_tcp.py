"""What a client sent is told whole and in order, or the connection is dropped: a table, and packets in any order."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as s

from sidestage.agent import tcp
from sidestage.agent.tcp import (
    ACK,
    FIN,
    RST,
    SYN,
    Aborted,
    Answer,
    Answered,
    Bytes,
    Dropped,
    Ended,
    Event,
    Reassembler,
    Segment,
    Started,
)  # fmt: skip

CLIENT, SERVER = b"\x0a\0\0\1", b"\x0a\0\0\2"
KEY = (CLIENT, 5000, SERVER, 80)
WRAP = 1 << 32


def client(seq: int, data: bytes = b"", flags: int = ACK, port: int = 5000) -> Segment:
    return Segment(CLIENT, port, SERVER, 80, seq % WRAP, 0, flags, data)


def server(ack: int, flags: int = ACK, data: bytes = b"") -> Segment:
    return Segment(SERVER, 80, CLIENT, 5000, 99, ack % WRAP, flags, data)


def reassembler() -> Reassembler:
    made = Reassembler()
    made.ports[80] = 1
    return made


def told(*segments: Segment, made: Reassembler | None = None) -> list[Event]:
    made = made or reassembler()
    return [event for segment in segments for event in made.feed(segment)]


START = client(100, flags=SYN)
CASES: dict[str, tuple[list[Segment], list[Event]]] = {
    "in order": ([START, client(101, b"ab"), client(103, b"c")], [Bytes(KEY, b"ab"), Bytes(KEY, b"c")]),
    "out of order": ([START, client(103, b"c"), client(101, b"ab")], [Bytes(KEY, b"abc")]),
    "twice": ([START, client(101, b"ab"), client(101, b"ab"), client(103, b"c")], [Bytes(KEY, b"ab"), Bytes(KEY, b"c")]),
    "partly again": ([START, client(101, b"ab"), client(102, b"bcd")], [Bytes(KEY, b"ab"), Bytes(KEY, b"cd")]),
    "kept, then overlapped": ([START, client(103, b"cd"), client(101, b"abc")], [Bytes(KEY, b"abcd")]),
    "kept, then covered": ([START, client(103, b"c"), client(101, b"abcde")], [Bytes(KEY, b"abcde")]),
    "kept, then longer": ([START, client(103, b"c"), client(103, b"cd"), client(101, b"ab")], [Bytes(KEY, b"abcd")]),
    "FIN with data": ([START, client(101, b"ab", FIN | ACK)], [Bytes(KEY, b"ab"), Ended(KEY)]),
    "FIN before its data": ([START, client(103, b"", FIN | ACK), client(101, b"ab")], [Bytes(KEY, b"ab"), Ended(KEY)]),
    "FIN twice": ([START, client(101, flags=FIN | ACK), client(101, flags=FIN | ACK)], [Ended(KEY)]),
    "reset by the client": ([START, client(101, flags=RST), client(101, b"x")], [Aborted(KEY)]),
    "reset by the server": ([START, server(101, RST | ACK), client(101, b"x")], [Aborted(KEY)]),
    "refused": ([START, server(101, RST | ACK)], [Aborted(KEY)]),
    "SYN again": ([START, START, client(101, b"a")], [Bytes(KEY, b"a")]),
    "SYN again after data": ([START, client(101, b"a"), START, client(102, b"b")], [Bytes(KEY, b"a"), Bytes(KEY, b"b")]),
    "data in the SYN, seen twice": (
        [client(100, b"ab", SYN), client(100, b"ab", SYN), client(103, b"c")], [Bytes(KEY, b"ab"), Bytes(KEY, b"c")]
    ),
    "acknowledged and never seen": ([START, client(103, b"c"), server(104)], [Dropped(KEY)]),
    "lost at the end": ([START, client(101, b"ab"), server(106)], [Bytes(KEY, b"ab"), Dropped(KEY)]),
    "acknowledged as it came": ([START, server(101, SYN | ACK), client(101, b"ab"), server(103)], [Bytes(KEY, b"ab")]),
    "the FIN's own number acknowledged": ([START, client(101, b"", FIN), server(102), server(102, FIN | ACK)], [Ended(KEY)]),
    "lost before a FIN": ([START, client(103, b"", FIN), server(104)], [Dropped(KEY)]),
    "half-closed by the server": ([START, server(101, FIN | ACK), client(101, b"ab", FIN)], [Bytes(KEY, b"ab"), Ended(KEY)]),
    "the port used anew": (
        [START, client(101, b"a"), client(9000, flags=SYN), client(9001, b"b")],
        [Bytes(KEY, b"a"), Aborted(KEY), Started(KEY), Bytes(KEY, b"b")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("segments", "expected"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("base", [0, WRAP - 100, WRAP - 101, WRAP - 102, WRAP - 103, WRAP // 2 - 101])
def test_cases(segments: list[Segment], expected: list[Event], base: int) -> None:
    """With sequence numbers that wrap around at each place."""
    moved = [
        part._replace(seq=(part.seq + base) % WRAP) if part.source == CLIENT else part._replace(ack=(part.ack + base) % WRAP)
        for part in segments
    ]
    assert told(*moved) == [Started(KEY), *expected]


def test_what_is_not_followed() -> None:
    assert told(client(5, b"the middle of a conversation"), server(9, data=b"x"), server(9, SYN | ACK)) == []
    assert told(START._replace(target_port=81), START._replace(flags=SYN | ACK)) == []
    made = reassembler()
    told(START, client(101, flags=FIN), server(102, FIN | ACK), made=made)
    assert made.keys() == [] and told(client(102, b"late"), made=made) == []


def test_two_clients() -> None:
    made = reassembler()
    told(START, client(7, flags=SYN, port=5001), made=made)
    other = (CLIENT, 5001, SERVER, 80)
    assert told(client(8, b"b", port=5001), client(101, b"a"), made=made) == [Bytes(other, b"b"), Bytes(KEY, b"a")]


def test_no_more_than_the_limit_is_followed() -> None:
    made = reassembler()
    for number in range(tcp.MAX_CONNECTIONS):
        assert len(told(client(0, flags=SYN, port=number), made=made)) == 1
    extra = (CLIENT, 60000, SERVER, 80)
    assert told(client(0, flags=SYN, port=60000), made=made) == [Dropped(extra)]
    made.forget((CLIENT, 7, SERVER, 80))
    assert told(client(0, flags=SYN, port=60000), made=made) == [Started(extra)]


@pytest.mark.parametrize("size", [1, 1000])
def test_memory_out_of_order_is_bounded_however_small_the_pieces(size: int) -> None:
    """A client can send pieces of a byte each: what it costs to keep one counts too."""
    made = reassembler()
    told(START, made=made)
    kept = 0
    while told(client(102 + 2 * size * kept, bytes(size)), made=made) == []:
        kept += 1
    assert made.keys() == [] and kept * (size + 100) <= tcp.MAX_PENDING + 2000
    assert told(client(101, b"x"), made=made) == []


def test_memory_of_all_together_is_bounded() -> None:
    made, dropped = reassembler(), 0
    for port in range(40):
        told(client(0, flags=SYN, port=port), made=made)
        for at in range(15):
            events = told(client(70_000 * (at + 1), bytes(60_000), port=port), made=made)
            dropped += Dropped((CLIENT, port, SERVER, 80)) in events
    assert dropped >= 40 - tcp.MAX_TOTAL // 900_000 and len(made.keys()) == 40 - dropped
    for port in range(40):
        made.forget((CLIENT, port, SERVER, 80))
    assert len(told(client(0, flags=SYN), *(client(70_000 * n, bytes(60_000)) for n in range(1, 17)), made=made)) == 1


def test_what_fills_the_hole_is_told_before_limits_are_looked_at() -> None:
    made = reassembler()
    held = [client(101 + 60_000 * n, bytes(60_000)) for n in range(1, 18)]
    assert told(START, *held, made=made) == [Started(KEY)]
    (event,) = told(client(101, bytes(60_000)), client(0, flags=0, port=1), made=made)
    assert isinstance(event, Bytes) and len(event.data) == 18 * 60_000
    (event,) = told(client(101 + 18 * 60_000, bytes(65_000)), made=made)
    assert isinstance(event, Bytes)


@settings(deadline=None, max_examples=300)
@given(
    data=s.binary(min_size=1, max_size=400),
    isn=s.one_of(s.integers(0, WRAP - 1), s.integers(WRAP - 400, WRAP - 1)),
    pieces=s.lists(s.tuples(s.integers(0, 400), s.integers(1, 60)), max_size=40),
    lost=s.sets(s.integers(0, 9), max_size=2),
    order=s.randoms(use_true_random=False),
    fin=s.booleans(),
)
def test_any_order_overlap_and_repetition(
    data: bytes, isn: int, pieces: list[tuple[int, int]], lost: set[int], order: random.Random, fin: bool
) -> None:
    """What comes is a prefix of what was sent, at any time; all of it if no byte was lost; else the server's word tells."""
    cut = sorted({0, len(data), *(order.randrange(len(data)) for _ in range(9))})
    parts = [(a, data[a:b]) for n, (a, b) in enumerate(pairwise(cut)) if n not in lost]
    parts += [(at % len(data), data[at % len(data) : at % len(data) + size]) for at, size in pieces]
    segments = [client(isn + 1 + at, part) for at, part in parts]
    segments += [client(isn + 1 + len(data), flags=FIN | ACK)] * fin
    order.shuffle(segments)
    made, got, ended = reassembler(), b"", False
    assert made.feed(client(isn, flags=SYN)) == [Started(KEY)]
    for segment in segments:
        for event in made.feed(segment):
            assert not ended
            if isinstance(event, Bytes):
                got += event.data
                assert data.startswith(got)
            else:
                assert event == Ended(KEY) and got == data
                ended = True
    covered = {at + n for at, part in parts for n in range(len(part))}
    whole = next((n for n in range(len(data)) if n not in covered), len(data))
    assert got == data[:whole] and ended == (fin and whole == len(data))
    last = made.feed(server(isn + 1 + len(data) + fin))
    assert last == ([] if whole == len(data) else [Dropped(KEY)])
    made.forget(KEY)
    assert made._held == 0


# -- the server's answers, where they are wanted --


def answer(seq: int, data: bytes = b"", flags: int = ACK, ack: int = 101) -> Segment:
    return Segment(SERVER, 80, CLIENT, 5000, seq % WRAP, ack % WRAP, flags, data)


def heard(seq: int) -> Segment:
    """The client has all that the server sent before `seq`."""
    return Segment(CLIENT, 5000, SERVER, 80, 101, seq % WRAP, ACK, b"")


OPEN = [START, answer(200, flags=SYN | ACK)]
ANSWERS: dict[str, tuple[list[Segment], list[Event]]] = {
    "in order": ([answer(201, b"ab"), answer(203, b"c")], [Answer(KEY, b"ab"), Answer(KEY, b"c")]),
    "out of order": ([answer(203, b"c"), answer(201, b"ab")], [Answer(KEY, b"abc")]),
    "its end": ([answer(201, b"ab", FIN | ACK)], [Answer(KEY, b"ab"), Answered(KEY, True)]),
    "the end of both": (
        [answer(201, b"a", FIN | ACK), client(101, flags=FIN | ACK), client(102, b"x")],
        [Answer(KEY, b"a"), Answered(KEY, True), Ended(KEY)],
    ),
    "the client ends first": (
        [client(101, b"q", FIN | ACK), answer(201, b"a", ack=103), answer(202, b"b", FIN | ACK, ack=103)],
        [Bytes(KEY, b"q"), Ended(KEY), Answer(KEY, b"a"), Answer(KEY, b"b"), Answered(KEY, True)],
    ),
    "lost, and the requests go on": (
        [answer(203, b"c"), heard(204), client(101, b"q"), answer(204, b"d")], [Answered(KEY, False), Bytes(KEY, b"q")]
    ),
    "a reset": ([answer(201, b"a"), answer(202, flags=RST)], [Answer(KEY, b"a"), Aborted(KEY)]),
}


def wanting() -> Reassembler:
    made = reassembler()
    made.answers[80] = 1
    return made


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    segments, events = ANSWERS[name]
    assert told(*OPEN, *segments, made=wanting()) == [Started(KEY), *events]


def test_answers_are_told_only_where_they_are_wanted() -> None:
    assert told(*OPEN, answer(201, b"ab")) == [Started(KEY)]


def test_answers_whose_start_was_missed_are_not_told() -> None:
    assert told(START, answer(201, b"ab"), client(101, b"q"), made=wanting()) == [
        Started(KEY), Answered(KEY, False), Bytes(KEY, b"q"),
    ]  # fmt: skip


@given(s.binary(min_size=1, max_size=200), s.integers(0, WRAP - 1), s.randoms(use_true_random=False))
@settings(deadline=None)
def test_answers_in_any_order_and_twice(data: bytes, start: int, chance: random.Random) -> None:
    cuts = sorted(chance.sample(range(len(data) + 1), min(8, len(data) + 1)))
    parts = [(a, data[a:b]) for a, b in pairwise([0, *cuts, len(data)]) if a < b] * 2
    chance.shuffle(parts)
    made = wanting()
    events = told(START, answer(start, flags=SYN | ACK), *(answer(start + 1 + at, part) for at, part in parts), made=made)
    assert b"".join(event.data for event in events if isinstance(event, Answer)) == data


def test_answers_out_of_order_are_bounded_and_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "MAX_PENDING", 5000)
    made = wanting()
    events = told(*OPEN, *(answer(203 + 2 * n, b"x") for n in range(100)), client(101, b"q"), made=made)
    assert events == [Started(KEY), Answered(KEY, False), Bytes(KEY, b"q")]
    made.forget(KEY)
    assert made._held == 0
