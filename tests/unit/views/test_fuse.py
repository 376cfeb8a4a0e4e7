"""The bytes of the FUSE protocol against the layouts of include/uapi/linux/fuse.h."""

from __future__ import annotations

import struct

import pytest

from sidestage.views import fuse

STAT = (9, 77, 0o100640, 2, 1000, 1001, 0x103, 123456, 4096, 248, 1_500_000_001, -1, 3_000_000_000)


def joined(parts: list[fuse.Buffer]) -> bytes:
    return b"".join(parts)


def request(op: int, node: int, body: bytes) -> bytes:
    return struct.pack("=IIQQIIIHH", 40 + len(body), op, 5, node, 0, 0, 1, 0, 0) + body


def test_requests() -> None:
    assert fuse.parse(request(fuse.Op.LOOKUP, 3, b"name\0")) == (fuse.Op.LOOKUP, 5, 3, b"name\0", 1)
    assert fuse.name(b"name\0rest") == b"name"
    assert fuse.reading(struct.pack("=QQIIQII", 1, 4096, 512, 0, 0, 0, 0)) == (4096, 512)
    assert fuse.interrupted(struct.pack("=Q", 99)) == 99


@pytest.mark.parametrize(
    ("data", "nodes"),
    [
        (request(fuse.Op.FORGET, 7, struct.pack("=Q", 1)), [7]),
        (request(fuse.Op.BATCH_FORGET, 0, struct.pack("=II4Q", 2, 0, 8, 1, 9, 3)), [8, 9]),
    ],
)
def test_forgotten(data: bytes, nodes: list[int]) -> None:
    assert fuse.forgotten(fuse.parse(data)) == nodes


def test_answers() -> None:
    assert joined(fuse.reply(6, b"ab", memoryview(b"c"))) == struct.pack("=IiQ", 19, 0, 6) + b"abc"
    assert joined(fuse.error(6, 2)) == struct.pack("=IiQ", 16, -2, 6)
    assert joined(fuse.store(3, 0, b"xy")) == struct.pack("=IiQQQII", 42, 4, 0, 3, 0, 2, 0) + b"xy"
    assert len(fuse.open_out(fuse.KEEP_CACHE)) == 16
    assert len(fuse.statfs(range(10))) == 80


def test_attributes() -> None:
    data = fuse.attr(STAT)
    assert len(data) == 88
    assert struct.unpack("=3QQqQIII7I", data) == (
        77, 123456, 248, 1, -1, 3, 500_000_001, 999_999_999, 0, 0o100640, 2, 1000, 1001, 0x103, 4096, 0,
    )  # fmt: skip
    assert fuse.entry(4, STAT, 0, 1) == struct.pack("=QQQQII", 4, 0, 0, 1, 0, 0) + data
    assert fuse.attr_out(STAT, 1) == struct.pack("=QII", 1, 0, 0) + data


def test_init() -> None:
    answer = fuse.init(struct.pack("=IIII", 7, 45, 131072, 0xFFFFFFFF))
    assert len(answer) == 64
    assert struct.unpack_from("=IIII", answer) == (7, 31, 131072, fuse.WANTED)
    with pytest.raises(OSError, match=r"7\.26"):
        fuse.init(struct.pack("=IIII", 7, 26, 0, 0))


def test_directory_entries() -> None:
    entries = [(b"a", 1, 8), (b"longer-name", 2, 4), (b"12345678", 3, 10)]
    whole = fuse.dirents(entries, 0, 4096)
    assert whole[:32] == struct.pack("=QQII", 1, 1, 1, 8) + b"a" + bytes(7)
    assert len(whole) == 32 + 40 + 32
    assert fuse.dirents(entries, 0, 32 + 39) == whole[:32]  # what doesn't fit comes next time
    assert fuse.dirents(entries[1:], 1, 4096) == whole[32:]
    assert fuse.dirents(entries, 0, 31) == fuse.dirents([], 3, 100) == b""
