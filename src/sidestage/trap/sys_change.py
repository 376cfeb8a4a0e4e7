"""Calls by path that change something, where the target's files may be changed: mkdir, rename, unlink, chmod, attributes and so on.

Not installed in read mode, where what a program changes is this machine's and runs at native speed.
"""

from __future__ import annotations

import errno as e
import os
import struct
from collections.abc import Callable
from typing import Any

from sidestage.trap import cwd
from sidestage.trap.paths import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Paths, Place, signed, umask
from sidestage.trap.supervisor import Call, Supervisor
from sidestage.trap.sys_paths import too_new

MAX_VALUE = 64 << 10  # XATTR_SIZE_MAX, XATTR_LIST_MAX
_AT_REMOVEDIR, _AT_SYMLINK_FOLLOW = 0x200, 0x400
_TIMES = struct.Struct("=qqqq")
_UTIMBUF = struct.Struct("=qq")
_UTIME_NOW = (1 << 30) - 1
_NOW = [0, _UTIME_NOW, 0, _UTIME_NOW]

Args = dict[str, Any]


def install(sup: Supervisor) -> None:
    if not sup.policy.writes:
        return
    paths = Paths.of(sup)
    changes = _Changes(paths)
    cwd.install(paths)
    at, one, two = AT_FDCWD, changes.one, changes.two
    on = sup.on

    def mkdir(c: Call, dirfd: int, address: int, mode: int) -> None:
        one("mkdir", c, dirfd, address, lambda: {"mode": mode & 0o7777 & ~umask(c.tid)})

    def mknod(c: Call, dirfd: int, address: int, mode: int, device: int) -> None:
        mode &= 0xFFFF
        one("mknod", c, dirfd, address, lambda: {"mode": mode & ~umask(c.tid), "device": device & 0xFFFFFFFF})

    def symlink(c: Call, text: int, dirfd: int, address: int) -> None:
        one("symlink", c, dirfd, address, lambda: {"text": os.fsdecode(c.string(text))})

    def chmod(c: Call, dirfd: int, address: int, mode: int, follow: bool = True) -> None:
        one("setattr", c, dirfd, address, lambda: {"mode": mode & 0o7777, "follow": follow})

    def chown(c: Call, dirfd: int, address: int, uid: int, gid: int, follow: bool) -> None:
        one("setattr", c, dirfd, address, lambda: {"owner": [signed(uid), signed(gid)], "follow": follow})

    def times(c: Call, dirfd: int, address: int, read: Callable[[], list[int]], follow: bool = True) -> None:
        if address:  # futimens(3) is about a descriptor
            one("setattr", c, dirfd, address, lambda: {"times": read(), "follow": follow})
        else:
            c.cont()

    def follows(flags: int) -> bool:
        return not flags & AT_SYMLINK_NOFOLLOW

    on("mkdir", lambda c: mkdir(c, at, c.args[0], c.args[1]))
    on("mkdirat", lambda c: mkdir(c, c.args[0], c.args[1], c.args[2]))
    on("rmdir", lambda c: one("rmdir", c, at, c.args[0]))
    on("unlink", lambda c: one("unlink", c, at, c.args[0]))
    on("unlinkat", lambda c: one("rmdir" if c.args[2] & _AT_REMOVEDIR else "unlink", c, c.args[0], c.args[1]))
    on("mknod", lambda c: mknod(c, at, c.args[0], c.args[1], c.args[2]))
    on("mknodat", lambda c: mknod(c, c.args[0], c.args[1], c.args[2], c.args[3]))
    on("symlink", lambda c: symlink(c, c.args[0], at, c.args[1]))
    on("symlinkat", lambda c: symlink(c, c.args[0], c.args[1], c.args[2]))
    on("rename", lambda c: two("rename", c, (at, c.args[0]), (at, c.args[1])))
    on("renameat", lambda c: two("rename", c, (c.args[0], c.args[1]), (c.args[2], c.args[3])))
    on("renameat2", lambda c: two("rename", c, (c.args[0], c.args[1]), (c.args[2], c.args[3]), {"flags": c.args[4] & 0xFFFFFFFF}))
    on("link", lambda c: two("link", c, (at, c.args[0]), (at, c.args[1])))
    on("linkat", lambda c: changes.linkat(c))
    on("chmod", lambda c: chmod(c, at, c.args[0], c.args[1]))
    on("fchmodat", lambda c: chmod(c, c.args[0], c.args[1], c.args[2]))
    on("fchmodat2", lambda c: chmod(c, c.args[0], c.args[1], c.args[2], follows(c.args[3])))
    on("chown", lambda c: chown(c, at, c.args[0], c.args[1], c.args[2], True))
    on("lchown", lambda c: chown(c, at, c.args[0], c.args[1], c.args[2], False))
    on("fchownat", lambda c: chown(c, c.args[0], c.args[1], c.args[2], c.args[3], follows(c.args[4])))
    on("truncate", lambda c: one("setattr", c, at, c.args[0], lambda: {"size": _off_t(c.args[1])}))
    on("utime", lambda c: times(c, at, c.args[0], lambda: _utime(c, c.args[1])))
    on("utimes", lambda c: times(c, at, c.args[0], lambda: _utimes(c, c.args[1])))
    on("futimesat", lambda c: times(c, c.args[0], c.args[1], lambda: _utimes(c, c.args[2])))
    on("utimensat", lambda c: times(c, c.args[0], c.args[1], lambda: _utimens(c, c.args[2]), follows(c.args[3])))
    for name in ("setxattrat", "removexattrat", "file_setattr"):
        on(name, lambda c: too_new(paths, c))
    for prefix, follow in ("", True), ("l", False):
        on(f"{prefix}setxattr", lambda c, f=follow: changes.set_xattr(c, f))  # type: ignore[misc]
        on(f"{prefix}removexattr", lambda c, f=follow: changes.remove_xattr(c, f))  # type: ignore[misc]
        on(f"{prefix}getxattr", lambda c, f=follow: changes.get_xattr(c, f))  # type: ignore[misc]
        on(f"{prefix}listxattr", lambda c, f=follow: changes.list_xattr(c, f))  # type: ignore[misc]


