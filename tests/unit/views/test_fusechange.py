"""Requests that change a file, as the kernel lays them out (include/uapi/linux/fuse.h)."""

from __future__ import annotations

import struct

import pytest

from sidestage.views import fusechange

NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


def attributes(valid: int, **values: int) -> bytes:
    """struct fuse_setattr_in"""
    names = "fh size lock atime mtime ctime atimensec mtimensec ctimensec mode unused uid gid".split()
    given = [values.pop(name, 0) for name in names]
    assert not values
    return struct.pack("=IIQQQQQQIIIIIIII", valid, 0, *given, 0)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (attributes(1 << 3 | 1 << 6, fh=7, size=5), (7, {"size": 5})),
        (attributes(1 << 3, fh=7, size=1 << 40), (0, {"size": 1 << 40})),
        (attributes(1, mode=0o100640), (0, {"mode": 0o640})),
        (attributes(2, uid=5, gid=9), (0, {"owner": [5, -1]})),
        (attributes(4, uid=5, gid=9), (0, {"owner": [-1, 9]})),
        (attributes(1 << 4 | 1 << 7), (0, {"times": [0, NOW, 0, OMIT]})),
        (attributes(1 << 4 | 1 << 5, atime=3, atimensec=4, mtime=5, mtimensec=6), (0, {"times": [3, 4, 5, 6]})),
        (attributes(1 << 5, mtime=(1 << 64) - 2, mtimensec=6), (0, {"times": [0, OMIT, -2, 6]})),
    ],
)
def test_attributes(body: bytes, wanted: tuple[int, dict[str, object]]) -> None:
    assert len(body) == 88
    assert fusechange.attributes(body) == wanted


def test_write() -> None:
    body = struct.pack("=QQIIQII", 3, 4096, 5, 0, 0, 0, 0) + b"hello"
    assert fusechange.write(body) == (3, 4096, b"hello")


def test_extended_attributes() -> None:
    assert fusechange.new_xattr(struct.pack("=II", 3, 1) + b"user.a\0a\0b") == (b"user.a", b"a\0b", 1)
    assert fusechange.wanted_xattr(struct.pack("=II", 64, 0) + b"user.a\0") == (64, b"user.a")
    assert fusechange.wanted_xattr(struct.pack("=II", 0, 0)) == (0, b"")


def test_the_rest() -> None:
    assert fusechange.allocation(struct.pack("=QQQII", 1, 2, 3, 4, 0)) == {"handle": 1, "offset": 2, "length": 3, "mode": 4}
    assert fusechange.seek(struct.pack("=QQII", 1, 2, 3, 0)) == {"handle": 1, "offset": 2, "whence": 3}
    assert fusechange.sync(struct.pack("=QII", 1, 1, 0)) == (1, True)
    assert fusechange.open_flags(struct.pack("=II", 0o2001, 0)) == 0o2001
