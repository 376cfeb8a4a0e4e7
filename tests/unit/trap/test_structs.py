"""struct stat, statx, statfs: field by field at the offsets that the kernel's headers give."""

from __future__ import annotations

import os
import struct

import pytest

from sidestage.trap import structs
from sidestage.trap.paths import signed

STAT = (
    os.makedev(8, 3), 1 << 40, 0o100640, 5, 1000, 1001, os.makedev(4, 64), 1 << 33, 4096, 1 << 24,
    1_500_000_001, -1, 3_000_000_000,
)  # fmt: skip
DEV, INO, MODE, NLINK, UID, GID, RDEV, SIZE, BLKSIZE, BLOCKS = STAT[:10]

X86_64 = [
    (0, "Q", DEV), (8, "Q", INO), (16, "Q", NLINK), (24, "I", MODE), (28, "I", UID), (32, "I", GID), (40, "Q", RDEV),
    (48, "q", SIZE), (56, "q", BLKSIZE), (64, "q", BLOCKS), (72, "q", 1), (80, "q", 500_000_001), (88, "q", -1),
    (96, "q", 999_999_999), (104, "q", 3), (112, "q", 0),
]  # fmt: skip
AARCH64 = [
    (0, "Q", DEV), (8, "Q", INO), (16, "I", MODE), (20, "I", NLINK), (24, "I", UID), (28, "I", GID), (32, "Q", RDEV),
    (48, "q", SIZE), (56, "i", BLKSIZE), (64, "q", BLOCKS), (72, "q", 1), (80, "Q", 500_000_001), (88, "q", -1),
    (96, "Q", 999_999_999), (104, "q", 3), (112, "Q", 0),
]  # fmt: skip
STATX = [
    (0, "I", 0x7FF), (4, "I", BLKSIZE), (16, "I", NLINK), (20, "I", UID), (24, "I", GID), (28, "H", MODE), (32, "Q", INO),
    (40, "Q", SIZE), (48, "Q", BLOCKS), (64, "q", 1), (72, "I", 500_000_001), (80, "q", 0), (96, "q", 3), (112, "q", -1),
    (120, "I", 999_999_999), (128, "I", 4), (132, "I", 64), (136, "I", 8), (140, "I", 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "size", "fields"),
    [
        (structs.stat(STAT, "x86_64"), 144, X86_64),
        (structs.stat(STAT, "aarch64"), 128, AARCH64),
        (structs.statx(STAT), 256, STATX),
    ],
)
def test_layout(data: bytes, size: int, fields: list[tuple[int, str, int]]) -> None:
    assert len(data) == size
    for offset, kind, value in fields:
        assert struct.unpack_from(kind, data, offset)[0] == value, offset


def test_statfs() -> None:
    data = structs.statfs([0xEF53, 4096, 100, 50, 40, 1000, 900, 255, 4096, 0x20])
    assert len(data) == 120
    assert struct.unpack_from("=7q", data) == (0xEF53, 4096, 100, 50, 40, 1000, 900)
    assert struct.unpack_from("=3q", data, 64) == (255, 4096, 0x20)


def test_a_local_file_is_told_alike(tmp_path: object) -> None:
    mine = os.stat(str(tmp_path))
    told = structs.of(mine)
    assert told[1] == mine.st_ino and told[11] == mine.st_mtime_ns and len(told) == 13


@pytest.mark.parametrize(("register", "value"), [(3, 3), (0xFFFFFF9C, -100), (0xFFFFFFFFFFFFFF9C, -100), (1 << 32, 0)])
def test_int_arguments(register: int, value: int) -> None:
    assert signed(register) == value
