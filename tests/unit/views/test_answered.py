"""Which answers are kept, for how long, and for which questions."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.views.answered import MAX_ASKED, MAX_KEPT, MAX_TTL, Answered, Questions
from sidestage.views.names import answers
from sidestage.views.resolve import AAAA, A, query

SERVER = "10.96.0.10"
CNAME, SOA, OPT, TSIG, ANY = 5, 6, 41, 250, 255
NXDOMAIN, SERVFAIL = 3, 2


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(kind: int, ttl: int, data: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    return name + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def a(address: str, ttl: int = 30) -> bytes:
    return record(A, ttl, socket.inet_aton(address))


def soa(ttl: int, minimum: int) -> bytes:
    return record(SOA, ttl, b"\1n\0\1r\0" + struct.pack("!5I", 1, 2, 3, 4, minimum), b"\0")


EDNS = b"\0" + struct.pack("!HHIH", OPT, 1232, 0, 0)


def reply(asked: bytes, found: list[bytes], authority: list[bytes] = [], more: list[bytes] = [], flags: int = 0x8180) -> bytes:  # noqa: B006
    body = b"".join([*found, *authority, *more])
    return asked[:2] + struct.pack("!5H", flags, 1, len(found), len(authority), len(more)) + asked[12:] + body


ASKED = query("db.shop.internal", A, 7)


def kept_for(answer: bytes, asked: bytes = ASKED) -> int:
    """Seconds; 0: it isn't kept."""
    clock = Clock()
    known = Answered(clock)
    known.put(SERVER, asked, answer)
    for second in range(MAX_TTL + 2):
        clock.now = 1000.0 + second
        if known.get(SERVER, asked) is None:
            return second
    return -1


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(ASKED, [a("10.0.0.1")]), 30),
        (reply(ASKED, [a("10.0.0.1", 5), a("10.0.0.2", 60)]), 5),
        (reply(ASKED, [record(CNAME, 3, b"\1x\0"), a("10.0.0.1")]), 3),
        (reply(ASKED, [a("10.0.0.1")], [], [EDNS]), 30),  # an OPT's TTL is none
        (reply(ASKED, [a("10.0.0.1")], [soa(9, 1)]), 9),
        (reply(ASKED, [a("10.0.0.1", 86400)]), MAX_TTL),
        (reply(ASKED, [a("10.0.0.1", 0)]), 0),
        (reply(ASKED, [a("10.0.0.1", 1 << 31)]), 0),
        (reply(ASKED, [], [soa(30, 5)], flags=0x8180 | NXDOMAIN), 5),
        (reply(ASKED, [], [soa(4, 30)], [EDNS]), 4),  # there is no record of this type
        (reply(ASKED, [], [], flags=0x8180 | NXDOMAIN), 0),
        (reply(ASKED, [record(CNAME, 9, b"\1x\0")], [soa(30, 5)], flags=0x8180 | NXDOMAIN), 5),
        (reply(ASKED, [], [soa(30, 5)], flags=0x8180 | SERVFAIL), 0),
        (reply(ASKED, [a("10.0.0.1")], flags=0x8380), 0),  # cut
        (reply(ASKED, [a("10.0.0.1")], flags=0x0180), 0),  # no answer at all
        (reply(ASKED, [a("10.0.0.1")], flags=0xA980), 0),  # to another kind of question
        (reply(ASKED, [a("10.0.0.1")], [], [record(TSIG, 30, b"x")]), 0),
        (reply(query("db.shop.other", A, 7), [a("10.0.0.1")]), 0),
        (reply(ASKED, [a("10.0.0.1")])[:-1], 0),
        (b"", 0),
    ],
)  # fmt: skip
def test_how_long(answer: bytes, seconds: int) -> None:
    assert kept_for(answer) == seconds


def test_any_is_asked_each_time() -> None:
    asked = ASKED[:-4] + struct.pack("!2H", ANY, 1)
    assert kept_for(reply(asked, [a("10.0.0.1")]), asked) == 0


def test_the_same_question() -> None:
    known = Answered(Clock())
    known.put(SERVER, ASKED, reply(ASKED, [a("10.0.0.1")]))
    again = query("db.shop.internal", A, 4711)
    answer = known.get(SERVER, again)
    assert answer and answer[:2] == again[:2] and list(answers(answer)) == [("db.shop.internal", "10.0.0.1")]
    assert known.get("10.96.0.11", ASKED) is None
    assert known.get(SERVER, query("db.shop.internal", AAAA, 7)) is None
    assert known.get(SERVER, query("DB.shop.internal", A, 7)) is None  # some ask in letters by chance, and want them back
    assert known.get(SERVER, again[:2] + b"\0\0" + again[4:]) is None  # without recursion
    assert known.get(SERVER, again[:10] + b"\0\1" + again[12:] + EDNS) is None


def test_age_is_taken_off() -> None:
    clock = Clock()
    known = Answered(clock)
    known.put(SERVER, ASKED, reply(ASKED, [a("10.0.0.1", 30), a("10.0.0.2", 60)], [], [EDNS]))
    clock.now += 12.5
    assert known.get(SERVER, ASKED) == reply(ASKED, [a("10.0.0.2", 48), a("10.0.0.1", 18)], [], [EDNS])


def test_addresses_take_turns() -> None:
    known = Answered(Clock())
    known.put(SERVER, ASKED, reply(ASKED, [a(f"10.0.0.{n}") for n in range(3)]))
    seen = [[address for _, address in answers(known.get(SERVER, ASKED) or b"")] for _ in range(3)]
    assert sorted(each[0] for each in seen) == ["10.0.0.0", "10.0.0.1", "10.0.0.2"] and all(len(set(each)) == 3 for each in seen)


def test_an_alias_stays_in_front() -> None:
    known = Answered(Clock())
    answer = reply(ASKED, [record(CNAME, 30, b"\1x\0"), record(A, 30, b"abcd", b"\1x\0"), record(A, 30, b"abce", b"\1x\0")])
    known.put(SERVER, ASKED, answer)
    assert known.get(SERVER, ASKED) == answer


def test_there_is_an_end() -> None:
    known, questions = Answered(Clock()), Questions()
    for n in range(MAX_KEPT + 1):
        asked = query(f"n{n}", A, n)
        known.put(SERVER, asked, reply(asked, [a("10.0.0.1")]))
    assert known.get(SERVER, query("n0", A, 1)) is None and known.get(SERVER, query("n1", A, 1))
    for n in range(MAX_ASKED + 1):
        questions.asked(query("n", A, n))
    assert not questions.answered(query("n", A, 0)) and questions.answered(query("n", A, 1))
    assert not questions.answered(query("n", A, 1))


@given(st.binary(max_size=120), st.binary(max_size=40))
def test_anything_is_kept_or_not(head: bytes, tail: bytes) -> None:
    known = Answered(Clock())
    for asked, answer in ((ASKED, reply(ASKED, [a("10.0.0.1")])[:-20] + head), (head, head + tail), (ASKED, ASKED[:12] + head)):
        known.put(SERVER, asked, answer)
        known.get(SERVER, asked)
