"""Working directories that are the target's, where its files may be changed.

Nobody can change the working directory of another process, so the kernel's stays as it is, and we remember what the program asked
for: relative paths are resolved against it, getcwd(2) tells it. A child inherits it as of its birth: it is settled when the parent
is about to change, or when the child is first asked about. Where nobody has such a directory, nothing is looked up.
"""

from __future__ import annotations

import contextlib
import errno as e
import os
import stat as st
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidestage.trap.paths import Paths
    from sidestage.trap.supervisor import Call

MAX = 4096  # processes remembered before the dead are forgotten
MAX_DEPTH = 64  # parents asked
AT_FDCWD = -100

_Key = tuple[int, int]  # process and its start, since numbers are used again


class WorkingDirectories:
    def __init__(self) -> None:
        self._of: dict[_Key, str] = {}  # "": the kernel's own

    def get(self, tid: int) -> str:
        """Empty: the kernel's own."""
        return self._get(tid, MAX_DEPTH) if self._of else ""

    def _get(self, tid: int, depth: int) -> str:
        try:
            key, parent = _identify(tid)
        except (OSError, ValueError):
            return ""  # gone
        if key not in self._of:
            inherited = self._get(parent, depth - 1) if depth and parent > 1 and parent != os.getpid() else ""
            self._of[key] = inherited
        return self._of[key]

    def set(self, tid: int, path: str) -> None:
        if not path and not self._of:
            return
        key, _ = _identify(tid)
        self.get(tid)
        for child in _children(key[0]):
            self._get(child, MAX_DEPTH)
        if len(self._of) >= MAX:
            self._of = {known: where for known, where in self._of.items() if os.path.exists(f"/proc/{known[0]}")}
        self._of[key] = path


def _identify(tid: int) -> tuple[_Key, int]:
    """The process of a thread, and its parent."""
    fields: dict[bytes, int] = {}
    with open(f"/proc/{tid}/status", "rb") as status:
        for line in status:
            if line.startswith((b"Tgid:", b"PPid:")):
                fields[line[:4]] = int(line.split()[1])
                if len(fields) == 2:
                    break
    with open(f"/proc/{fields[b'Tgid']}/stat", "rb") as stat:
        start = int(stat.read().rpartition(b")")[2].split()[19])  # starttime, proc_pid_stat(5)
    return (fields[b"Tgid"], start), fields[b"PPid"]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as children:
                found += map(int, children.read().split())
    return found


def install(paths: Paths) -> None:
    """The calls about the working directory itself."""
    sup = paths.sup
    sup.on("chdir", lambda c: _chdir(paths, c))
    sup.on("fchdir", lambda c: _fchdir(paths, c))
    sup.on("getcwd", lambda c: _getcwd(paths, c))


def _chdir(paths: Paths, call: Call) -> None:
    place = paths.where(call, AT_FDCWD, call.args[0])
    if isinstance(place, int) and place:
        call.fail(place)
        return
    if isinstance(place, int) or not place.remote or paths.root < 0:
        with contextlib.suppress(OSError):
            path = os.fsdecode(call.string(call.args[0]))
            if path.startswith("/") and os.path.isdir(f"/proc/{call.tid}/root{path}"):
                paths.cwds.set(call.tid, "")
        call.cont()
        return

    def found(result: dict[str, Any], errno: int, _fds: list[int]) -> None:
        if errno or not st.S_ISDIR(result["stat"][2]):
            call.fail(errno or e.ENOTDIR)
            return
        paths.cwds.set(call.tid, result["real"])
        call.ret()

    paths.sup.broker.request("realpath", {"path": place.path}, found)


def _fchdir(paths: Paths, call: Call) -> None:
    """A directory of ours is as good as any other for the kernel."""
    with contextlib.suppress(OSError):
        if os.path.isdir(f"/proc/{call.tid}/fd/{call.args[0] & 0xFFFFFFFF}"):
            paths.cwds.set(call.tid, "")
    call.cont()


def _getcwd(paths: Paths, call: Call) -> None:
    path = paths.directory(call.tid, AT_FDCWD)
    if path is None:
        call.cont()
        return
    data = os.fsencode(path) + b"\0"
    if len(data) > call.args[1]:
        call.fail(e.ERANGE)
        return
    call.write(call.args[0], data)
    call.ret(len(data))
