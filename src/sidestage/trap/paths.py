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

from sidestage.trap import kernel
from sidestage.trap.cwd import WorkingDirectories
from sidestage.trap.opener import Opener
from sidestage.trap.ports import Decision
from sidestage.trap.supervisor import Call, Supervisor

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
NODES = 1 << 16  # nodes whose path is remembered; the older half is forgotten then, and its descriptors lose readlink and *at

_FD_LINK = re.compile(r"/proc/(self|thread-self|\d+)/(?:fd/(\d+)|exe)$")
_known: WeakKeyDictionary[Supervisor, Paths] = WeakKeyDictionary()


class Place(NamedTuple):
    """`remote`: the target's path. Otherwise a path of this machine that isn't the one the program named (`mapping`)."""

    remote: bool
    path: str
    writable: bool = False  # may the target's file be changed, now or by another call?


class Paths:
    def __init__(self, sup: Supervisor) -> None:
        self.sup = sup
        self.root = sup.hello.root  # of the FUSE mount, or -1
        self._opener = Opener(sup.hello.opener) if sup.hello.opener >= 0 else None
        self._writes = sup.policy.writes
        self.cwds = WorkingDirectories()
        self._device = -1
        self._nodes: dict[str, str] = {}

    @staticmethod
    def of(sup: Supervisor) -> Paths:
        return _known.get(sup) or _known.setdefault(sup, Paths(sup))

    @property
    def device(self) -> int:
        """st_dev of remote files as fstat(2) shows it; -1 without FUSE."""
        if self._device < 0 <= self.root:
            self._device = kernel.device(f"/proc/self/fd/{self.root}")
        return self._device

    def open(self, node: str, flags: int) -> int:
        """A descriptor of a node of the FUSE mount."""
        return self._opener.open(node, flags) if self._opener else os.open(node, flags, dir_fd=self.root)

    def remember(self, node: str, path: str) -> None:
        if len(self._nodes) >= NODES:
            for old in list(self._nodes)[: NODES // 2]:
                del self._nodes[old]
        self._nodes[node] = path

    def locate(self, call: Call, dirfd: int, address: int, *, write: bool = False) -> Place | None:
        """None: the call has been answered."""
        place = self.where(call, dirfd, address, write=write)
        if isinstance(place, Place):
            return place
        call.fail(place) if place else call.cont()
        return None

    def where(self, call: Call, dirfd: int, address: int, *, write: bool = False) -> Place | int:
        """0: it is the kernel's own business; another number: the error."""
        try:
            path = os.fsdecode(call.string(address))
        except OSError as error:
            if error.errno not in (e.EFAULT, e.ENAMETOOLONG):
                raise
            return 0  # the kernel knows best what is wrong with it
        if not path:
            return 0  # with AT_EMPTY_PATH it is about the descriptor, which is a real one
        decision, mapped = self.sup.policy.path(path, write)
        if decision is not Decision.LOCAL and self.sup.skipped(call.tid):
            return 0
        if decision is Decision.NOT_FOUND:
            return e.ENOENT
        if decision is Decision.REMOTE:
            return Place(True, mapped, write or self._may_write(path))
        if mapped != path and self.sup.boxed:
            self.sup.say(f"{path}: feature.fs.mapping to a file of the image can't be followed in a container")
            return e.ENOENT  # never a file of this machine
        if mapped != path:
            return Place(False, mapped)
        if path[0] != "/" and (not write or self._writes) and (base := self.directory(call.tid, dirfd)):
            return self._below(f"{base.rstrip('/')}/{path}", write)
        if self._writes and path[0] != "/" and self._is_top(call.tid, dirfd):
            decision, mapped = self.sup.policy.path(f"/{path}", write)
            return Place(True, mapped, write or self._may_write(f"/{path}")) if decision is Decision.REMOTE else 0
        return 0

    @staticmethod
    def _is_top(tid: int, dirfd: int) -> bool:
        """A descriptor of `/`: who walks down from there by openat(2), as rsync does, means absolute paths."""
        if signed(dirfd) < 0:
            return False
        try:
            return os.readlink(f"/proc/{tid}/fd/{dirfd & 0xFFFFFFFF}") == "/"
        except OSError:
            return False

    def _below(self, path: str, write: bool) -> Place | int:
        """Relative to a remote directory: the target's, also what is local by its name; what is for reading only stays so."""
        may = self._may_write(path) or (self._writes and self.sup.policy.path(path, False)[0] is Decision.LOCAL)
        return Place(True, path, may) if may or not write else e.EROFS

    def _may_write(self, path: str) -> bool:
        return self._writes and self.sup.policy.path(path, True)[0] is Decision.REMOTE

    def node_path(self, tid: int, link: str) -> str | None:
        """The target's path behind /proc/self/fd/N or /proc/self/exe, when that is a remote file."""
        match = _FD_LINK.match(link)
        if not match or self.root < 0:
            return None
        task = _task(tid, match[1])
        return self.directory(task, int(match[2])) if match[2] else self._behind(f"/proc/{task}/exe")

    def node_name(self, tid: int, link: str) -> str | None:
        """The name by which session knows the open file behind /proc/self/fd/N, when it is one of the target's."""
        match = _FD_LINK.match(link)
        if not match or not match[2] or self.root < 0:
            return None
        link = f"/proc/{_task(tid, match[1])}/fd/{match[2]}"
        try:
            name = os.readlink(link)[1:]
            return name if name in self._nodes and kernel.device(link) == self.device else None
        except OSError:
            return None

    def directory(self, tid: int, dirfd: int) -> str | None:
        """The target's path of a directory that it is relative to; None: it is this machine's."""
        number = signed(dirfd)
        if number == AT_FDCWD and (path := self.cwds.get(tid)):
            return path
        if self.root < 0 or (number < 0 and not (self._writes and number == AT_FDCWD)):
            return None
        return self._behind(f"/proc/{tid}/cwd" if number == AT_FDCWD else f"/proc/{tid}/fd/{number}")

    def _behind(self, link: str) -> str | None:
        try:
            node, _, rest = os.readlink(link)[1:].partition("/")  # the kernel has walked the rest itself, chdir(2) for one
            known = self._nodes.get(node)
            if not known or kernel.device(link) != self.device:
                return None
        except OSError:
            return None
        return f"{known.rstrip('/')}/{rest}" if rest else known

    def renamed(self, old: str, new: str, *, exchange: bool = False) -> None:
        """Open directories, and what is open below them, have another path now."""
        old, new = old.rstrip("/"), new.rstrip("/")
        for node, path in self._nodes.items():
            if path == old or path.startswith(f"{old}/"):
                self._nodes[node] = new + path[len(old) :]
            elif exchange and (path == new or path.startswith(f"{new}/")):
                self._nodes[node] = old + path[len(new) :]


def _task(tid: int, named: str) -> int:
    """Whom `tid` means by this name below /proc. Of others in a container's PID namespace nothing is known: 0."""
    if named in ("self", "thread-self"):
        return tid
    with open(f"/proc/{tid}/status", "rb") as status:
        ids = next((line.split()[1:] for line in status if line.startswith(b"NStgid:")), [])
    if len(ids) <= 1:
        return int(named)
    return tid if int(ids[-1]) == int(named) else 0


def signed(value: int) -> int:
    """The C int in an argument register."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def umask(tid: int) -> int:
    """Of a task; Linux 4.7 and later tell it."""
    with open(f"/proc/{tid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0
