"""Locks on files that may be written are the target's: the kernel here asks for each, and the agent takes it (agent/locks.py).

Who gets a lock sees what others wrote before they let go of theirs: the pages of the file that are here are dropped then, as NFS
does it. And before a lock for writing ends, what was written by shared mappings goes to the target. Dropping pages waits for
requests that we answer, so it is done in a thread.

The kernel says when a process closes a file (FLUSH): its locks end. Those of an open file description end with it (RELEASE).
"""

from __future__ import annotations

import errno as e
import fcntl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidestage.session.fusenode import Node
from sidestage.views import fuselock
from sidestage.views.fuse import Op, Request

if TYPE_CHECKING:
    from sidestage.session.fusefs import FuseFiles
    from sidestage.session.recent import Recent
    from sidestage.stream.links import Links
    from sidestage.stream.loop import Loop


class Owned:
    """The locks that one owner has of a file."""

    def __init__(self) -> None:
        self.number = 0  # the agent's
        self.handles: set[int] = set()  # by which they were taken
        self.writes = False


class Locks:
    def __init__(self, loop: Loop, files: FuseFiles, links: Links | Recent) -> None:
        self._loop, self._files, self._links = loop, files, links
        self._waiting: set[int] = set()  # requests that the agent has not answered
        self.serve: dict[int, Callable[[Request, Node], None]] = {
            Op.GETLK: self._get, Op.SETLK: self._set, Op.SETLKW: self._set, Op.FLUSH: self._flush,
        }  # fmt: skip

    def _set(self, request: Request, node: Node) -> None:
        self._files.keep_going(request.unique)
        lock = fuselock.lock(request.body)
        if lock.kind == fcntl.F_UNLCK and lock.owner not in node.locks:
            self._files.answer(request.unique)
            return
        owned = node.locks.setdefault(lock.owner, Owned())
        owned.handles.add(lock.handle)
        if owned.writes and lock.kind != fcntl.F_WRLCK:
            self._drop_pages(request.node, node, lambda: self._ask(request, node, lock, owned))
        else:
            self._ask(request, node, lock, owned)

    def _ask(self, request: Request, node: Node, lock: fuselock.Lock, owned: Owned) -> None:
        args = self._args(request, node, lock)
        if request.op == Op.SETLKW:
            args |= {"wait": request.unique, "posix": not lock.flock and _is_process(request.task)}
            self._waiting.add(request.unique)

        def done(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            self._waiting.discard(request.unique)
            if errno:
                self._files.answer(request.unique, errno=_of_lock(errno))
                return
            owned.number = result["lock"]
            if node.locks.get(lock.owner) is not owned:  # it was closed meanwhile: fs/locks.c looks at that too
                self._unlock(owned, lambda: self._files.answer(request.unique, errno=e.EBADF))
                return
            owned.writes |= lock.kind == fcntl.F_WRLCK
            if lock.kind == fcntl.F_UNLCK:
                self._files.answer(request.unique)
            else:
                self._drop_pages(request.node, node, lambda: self._files.answer(request.unique))

        self._links.call("lock", args, done)

    def _get(self, request: Request, node: Node) -> None:
        def found(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            self._files.late(request.unique, *([] if errno else [fuselock.found(**result)]), errno=_of_lock(errno))

        self._links.call("getlk", self._args(request, node, fuselock.lock(request.body)), found)

    def _args(self, request: Request, node: Node, lock: fuselock.Lock) -> dict[str, Any]:
        args: dict[str, Any] = {key: getattr(lock, key) for key in ("owner", "start", "end", "kind", "pid", "flock")}
        owned = node.locks.get(lock.owner)
        if owned and owned.number:
            args["lock"] = owned.number
        if lock.handle in node.handles:
            return {**args, "handle": lock.handle}
        subject = self._files.subject(request.node)
        return {**args, **subject, "file": node.stat[:2]}

    def _drop_pages(self, number: int, node: Node, then: Callable[[], None]) -> None:
        if node.reader:
            node.reader.forget()
        node.first = b""
        self._loop.offload(lambda: self._files.drop_pages(number), lambda _result, _error: then())

    def interrupt(self, unique: int) -> None:
        """A signal to who waits: the agent answers EINTR, or that it has got the lock just now."""
        if unique in self._waiting:
            self._links.call("cancel", {"wait": unique}, lambda *_: None)

    # -- ends --

    def _flush(self, request: Request, node: Node) -> None:
        """A process closes a descriptor: all its locks of the file end, whichever it took them by (fcntl(2))."""
        self._files.keep_going(request.unique)
        owned = node.locks.pop(fuselock.flushed(request.body)[1], None)
        self._unlock(owned, lambda: self._files.answer(request.unique))

    def released(self, node: Node, handle: int) -> None:
        """An open file description has ended."""
        for owner in [owner for owner, owned in node.locks.items() if handle in owned.handles]:
            self._unlock(node.locks.pop(owner), lambda: None)

    def _unlock(self, owned: Owned | None, then: Callable[[], None]) -> None:
        if owned and owned.number:
            self._links.call("unlock", {"lock": owned.number}, lambda *_: then())
        else:
            then()


def _is_process(task: int) -> bool:
    try:
        with open(f"/proc/{task}/syscall") as file:
            return fuselock.of_process(file.read())
    except OSError:
        return True


def _of_lock(errno: int) -> int:
    """The program's descriptor is good; a lock or handle that isn't was another agent's, and is lost."""
    return e.EIO if errno == e.EBADF else errno
