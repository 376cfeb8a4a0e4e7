"""Locks of the program on the target's files: taken here in its stead, so that both sides' processes keep out of each other's way.

Each owner (a process, or an open file description of its own; the laptop's kernel names it) has an open file description here for
each file it locks, and its locks are F_OFD_SETLK's and flock's: these conflict with those of all others, and with the classic ones
of processes (fcntl(2), "Open file description locks"). They end with us, whatever ends us. Who has to wait does so in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import threading
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from sidestage.agent.files import Files
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop

READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
EOF = (1 << 63) - 1  # the last byte of a lock without an end, as FUSE says it
MAX_WAITING = 256  # threads
WAL = 128  # the byte of SQLite's `-shm` files that each user of a database in WAL mode has a lock on (wal.c, os_unix.c)
NUDGE = 0.01  # seconds between signals to a thread that shall wait no longer: the first may come before its call
_FLOCK = struct.Struct("=hh4xqqi4x")  # struct flock of 64-bit machines
_FLOCKS = {READ: fcntl.LOCK_SH, WRITE: fcntl.LOCK_EX, NONE: fcntl.LOCK_UN}
_libc = ctypes.CDLL(None, use_errno=True)

Args = Dict[str, Any]
File = Tuple[int, int]  # device and inode


class Range(NamedTuple):
    start: int
    end: int  # the last byte
    kind: int
    pid: int = 0  # who took it, as the laptop numbers processes

    def meets(self, other: "Range") -> bool:
        return self.start <= other.end and other.start <= self.end

    def conflicts(self, other: "Range") -> bool:
        return self.meets(other) and WRITE in (self.kind, other.kind)


def replace(ranges: List[Range], new: Range) -> List[Range]:
    """What an owner holds after it has set `new`, which may be NONE."""
    kept = []
    for old in ranges:
        if not old.meets(new):
            kept.append(old)
            continue
        if old.start < new.start:
            kept.append(old._replace(end=new.start - 1))
        if old.end > new.end:
            kept.append(old._replace(start=new.end + 1))
    return sorted(kept + ([] if new.kind == NONE else [new]))


class _Held:
    """What one owner has of one file."""

    def __init__(self, number: int, file: File, owner: int, fd: int, writable: bool, own: bool) -> None:
        self.number, self.file, self.owner, self.fd, self.writable = number, file, owner, fd, writable
        self.own = own  # false: the descriptor is the program's open file's
        self.ranges: List[Range] = []
        self.waits: Set["_Wait"] = set()
        self.dropped = False


class _Wait:
    """A thread in a call that waits; `done(errno)` is called in the loop."""

    def __init__(
        self, loop: Loop, held: _Held, wanted: Optional[Range], call: Callable[[], int], done: Callable[[int], None]
    ) -> None:
        self.held, self.wanted = held, wanted
        self._loop, self._call, self._done = loop, call, done
        self._cancelled = self._over = False
        self._heard = threading.Event()  # until then the thread is there, and may be signalled
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        code = errno.EINTR
        while code == errno.EINTR and not self._cancelled:
            code = self._call()
        self._loop.post(lambda: self._ended(code))
        self._heard.wait()

    def _ended(self, code: int) -> None:
        self._over = True
        self._heard.set()
        self._done(code)

    def cancel(self) -> None:
        self._cancelled = True
        if not self._over and self._thread.ident is not None:
            signal.pthread_kill(self._thread.ident, signal.SIGUSR1)
            self._loop.later(NUDGE, self.cancel)


class Locks:
    def __init__(self, loop: Loop, links: Links, files: Files, agent: int = 0) -> None:
        self._loop, self._links, self._files = loop, links, files
        self._held: Dict[int, _Held] = {}
        self._of: Dict[Tuple[File, int], _Held] = {}
        self._waits: Dict[int, _Wait] = {}
        self._next = (agent << 32) + 1
        self._warned: Set[str] = set()
        # Its handler does nothing, and the call that it interrupts isn't begun again (PEP 475 is for Python's own calls).
        signal.signal(signal.SIGUSR1, lambda *_: None)

    def lock(self, call: int, args: Args) -> None:
        """`lock`, or a file by `handle` or `path` and `file`; `owner`, `start`, `end`, `kind`, `pid`; `flock`. Answered by `lock`.

        `wait` names the call for `cancel`; `posix`: it is a process that waits, so that others who wait for it are a deadlock.
        """
        wanted = Range(args["start"], args["end"], args["kind"], args.get("pid", 0))
        held = self._find(args) or self._new(args)
        if wanted.start == wanted.end == WAL and wanted.kind != NONE:
            self._refuse_wal(held.fd, self._in_the_way(held.fd, held.owner, wanted._replace(kind=WRITE)))
        if wanted.kind == WRITE and not (held.writable or args.get("flock")):
            self._widen(held, args)
        code = _set(held.fd, wanted, flock=bool(args.get("flock")))
        if code != errno.EAGAIN or "wait" not in args:
            self._answer(call, held, wanted, code, args)
            return
        if args.get("posix") and self._deadlock(held, wanted):
            self._answer(call, held, wanted, errno.EDEADLK, args)
        elif len(self._waits) >= MAX_WAITING:
            self._answer(call, held, wanted, errno.ENOLCK, args)
        else:
            self._wait(call, held, wanted, args)

    def _refuse_wal(self, fd: int, found: Range) -> None:
        """What SQLite's write-ahead log has in memory that is mapped shared, processes of both sides can't share."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not path.endswith("-shm") or found.kind == NONE or found.pid:
            return
        if path not in self._warned:
            self._warned.add(path)
            text = "is in use at the target in WAL mode, whose users share memory: it can't be opened from here"
            self._links.control.event("warning", {"text": f"the database {path[:-4]} {text}"})
        raise OSError(errno.ENOLCK, "its users share memory")

    def _wait(self, call: int, held: _Held, wanted: Range, args: Args) -> None:
        name = args["wait"]

        def done(code: int) -> None:
            held.waits.discard(self._waits.pop(name))
            if held.dropped:  # it was closed meanwhile
                code = code or errno.EBADF
                self._drop(held)
            self._answer(call, held, wanted, code, args)

        flock = bool(args.get("flock"))
        try:
            wait = _Wait(
                self._loop, held, wanted if args.get("posix") else None, lambda: _set(held.fd, wanted, flock=flock, wait=True), done
            )
        except RuntimeError:  # no thread can be had
            self._answer(call, held, wanted, errno.ENOLCK, args)
            return
        self._waits[name] = wait
        held.waits.add(wait)

    def _answer(self, call: int, held: _Held, wanted: Range, code: int, args: Args) -> None:
        if code:
            self._links.control.fail(call, code, os.strerror(code))
            return
        if not args.get("flock"):
            held.ranges = replace(held.ranges, wanted)
        self._links.control.reply(call, {"lock": held.number}, b"")

    def getlk(self, args: Args) -> Args:
        """`{kind, start, end, pid}` of a lock that is in the way, or of kind NONE; pid 0 is a process of this side."""
        held = self._find(args)
        wanted = Range(args["start"], args["end"], args["kind"])
        if held or "handle" in args:
            fd = held.fd if held else self._files.fd(args["handle"])
            found = self._in_the_way(fd, args["owner"], wanted)
            if wanted.start == wanted.end == WAL:  # SQLite asks, before it takes any lock
                self._refuse_wal(fd, found)
            return found._asdict()
        fd = self._by_path(args)
        try:
            return self._in_the_way(fd, args["owner"], wanted)._asdict()
        finally:
            os.close(fd)

    def _in_the_way(self, fd: int, owner: int, wanted: Range) -> Range:
        found = _get(fd, wanted)
        if found.kind == NONE:
            return found
        ours = [each for each, _ in self._others(_file(fd), owner, found._replace(kind=WRITE))] if found.pid < 0 else []
        ours.sort(key=lambda each: each[:3] != found[:3])
        return found._replace(pid=ours[0].pid if ours else 0)

    def unlock(self, args: Args) -> None:
        """All that an owner has of a file."""
        held = self._held.get(args["lock"])
        if held is None:
            return
        if self._of.get((held.file, held.owner)) is held:
            del self._of[held.file, held.owner]
        held.dropped = True
        self._drop(held)

    def cancel(self, args: Args) -> None:
        if args["wait"] in self._waits:
            self._waits[args["wait"]].cancel()

    # -- what is held --

    def _find(self, args: Args) -> Optional[_Held]:
        if "lock" in args:
            held = self._held.get(args["lock"])
            if held is None:
                raise OSError(errno.EBADF, "no such lock")
            return held
        file = _file(self._files.fd(args["handle"])) if "handle" in args else tuple(args["file"])
        return self._of.get((file, args["owner"]))

    def _new(self, args: Args) -> _Held:
        writes, own = False, True
        if "handle" in args:
            given = self._files.fd(args["handle"])
            access = fcntl.fcntl(given, fcntl.F_GETFL) & os.O_ACCMODE
            try:
                # For reading and writing where the program may write: its other descriptors of the file have the same locks.
                wish = os.O_RDONLY if access == os.O_RDONLY else os.O_RDWR
                fd, writes = os.open(f"/proc/self/fd/{given}", wish | os.O_CLOEXEC | os.O_NONBLOCK), wish == os.O_RDWR
            except OSError:  # it may do more than we could ask for now, as who made the file may
                fd, own, writes = os.dup(given), False, access != os.O_RDONLY
        else:
            fd = self._by_path(args)
        held = _Held(self._next, _file(fd), args["owner"], fd, writes, own)
        self._next += 1
        self._held[held.number] = self._of[held.file, held.owner] = held
        return held

    def _widen(self, held: _Held, args: Args) -> None:
        """It was opened for reading, and the program has it open for writing too: what it holds are locks that others may share."""
        if held.waits or "handle" not in args:
            return
        try:
            fd = os.open(f"/proc/self/fd/{held.fd}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            fd = os.dup(self._files.fd(args["handle"]))
            held.own = False
        for each in held.ranges:
            _set(fd, each, flock=False)
        os.close(held.fd)
        held.fd, held.writable = fd, True

    def _by_path(self, args: Args) -> int:
        probe = self._files.find(args["path"])
        try:
            info = os.fstat(probe)
            if (info.st_dev, info.st_ino) != tuple(args["file"]) or not stat.S_ISREG(info.st_mode):
                raise OSError(errno.ESTALE, "another file has this name by now")
            return os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            os.close(probe)

    def _drop(self, held: _Held) -> None:
        if held.waits or not held.own:  # else it ends with its open file description
            held.ranges = []
            for flock in (False, True):
                _set(held.fd, Range(0, EOF, NONE), flock=flock)
        if held.waits:
            return
        os.close(held.fd)
        del self._held[held.number]

    # -- who waits for whom --

    def _others(self, file: File, owner: int, wanted: Range) -> Iterator[Tuple[Range, int]]:
        for held in self._held.values():
            if held.file == file and held.owner != owner:
                for each in held.ranges:
                    if each.conflicts(wanted):
                        yield each, held.owner

    def _deadlock(self, held: _Held, wanted: Range) -> bool:
        """Would this owner wait for itself? As the kernel finds it among processes (posix_locks_deadlock in fs/locks.c)."""
        seen: Set[int] = set()
        todo = [(held, wanted)]
        while todo:
            waiting, for_what = todo.pop()
            for _range, owner in self._others(waiting.file, waiting.owner, for_what):
                if owner == held.owner:
                    return True
                if owner not in seen:
                    seen.add(owner)
                    waits = [wait for wait in self._waits.values() if wait.held.owner == owner]
                    todo += [(wait.held, wait.wanted) for wait in waits if wait.wanted]
        return False


def _file(fd: int) -> File:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _pack(wanted: Range) -> Any:
    length = 0 if wanted.end >= EOF else wanted.end - wanted.start + 1
    return ctypes.create_string_buffer(_FLOCK.pack(wanted.kind, os.SEEK_SET, wanted.start, length, 0), _FLOCK.size)


def _set(fd: int, wanted: Range, *, flock: bool, wait: bool = False) -> int:
    """The errno, 0 for success. By libc's own calls: Python's don't end at a signal in a thread."""
    if flock:
        failed = _libc.flock(fd, _FLOCKS[wanted.kind] | (0 if wait else fcntl.LOCK_NB))
    else:
        failed = _libc.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _pack(wanted))
    return ctypes.get_errno() if failed else 0


def _get(fd: int, wanted: Range) -> Range:
    data = _pack(wanted)
    if _libc.fcntl(fd, fcntl.F_OFD_GETLK, data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    kind, _whence, start, length, pid = _FLOCK.unpack(data.raw)
    return Range(start, start + length - 1 if length else EOF, kind, pid)