class _Changes:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def one(self, call: str, c: Call, dirfd: int, address: int, args: Callable[[], Args] = dict) -> None:
        """A call about one path. `args` are read when it is the target's."""
        place = self._paths.locate(c, dirfd, address, write=True)
        if place is not None and self._can(c, place):
            self._ask(c, call, {"path": place.path, **args()})

    def _can(self, c: Call, place: Place) -> bool:
        if not place.remote:
            self._paths.sup.say(f"{place.path} is of this machine by feature.fs.mapping: it can be opened, but not changed by name")
            c.fail(e.EROFS)
        elif self._paths.root < 0:
            self._paths.sup.say("the target's files can't be changed, as FUSE can't be used here")
            c.fail(e.EROFS)
        else:
            return True
        return False

    def _ask(
        self, c: Call, call: str, args: Args, raw: bytes = b"", then: Callable[[bytes], None] | None = None, **more: Any
    ) -> None:
        def done(result: Args, errno: int, _fds: list[int]) -> None:
            if errno:
                c.fail(errno)
            elif then:
                then(result["raw"])
            else:
                c.ret()

        self._paths.sup.broker.request("change", {"call": call, "args": args, "raw": raw, **more}, done)

    def two(self, call: str, c: Call, old: tuple[int, int], new: tuple[int, int], args: Args | None = None) -> None:
        """A call about two names: both are the target's, or none is. Between two sides it is as between two file systems."""
        first, second = (self._paths.where(c, *name, write=True) for name in (old, new))
        if isinstance(first, int) and isinstance(second, int):
            c.fail(first or second) if first or second else c.cont()
        elif not (isinstance(first, Place) and isinstance(second, Place) and first.remote == second.remote):
            self._across(c, first, second)
        elif self._can(c, first):
            if call == "rename":
                self._rename(c, first.path, second.path, args or {})
            else:
                self._ask(c, call, {"path": first.path, "to": second.path, **(args or {})})

    @staticmethod
    def _across(c: Call, *places: Place | int) -> None:
        """One is ENOENT by the rules, or a local file; the other is the target's."""
        errors = [place for place in places if isinstance(place, int) and place]
        c.fail(errors[0] if errors else e.EXDEV)

    def _rename(self, c: Call, old: str, new: str, args: Args) -> None:
        def done(_result: Args, errno: int, _fds: list[int]) -> None:
            if errno:
                c.fail(errno)
                return
            self._paths.renamed(old, new, exchange=bool(args.get("flags", 0) & 2))  # RENAME_EXCHANGE
            c.ret()

        self._paths.sup.broker.request("change", {"call": "rename", "args": {"path": old, "to": new, **args}, "raw": b""}, done)

    def linkat(self, c: Call) -> None:
        """Also the ways to give a file of O_TMPFILE its name: /proc/self/fd/N, and a descriptor with an empty path."""
        old, address, new, target, flags = c.args[:5]
        node = None
        if flags & (_AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
            text = os.fsdecode(c.string(address))
            link = f"/proc/self/fd/{signed(old)}" if not text and flags & AT_EMPTY_PATH else text
            node = self._paths.node_name(c.tid, link)
        if node is None:
            # The kernel follows a link to the very end with AT_SYMLINK_FOLLOW only.
            self.two("link", c, (old, address), (new, target), {"follow": bool(flags & _AT_SYMLINK_FOLLOW)})
            return
        place = self._paths.where(c, new, target, write=True)
        if isinstance(place, Place) and place.remote:
            self._ask(c, "link", {"to": place.path}, node=node)
        else:
            c.fail(place if isinstance(place, int) and place else e.EXDEV)

    # -- extended attributes --

    def set_xattr(self, c: Call, follow: bool) -> None:
        place = self._paths.locate(c, AT_FDCWD, c.args[0], write=True)
        if place is None or not self._can(c, place):
            return
        if c.args[3] > MAX_VALUE:
            c.fail(e.E2BIG)
            return
        name, value = os.fsdecode(c.string(c.args[1])), c.read(c.args[2], c.args[3]) if c.args[3] else b""
        self._ask(c, "setxattr", {"path": place.path, "follow": follow, "name": name, "flags": c.args[4] & 0xFFFFFFFF}, value)

    def remove_xattr(self, c: Call, follow: bool) -> None:
        self.one("removexattr", c, AT_FDCWD, c.args[0], lambda: {"name": os.fsdecode(c.string(c.args[1])), "follow": follow})

    def get_xattr(self, c: Call, follow: bool) -> None:
        self._xattr(c, "getxattr", follow, lambda: {"name": os.fsdecode(c.string(c.args[1]))}, c.args[2], c.args[3])

    def list_xattr(self, c: Call, follow: bool) -> None:
        self._xattr(c, "listxattr", follow, dict, c.args[1], c.args[2])

    def _xattr(self, c: Call, call: str, follow: bool, args: Callable[[], Args], buffer: int, room: int) -> None:
        place = self._paths.locate(c, AT_FDCWD, c.args[0])
        if place is None:
            return
        if not place.remote or self._paths.root < 0:
            c.fail(e.EOPNOTSUPP)
            return

        def fill(value: bytes) -> None:
            if room and len(value) > room:
                c.fail(e.ERANGE)
                return
            try:
                if room:
                    c.write(buffer, value)
            except OSError as error:
                c.fail(error.errno or e.EFAULT)
            else:
                c.ret(len(value))

        self._ask(c, call, {"path": place.path, "follow": follow, **args()}, then=fill)


def _off_t(value: int) -> int:
    return value - (value >> 63 << 64)


def _utime(c: Call, address: int) -> list[int]:
    if not address:
        return _NOW
    atime, mtime = _UTIMBUF.unpack(c.read(address, _UTIMBUF.size))
    return [atime, 0, mtime, 0]


def _utimes(c: Call, address: int) -> list[int]:
    """struct timeval: microseconds."""
    if not address:
        return _NOW
    atime, atime_us, mtime, mtime_us = _TIMES.unpack(c.read(address, _TIMES.size))
    if not (0 <= atime_us < 1_000_000 and 0 <= mtime_us < 1_000_000):
        raise OSError(e.EINVAL, "not a time")
    return [atime, atime_us * 1000, mtime, mtime_us * 1000]


def _utimens(c: Call, address: int) -> list[int]:
    return list(_TIMES.unpack(c.read(address, _TIMES.size))) if address else _NOW
