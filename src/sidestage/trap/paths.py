"""Where a path of a system call leads: what the handlers of files share.

A path is the target's when the policy says so, or when it is relative to a descriptor of a remote directory, which is known by the
device number of our FUSE mount and by the name of its node. Everything else that is relative is this machine's.
"""

from __future__ import annotations

import errno as e
import os
import re
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sidestage.trap.ports import Decision
from sidestage.trap.supervisor import Call, Supervisor

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
NODES = 1 << 16  # nodes whose path is remembered; the older half is forgotten then, and its descriptors lose readlink and *at

_FD_LINK = re.compile(r"/proc/(self|thread-self|\d+)/fd/(\d+)$")
_known: WeakKeyDictionary[Supervisor, Paths] = WeakKeyDictionary()


class Place(NamedTuple):
    """`remote`: the target's path. Otherwise a path of this machine that isn't the one the program named (`mapping`)."""

    remote: bool
    path: str


class Paths:
    def __init__(self, sup: Supervisor) -> None:
        self.sup = sup
        self.root = sup.hello.root  # of the FUSE mount, or -1
        self._device = -1
        self._nodes: dict[str, str] = {}

    @staticmethod
    def of(sup: Supervisor) -> Paths:
        return _known.get(sup) or _known.setdefault(sup, Paths(sup))

    @property
    def device(self) -> int:
        """st_dev of remote files as fstat(2) shows it; -1 without FUSE."""
        if self._device < 0 <= self.root:
            self._device = os.fstat(self.root).st_dev
        return self._device

    def remember(self, node: str, path: str) -> None:
        if len(self._nodes) >= NODES:
            for old in list(self._nodes)[: NODES // 2]:
                del self._nodes[old]
        self._nodes[node] = path

    def locate(self, call: Call, dirfd: int, address: int, *, write: bool = False) -> Place | None:
        """None: the call has been answered."""
        try:
            path = os.fsdecode(call.string(address))
        except OSError as error:
            if error.errno not in (e.EFAULT, e.ENAMETOOLONG):
                raise
            call.cont()  # the kernel knows best what is wrong with it
            return None
        if not path:
            call.cont()  # with AT_EMPTY_PATH it is about the descriptor, which is a real one
            return None
        decision, mapped = self.sup.policy.path(path, write)
        if decision is not Decision.LOCAL and self.sup.skipped(call.tid):
            call.cont()
        elif decision is Decision.NOT_FOUND:
            call.fail(e.ENOENT)
        elif decision is Decision.REMOTE:
            return Place(True, mapped)
        elif mapped != path:
            return Place(False, mapped)
        elif path[0] != "/" and not write and (base := self._directory(call.tid, dirfd)):
            return Place(True, f"{base.rstrip('/')}/{path}")
        else:
            call.cont()
        return None

    def node_path(self, tid: int, link: str) -> str | None:
        """The target's path behind /proc/self/fd/N, when N is a remote file."""
        if match := _FD_LINK.match(link):
            return self._directory(tid if match[1] in ("self", "thread-self") else int(match[1]), int(match[2]))
        return None

    def _directory(self, tid: int, dirfd: int) -> str | None:
        if self.root < 0 or (number := signed(dirfd)) < 0:
            return None
        link = f"/proc/{tid}/fd/{number}"
        try:
            path = self._nodes.get(os.readlink(link)[1:])
            return path if path and os.stat(link).st_dev == self.device else None
        except OSError:
            return None


def signed(value: int) -> int:
    """The C int in an argument register."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
