"""What changes the target's files: by the kernel's own calls below its root, with the target's identity and no more rights.

Permission is asked, and ownership given, as if the target did it: user, group and supplementary groups of its process become ours
for the time of one call (setfsuid(2)). A parent directory is walked below the root; the last name is then the kernel's to judge.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from sidestage.agent import rights
from sidestage.agent.files import FIRST, Files, stat_of

Args = Dict[str, Any]
Answer = Tuple[Args, bytes]

MAX_VALUE = 64 << 10  # bytes of an extended attribute; XATTR_SIZE_MAX of linux/limits.h
_OPEN_FLAGS = os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_TMPFILE
_CREATES = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
_AT_FDCWD, _AT_SYMLINK_FOLLOW = -100, 0x400
_TIMES = struct.Struct("=qqqq")
_libc = ctypes.CDLL(None, use_errno=True)


class Changes:
    """`pid` is the process whose identity is taken on; None: our own is the right one. `warn` is told once if we may not."""

    def __init__(self, files: Files, pid: Optional[int], warn: Callable[[str], None]) -> None:
        self._files, self._pid, self._warn, self._warned = files, pid, warn, False
        self._groups: Optional[List[int]] = None
        os.umask(0)  # modes come with the program's own mask applied
        self._ops: Dict[str, Callable[[Args, bytes], Answer]] = {
            "create": self._open, "reopen": self._reopen, "write": self._write, "fstat": self._fstat, "setattr": self._setattr,
            "allocate": self._allocate, "seek": self._seek, "mkdir": self._mkdir, "rmdir": self._rmdir, "unlink": self._unlink,
            "mknod": self._mknod, "symlink": self._symlink, "link": self._link, "rename": self._rename,
            "getxattr": self._getxattr, "listxattr": self._listxattr, "setxattr": self._setxattr, "removexattr": self._removexattr,
        }  # fmt: skip

    def __contains__(self, op: str) -> bool:
        return op in self._ops

    def call(self, op: str, args: Args, raw: bytes) -> Answer:
        return self._ops[op](args, raw)

    @contextmanager
    def _identity(self) -> Iterator[None]:
        ids = self._ids() if self._pid and not os.geteuid() else None
        if ids is None:
            yield
            return
        uid, gid, groups, theirs = ids
        if groups != self._groups:
            try:
                os.setgroups(groups)
            except PermissionError:
                pass  # no CAP_SETGID: the group of the file then decides without them
            self._groups = groups
        try:
            with rights.acting_as(uid, gid, theirs):
                yield
        except rights.NotOurs as error:
            if not self._warned:
                self._warned = True
                self._warn(str(error.strerror))
            raise

    def _ids(self) -> Optional[Tuple[int, int, List[int], int]]:
        """User, group, supplementary groups, effective capabilities."""
        try:
            with open(f"/proc/{self._pid}/status", encoding="utf-8", errors="replace") as lines:
                words = {line.split(":", 1)[0]: line.split()[1:] for line in lines}
        except OSError:  # it has ended, and so shall we
            return None
        return int(words["Uid"][3]), int(words["Gid"][3]), [int(group) for group in words["Groups"]], int(words["CapEff"][0], 16)

    def access(self, path: str, mode: int) -> None:
        """May the target change it? Whether it can be read is asked of us, who read it."""
        if mode & os.W_OK:
            with self._identity():
                self._files.access(path, mode)
        else:
            self._files.access(path, mode)

    # -- open files --

    def _open(self, args: Args, _raw: bytes) -> Answer:
        """`{stat, handle, created}`, and with `first` the first bytes. Always with a handle."""
        path, flags, mode = args["path"], int(args["flags"]) & _OPEN_FLAGS, int(args.get("mode", 0)) & 0o7777
        if flags & (os.O_ACCMODE | _CREATES | os.O_TRUNC):
            with self._identity():
                fd, created = self._open_for_writing(path, flags, mode)
        else:
            fd, created = self._existing(path, flags), False
        kept = False
        try:
            info = os.fstat(fd)
            if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
                raise OSError(errno.ENXIO, "neither file nor directory")
            data = b""
            if args.get("first") and stat.S_ISREG(info.st_mode) and flags & os.O_ACCMODE != os.O_WRONLY:
                data = os.pread(fd, FIRST, 0)
            handle, kept = self._files.keep(fd), True
            return {"stat": stat_of(info), "handle": handle, "created": created}, data
        finally:
            if not kept:
                os.close(fd)

    def _open_for_writing(self, path: str, flags: int, mode: int) -> Tuple[int, bool]:
        created = bool(flags & _CREATES)
        if not (flags & os.O_EXCL or flags & os.O_TMPFILE == os.O_TMPFILE):
            created = not self._is_there(path, flags) and created
        # O_NONBLOCK: should a pipe be there by now, nobody waits for its peer
        return self._files.walk(path, flags | os.O_NONBLOCK, mode if flags & _CREATES else 0), created

    def _existing(self, path: str, flags: int) -> int:
        self._is_there(path, flags)
        return self._files.walk(path, flags | os.O_NONBLOCK)

    def _is_there(self, path: str, flags: int) -> bool:
        """False: the open that follows says why not, or makes it. To open a pipe or a device would be to act on it."""
        try:
            probe = self._files.walk(path, os.O_PATH | flags & os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            mode = os.fstat(probe).st_mode
        finally:
            os.close(probe)
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, "a symbolic link")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ENXIO, "neither file nor directory")
        return True

    def _reopen(self, args: Args, _raw: bytes) -> Answer:
        """A second handle of an open file with other flags, as of /proc/self/fd."""
        flags = int(args["flags"]) & (os.O_ACCMODE | os.O_APPEND)
        with self._identity():
            fd = os.open(_link_to(self._files.fd(args["handle"])), flags | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return {"handle": self._files.keep(fd)}, b""
        except OSError:
            os.close(fd)
            raise

    def _write(self, args: Args, raw: bytes) -> Answer:
        """With a handle of O_APPEND, Linux appends whatever the offset (pwrite(2)): so writers don't overwrite each other."""
        return {"size": os.pwrite(self._files.fd(args["handle"]), raw, args["offset"])}, b""

    def _fstat(self, args: Args, _raw: bytes) -> Answer:
        return {"stat": stat_of(os.fstat(self._files.fd(args["handle"])))}, b""

    def _allocate(self, args: Args, _raw: bytes) -> Answer:
        fd, mode = self._files.fd(args["handle"]), int(args["mode"])
        if _libc.fallocate(fd, mode, ctypes.c_int64(args["offset"]), ctypes.c_int64(args["length"])):
            _fail()
        return {"stat": stat_of(os.fstat(fd))}, b""

    def _seek(self, args: Args, _raw: bytes) -> Answer:
        if args["whence"] not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "not a question about holes")
        return {"offset": os.lseek(self._files.fd(args["handle"]), args["offset"], args["whence"])}, b""

    def sync(self, args: Args) -> None:
        """May take its time: called in a thread."""
        fd = self._files.fd(args["handle"])
        os.fdatasync(fd) if args.get("data") else os.fsync(fd)

    # -- attributes: of a handle, or of a path --

    @contextmanager
    def _subject(self, args: Args) -> Iterator[int]:
        if "handle" in args:
            yield self._files.fd(args["handle"])
            return
        fd = self._files.walk(args["path"], os.O_PATH | (0 if args.get("follow", True) else os.O_NOFOLLOW))
        try:
            yield fd
        finally:
            os.close(fd)

    def _setattr(self, args: Args, _raw: bytes) -> Answer:
        """Any of `size`, `owner` [uid, gid], `mode`, `times` [s, ns, s, ns] as in utimensat(2)."""
        with self._identity(), self._subject(args) as fd:
            link = _link_to(fd)
            if "size" in args:
                self._truncate(fd, args["size"], "handle" in args)
            if "owner" in args:
                os.chown(link, *args["owner"])
            if "mode" in args:
                if stat.S_ISLNK(os.fstat(fd).st_mode):
                    raise OSError(errno.EOPNOTSUPP, "a link has no mode of its own")
                os.chmod(link, int(args["mode"]) & 0o7777)
            if "times" in args and _libc.utimensat(_AT_FDCWD, os.fsencode(link), _TIMES.pack(*args["times"]), 0):
                _fail()
            return _touched(os.fstat(fd))

    @staticmethod
    def _truncate(fd: int, size: int, opened: bool) -> None:
        try:
            if opened:
                os.ftruncate(fd, size)  # the permission was asked when it was opened
                return
        except OSError as error:
            if error.errno != errno.EINVAL:  # it was opened for reading, or the size is wrong
                raise
        os.truncate(_link_to(fd), size)

    def _getxattr(self, args: Args, _raw: bytes) -> Answer:
        with self._subject(args) as fd:
            return {}, os.getxattr(_link_to(fd), args["name"])

    def _listxattr(self, args: Args, _raw: bytes) -> Answer:
        with self._subject(args) as fd:
            return {}, b"".join(os.fsencode(name) + b"\0" for name in os.listxattr(_link_to(fd)))

    def _setxattr(self, args: Args, raw: bytes) -> Answer:
        if len(raw) > MAX_VALUE:
            raise OSError(errno.E2BIG, "the value is too long")
        with self._identity(), self._subject(args) as fd:
            os.setxattr(_link_to(fd), args["name"], bytes(raw), int(args["flags"]))
            return _touched(os.fstat(fd))

    def _removexattr(self, args: Args, _raw: bytes) -> Answer:
        with self._identity(), self._subject(args) as fd:
            os.removexattr(_link_to(fd), args["name"])
            return _touched(os.fstat(fd))

    # -- names --

    @contextmanager
    def _parent(self, path: str) -> Iterator[Tuple[int, str]]:
        """A descriptor of the directory, and the last name with the slashes behind it, of which the kernel has its own opinion."""
        bare = path.rstrip("/")
        head, _, name = bare.rpartition("/")
        fd = self._files.walk(head or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            yield fd, (name or ".") + path[len(bare) :]
        finally:
            os.close(fd)

    def _mkdir(self, args: Args, _raw: bytes) -> Answer:
        with self._identity(), self._parent(args["path"]) as (parent, name):
            os.mkdir(name, int(args["mode"]) & 0o7777, dir_fd=parent)
        return {}, b""

    def _rmdir(self, args: Args, _raw: bytes) -> Answer:
        with self._identity(), self._parent(args["path"]) as (parent, name):
            os.rmdir(name, dir_fd=parent)
        return {}, b""

    def _unlink(self, args: Args, _raw: bytes) -> Answer:
        with self._identity(), self._parent(args["path"]) as (parent, name):
            before = _look(name, parent)
            os.unlink(name, dir_fd=parent)
        return _touched(*before)

    def _mknod(self, args: Args, _raw: bytes) -> Answer:
        with self._identity(), self._parent(args["path"]) as (parent, name):
            os.mknod(name, int(args["mode"]), int(args["device"]), dir_fd=parent)
        return {}, b""

    def _symlink(self, args: Args, _raw: bytes) -> Answer:
        with self._identity(), self._parent(args["path"]) as (parent, name):
            os.symlink(args["text"], name, dir_fd=parent)
        return {}, b""

    def _link(self, args: Args, _raw: bytes) -> Answer:
        """`path` or `handle` (a file without a name, O_TMPFILE) gets the name `to`."""
        with self._identity(), self._subject({"follow": False, **args}) as fd, self._parent(args["to"]) as (parent, name):
            if _libc.linkat(_AT_FDCWD, os.fsencode(_link_to(fd)), parent, os.fsencode(name), _AT_SYMLINK_FOLLOW):
                _fail()
            return _touched(os.fstat(fd))

    def _rename(self, args: Args, _raw: bytes) -> Answer:
        flags = int(args.get("flags", 0))
        with self._identity(), self._parent(args["path"]) as (old, old_name), self._parent(args["to"]) as (new, new_name):
            before = (*_look(old_name, old), *_look(new_name, new))
            if not flags:
                os.rename(old_name, new_name, src_dir_fd=old, dst_dir_fd=new)
            else:
                number = _RENAMEAT2.get(platform.machine())
                if number is None:
                    raise OSError(errno.EINVAL, "the number of renameat2 isn't known here")
                if _libc.syscall(number, old, os.fsencode(old_name), new, os.fsencode(new_name), flags):
                    _fail()
        return _touched(*before)


def _link_to(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _look(name: str, parent: int) -> Sequence[os.stat_result]:
    try:
        return (os.stat(name, dir_fd=parent, follow_symlinks=False),)
    except OSError:
        return ()


def _touched(*infos: os.stat_result) -> Answer:
    """Which files have changed, so that whoever holds one open asks again."""
    return {"touched": [stat_of(info) for info in infos]}, b""


def _fail() -> None:
    error = ctypes.get_errno()
    raise OSError(error, os.strerror(error))
