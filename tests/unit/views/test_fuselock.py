"""Requests about locks against the layouts of include/uapi/linux/fuse.h."""

from __future__ import annotations

import fcntl
import struct

import pytest

from sidestage.views import fuse, fuselock

EOF = (1 << 63) - 1


@pytest.mark.parametrize(("flags", "flock"), [(0, False), (1, True)])
def test_a_lock(flags: int, flock: bool) -> None:
    body = struct.pack("=QQ QQII II", 7, 1 << 63 | 5, 10, EOF, fcntl.F_WRLCK, 4711, flags, 0)
    assert fuselock.lock(body) == (7, 1 << 63 | 5, 10, EOF, fcntl.F_WRLCK, 4711, flock)


def test_answers_and_ends() -> None:
    assert fuselock.found(start=3, end=9, kind=fcntl.F_RDLCK, pid=0) == struct.pack("=QQII", 3, 9, fcntl.F_RDLCK, 0)
    assert fuselock.flushed(struct.pack("=QIIQ", 7, 0, 0, 1 << 63)) == (7, 1 << 63)


@pytest.mark.parametrize(
    ("syscall", "process"),
    [
        ("72 0x3 0x7 0x7ffd8 0x0 0x0 0x0 0x7ffd8 0x7f21", True),
        ("72 0x3 0x26 0x7ffd8 0x0 0x0 0x0 0x7ffd8 0x7f21", False),
        ("221 0x3 0xe 0xffd8 0x0 0x0 0x0 0xffd8 0x7f21", True),  # fcntl64 of a 32-bit program
        ("running\n", True),
        ("", True),
    ],
)
def test_whose_wait_it_is(syscall: str, process: bool) -> None:
    assert fuselock.of_process(syscall) is process


@pytest.mark.parametrize(("writable", "asked"), [(False, False), (True, True)])
def test_who_is_asked_for_locks(writable: bool, asked: bool) -> None:
    answer = fuse.init(struct.pack("=IIII", 7, 45, 131072, 0xFFFFFFFF), writable=writable)
    flags = struct.unpack_from("=I", answer, 12)[0]
    assert bool(flags & fuse.POSIX_LOCKS) is bool(flags & fuse.FLOCK_LOCKS) is asked
    assert b"".join(fuse.drop_pages(9))[16:] == struct.pack("=Qqq", 9, 0, 0)
