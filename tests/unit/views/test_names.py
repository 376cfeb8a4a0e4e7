"""Learning names from DNS answers that pass."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from sidestage.views.names import MAX_NAMES, Names, answers


def response(*records: bytes) -> bytes:
    question = b"\2db\7staging\0" + struct.pack("!HH", 1, 1)
    return struct.pack("!6H", 7, 0x8180, 1, len(records), 0, 0) + question + b"".join(records)


def record(kind: int, data: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


def test_a_and_aaaa_behind_a_cname_belong_to_the_name_asked() -> None:
    cname = record(5, b"\1x\xc0\x0f")
    message = response(cname, record(1, bytes([10, 0, 0, 1]), b"\1x\xc0\x0f"), record(28, bytes(15) + b"\1"))
    assert list(answers(message)) == [("db.staging", "10.0.0.1"), ("db.staging", "::1")]


def test_a_query_teaches_nothing() -> None:
    assert list(answers(b"\0\7\1\0" + response()[4:])) == []


def test_pointer_loops_and_cuts_end() -> None:
    looped = response(record(1, bytes(4), b"\xc0\x1c"))
    whole = response(record(1, bytes(4)))
    assert list(answers(looped)) == []
    for cut in range(len(whole)):
        assert list(answers(whole[:cut])) == []


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    list(answers(data))


def test_memory_is_bounded() -> None:
    names = Names()
    for n in range(MAX_NAMES + 10):
        names.learn("x", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert names.of("10.0.0.0") == frozenset()
    assert names.of("10.0.16.9") == {"x"}
