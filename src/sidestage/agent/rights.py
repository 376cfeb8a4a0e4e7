"""Our rights over files of others: never more than the target's when we change something in its name (capabilities(7))."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from contextlib import contextmanager
from typing import Iterator, List, Sequence

# linux/capability.h: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD
OVER_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 27
_V3, _SETS = 0x20080522, struct.Struct("=6I")  # capset(2): effective, permitted, inheritable; then their high halves
_NOBODY = 0xFFFFFFFF  # no id: setfsuid(2) then changes nothing, and says which one there is
_libc = ctypes.CDLL(None, use_errno=True)


class NotOurs(PermissionError):
    """We may not act as the target; the text says why."""


def of(status: str) -> int:
    """The effective capabilities in /proc/PID/status."""
    (found,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")]
    return found


def drop(theirs: int) -> None:
    """For good: those over files that the target hasn't. Raises OSError."""
    effective, permitted, *others = _get()
    kept = ~OVER_FILES | theirs
    _set([effective & kept, permitted & kept, *others])


@contextmanager
def acting_as(uid: int, gid: int, theirs: int) -> Iterator[None]:
    """With the file-system ids of another, and with its rights over files. Raises NotOurs where we may not be so."""
    before = _get() if not uid and OVER_FILES & ~theirs else None  # another id than 0 gives these up by itself
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        if (_libc.setfsuid(_NOBODY), _libc.setfsgid(_NOBODY)) != (uid, gid):
            text = f"nothing is written: the agent may not act as user {uid}, its rights SETUID and SETGID are missing"
            raise NotOurs(errno.EPERM, text)
        if before:
            _set([before[0] & (~OVER_FILES | theirs), *before[1:]])
        yield
    finally:
        if before:
            _set(before)
        _libc.setfsuid(os.geteuid())
        _libc.setfsgid(os.getegid())


def _get() -> List[int]:
    room = ctypes.create_string_buffer(_SETS.size)
    if _libc.capget(struct.pack("=Ii", _V3, 0), room):
        raise OSError(ctypes.get_errno(), "capget")
    return list(_SETS.unpack(room.raw))


def _set(sets: Sequence[int]) -> None:
    if _libc.capset(struct.pack("=Ii", _V3, 0), _SETS.pack(*sets)):
        raise OSError(ctypes.get_errno(), "capset")
