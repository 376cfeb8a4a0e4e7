"""A tape is read as it was written, cut tapes as far as they go, and files are put together from what was read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.record import reel, tape

STAT = [0, 1, 0o100644, 1, 0, 0, 0, 10, 4096, 8, 0, 0, 0]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = str(tmp_path / "x")
    made = tape.Tape(file, {"target": "t"}, True)
    made.put("call", n=0, op="env", args={}, raw=b"\0\xff")
    made.put("up", c="0.1", data=b"")
    made.close()
    head, call, up = tape.read(file)
    assert (head["about"], head["masked"]) == ({"target": "t"}, True)
    assert (call["k"], call["raw"], up["data"]) == ("call", b"\0\xff", b"")


def test_a_tape_ends_where_it_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "x"
    made = tape.Tape(str(file), {}, False)
    for n in range(2000):
        made.put("up", c="0.1", data=bytes([n % 256]) * (n % 50))
    made.close()
    whole = list(tape.read(str(file)))
    file.write_bytes(file.read_bytes()[:-500])
    cut = list(tape.read(str(file)))
    assert 1 < len(cut) < len(whole)
    assert cut == whole[: len(cut)]


@pytest.mark.parametrize("data", [b"", b"plain text", b"\x1f\x8b garbage"])
def test_what_is_no_tape(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises((tape.TapeError, OSError)):
        list(tape.read(str(tmp_path / "x")))


@given(st.binary(min_size=10, max_size=10), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)), max_size=6))
def test_a_file_is_what_was_read_of_it(content: bytes, reads: list[tuple[int, int]]) -> None:
    file = reel.File({"stat": STAT})
    known: set[int] = set()
    for offset, size in reads:
        file.add(offset, content[offset : offset + size])
        known |= set(range(offset, min(10, offset + size)))
    for offset in range(12):
        got = file.content(offset, 3)
        if offset >= 10:
            assert got == b""
        elif offset not in known:
            assert got is None
        else:
            assert got
            assert content[offset:].startswith(got)


def test_channels_and_answers() -> None:
    entries: list[dict[str, Any]] = [
        {"sidestage": 1, "about": {}, "masked": False},
        {"k": "call", "n": 0, "op": "stat", "args": {"path": "/x", "follow": True}},
        {"k": "open", "c": "0.1", "by": "laptop", "kind": "tcp", "args": {"host": "h", "port": 1}},
        {"k": "answer", "n": 0, "result": {}, "errno": 2},
        {"k": "accept", "c": "0.1", "info": {"local": ["a", 1]}},
        {"k": "up", "c": "0.1", "data": b"q"},
        {"k": "down", "c": "0.1", "data": b"a"},
        {"k": "eof", "c": "0.1", "by": "agent"},
        {"k": "open", "c": "0.3", "by": "laptop", "kind": "unix", "args": {"path": "/s"}},
        {"k": "refuse", "c": "0.3", "errno": 111},
        {"k": "down", "c": "9.9", "data": b"of a channel that is not there"},
    ]
    found = reel.load(entries)
    assert found.answers[reel.question("stat", {"follow": True, "path": "/x"})] == [({}, b"", 2)]
    first, second = found.channels
    assert (first.where, first.steps) == ("h:1", [("up", b"q"), ("down", b"a"), ("eof", "agent")])
    assert (second.where, second.accepted, second.errno) == ("/s", None, 111)
