"""Serves the target's files to the kernel: every remote open is a node of its own below the root of a detached mount.

A node's name is a number that is never used again, so the kernel's caches can't be stale. `open` asks the agent once and gets the
metadata and the first 128 KiB; when the kernel opens the node, these bytes are put in the page cache, so that a small file is read
without asking anybody. This is safe then and only then: nobody else knows the node, so nobody holds a lock on its pages.
Names below a remote directory resolve too: a program may fchdir(2) into one.

Attributes are looked up again after a second, so that a file that grows is seen to grow. When the link is gone, it answers every
call with EIO, and so do we.
"""

from __future__ import annotations

import errno as e
import os
import select
import stat as st
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidestage.session.fusedirs import Directories
from sidestage.session.fuselocks import Locks
from sidestage.session.fusenode import ROOT_STAT, Done, Node, Then, refusal
from sidestage.session.fusewrites import Writes
from sidestage.session.readahead import Budget, ReadAhead
from sidestage.views import fuse, fusechange
from sidestage.views.fuse import Op, Request

if TYPE_CHECKING:
    from sidestage.session.recent import Recent
    from sidestage.stream.links import Links
    from sidestage.stream.loop import Loop

UNCLAIMED = 60.0  # seconds until a node that nobody opened is dropped; trap may have died or been interrupted in between
ATTR_SECONDS = 1
_UNANSWERED = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})
_RELEASES = frozenset({Op.RELEASE, Op.RELEASEDIR})


class FuseFiles:
    def __init__(self, loop: Loop, links: Links | Recent, fuse_fd: int, *, writable: bool = False) -> None:
        self._loop, self._links, self._fd, self._writable = loop, links, fuse_fd, writable
        self._writes, self._locks = Writes(self, links), Locks(loop, self, links)
        self._shared = self._writes.serve | self._locks.serve  # what is served where anything may be written
        self._room = fuse.MAX_REQUEST + (fuse.MAX_WRITE if writable else 0)
        self.nodes: dict[int, Node] = {fuse.ROOT: Node("", ROOT_STAT)}
        self._last = fuse.ROOT
        self._unclaimed: dict[int, float] = {}  # in order of time
        self._pending: set[int] = set()  # requests whose answer is still to come
        self._firm: set[int] = set()  # those of them that can't be interrupted
        self._budget = Budget()
        self._directories = Directories(self, links)
        self._serve: dict[int, Callable[[Request], None]] = {
            Op.INIT: self._init, Op.LOOKUP: self._lookup, Op.GETATTR: self._getattr, Op.READLINK: self._readlink,
            Op.OPEN: self._open_node, Op.OPENDIR: self._open_node, Op.READ: self._read, Op.READDIR: self._directories.read,
            Op.RELEASE: self._release, Op.RELEASEDIR: self._release, Op.STATFS: self._statfs,
            Op.FORGET: self._forget, Op.BATCH_FORGET: self._forget, Op.INTERRUPT: self._interrupt,
        }  # fmt: skip
        loop.watch(fuse_fd, select.EPOLLIN, self._readable)

    def open(self, path: str, flags: int, done: Done, mode: int = 0, *, writable: bool = False) -> None:
        """done({"node", "directory", "stat"}, errno); the node is to be opened below the root of the mount.

        `writable`: the program may change the file, now or by another open.
        """
        if writable and self._writable:
            self._drop_unclaimed()
            self._writes.open(path, flags, mode, done)
            return

        def opened(errno: int, node: Node) -> None:
            if not errno:
                errno = refusal(node.stat[2], flags)
            if errno:
                self._close_handle(node)
                done({}, errno)
                return
            if flags & os.O_PATH:
                self._close_handle(node)
            self._drop_unclaimed()
            number = self.add(node)
            self.await_claim(number)
            done({"node": str(number), "directory": st.S_ISDIR(node.stat[2]), "stat": node.stat}, 0)

        node = Node(path, ROOT_STAT)
        self.ask(node, lambda errno: opened(errno, node), follow=not flags & os.O_NOFOLLOW)

    # -- nodes --

    def new_number(self) -> int:
        self._last += 1
        return self._last

    def add(self, node: Node) -> int:
        number = self.new_number()
        self.nodes[number] = node
        return number

    def await_claim(self, number: int) -> None:
        self._unclaimed[number] = time.monotonic() + UNCLAIMED

    def claimed(self, number: int) -> None:
        self._unclaimed.pop(number, None)

    def touched(self, stats: list[list[int]]) -> None:
        """What the agent says that a call by path has changed."""
        self._writes.touched(stats)

    def changed(self, paths: set[str]) -> None:
        """Somebody saw these change: what the kernel knows of their attributes is old. Few files are open, and few are watched."""
        for number, node in self.nodes.items():
            if node.path in paths:
                self.invalidate(number)

    def subject(self, name: int) -> dict[str, Any]:
        """How the agent is told of a file that trap has opened by this name."""
        return self._writes.subject(name)

    def drop(self, number: int) -> None:
        self._unclaimed.pop(number, None)
        if number != fuse.ROOT and (node := self.nodes.pop(number, None)):
            self._close_handle(node)

    def _drop_unclaimed(self) -> None:
        now = time.monotonic()
        while self._unclaimed and self._unclaimed[first := next(iter(self._unclaimed))] < now:
            if not self._writes.expired(first):
                self.drop(first)
            self._unclaimed.pop(first, None)

    def _close_handle(self, node: Node) -> None:
        if node.reader:
            node.reader.forget()
        if node.handle:
            self._links.call("close", {"handle": node.handle}, lambda *_: None)
        node.handle, node.reader, node.first, node.entries = 0, None, None, None

    def agent_changed(self) -> None:
        """Another agent knows nothing of the handles: files are opened again when they are read, if they are still the same."""
        for node in self.nodes.values():
            if node.handle and not node.shared:  # what is written may not be done twice: those are lost
                if node.reader:
                    node.reader.forget()
                node.handle, node.reader, node.first, node.entries = 0, None, None, None

    def ask(self, node: Node, then: Then, follow: bool = True) -> None:
        """The agent opens the file (again): fills the node."""
        node.waiting.append(then)
        if len(node.waiting) > 1:
            return

        def opened(result: dict[str, Any], raw: bytes, errno: int) -> None:
            known, node.handle = node.stat[:2], result.get("handle", 0)
            if not errno and known not in (ROOT_STAT[:2], tuple(result["stat"][:2])):
                self._close_handle(node)  # another file has this name by now
                errno = e.ESTALE
            elif not errno:
                node.stat, node.first = tuple(result["stat"]), raw
                if st.S_ISREG(node.stat[2]):
                    self._opened_file(node, whole=bool(result["eof"]))
            waiting, node.waiting = node.waiting, []
            for callback in waiting:
                callback(errno)

        self._links.call("open", {"path": node.path, "follow": follow}, opened)

    def _opened_file(self, node: Node, whole: bool) -> None:
        first = node.first or b""
        if whole:
            node.stat = (*node.stat[:7], len(first), *node.stat[8:])  # it may have grown since; /proc says 0
        else:
            node.streamed = node.stat[7] <= len(first)
            node.reader = self.reader(node, len(first))

    def reader(self, node: Node, start: int) -> ReadAhead:
        def fetch(offset: int, size: int, done: Callable[[bytes, int], None]) -> None:
            args = {"handle": node.handle, "offset": offset, "size": size}
            self._links.call("read", args, lambda _result, raw, errno: done(raw, errno))

        def size() -> int:
            return 1 << 62 if node.streamed else max(node.stat[7], node.reach) if node.writable else node.stat[7]

        return ReadAhead(fetch, size, start, self._budget)

    # -- requests of the kernel --

    def _readable(self, _: int) -> None:
        """One request a turn: they come one by one mostly, and to ask for a second would cost more than to be called again."""
        try:
            request = fuse.parse(os.read(self._fd, self._room))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (e.ENOENT, e.EINTR):  # the request was taken back meanwhile (fs/fuse/dev.c)
                self._loop.unwatch(self._fd)  # ENODEV: unmounted, nobody is left to serve
            return
        handler = self._serve.get(request.op)
        if handler is None and self._writable and request.op in self._shared and request.node in self.nodes:
            self._pending.add(request.unique)
            self._shared[request.op](request, self.nodes[request.node])
        elif handler is None:
            self.answer(request.unique, errno=e.EROFS if request.op in fuse.CHANGES else e.ENOSYS)
        elif request.op in _UNANSWERED:
            handler(request)
        elif request.node and request.node not in self.nodes and request.op not in _RELEASES:
            self.answer(request.unique, errno=e.ESTALE)
        else:
            self._pending.add(request.unique)
            handler(request)

    def answer(self, unique: int, *parts: fuse.Buffer, errno: int = 0) -> None:
        self._pending.discard(unique)
        self._firm.discard(unique)
        self._write(fuse.error(unique, errno) if errno else fuse.reply(unique, *parts))

    def late(self, unique: int, *parts: fuse.Buffer, errno: int = 0) -> None:
        """An answer that the link brought: the program may have been interrupted meanwhile."""
        if unique in self._pending:
            self.answer(unique, *parts, errno=errno)

    def is_pending(self, unique: int) -> bool:
        return unique in self._pending

    def keep_going(self, unique: int) -> None:
        """This request is not interrupted: what it changes may be done already."""
        self._firm.add(unique)

    def store(self, number: int, data: bytes) -> None:
        self._write(fuse.store(number, 0, data))

    def invalidate(self, number: int) -> None:
        self._write(fuse.invalidate(number))

    def drop_pages(self, number: int) -> None:
        """Called in a thread (fuse.drop_pages)."""
        self._write(fuse.drop_pages(number))

    def attributes(self, node: Node) -> bytes:
        return fuse.attr_out(node.stat, ATTR_SECONDS)

    def _write(self, parts: list[fuse.Buffer]) -> None:
        try:
            os.writev(self._fd, parts)
        except OSError as error:
            if error.errno not in (e.ENOENT, e.ENODEV):  # the request, or the mount, is gone
                raise

    def _init(self, request: Request) -> None:
        self.answer(request.unique, fuse.init(request.body, writable=self._writable))

    def _lookup(self, request: Request) -> None:
        name = fuse.name(request.body)
        if request.node != fuse.ROOT:
            self._lookup_below(request, self.nodes[request.node], os.fsdecode(name))
            return
        number = int(name) if name.isdigit() else 0
        if number not in self._unclaimed:
            self.answer(request.unique, errno=e.ENOENT)
            return
        number = self._writes.looked_up(number)
        node = self.nodes[number]
        # Of a file that is open already, the kernel may know more by now than we knew when this was asked.
        self.answer(request.unique, fuse.entry(number, node.stat, 0, 0 if node.shared and node.opened else ATTR_SECONDS))

    def _lookup_below(self, request: Request, parent: Node, name: str) -> None:
        path = f"{parent.path.rstrip('/')}/{name}"

        def found(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            if errno or request.unique not in self._pending:
                self.late(request.unique, errno=errno)
                return
            node = Node(path, tuple(result["stat"]))
            self.answer(request.unique, fuse.entry(self.add(node), node.stat, ATTR_SECONDS, ATTR_SECONDS))

        # Links are followed by the agent: here, their targets would be looked up on this machine.
        self._links.call("stat", {"path": path, "follow": True}, found)

    def _getattr(self, request: Request) -> None:
        node = self.nodes[request.node]
        if request.node == fuse.ROOT:
            self.answer(request.unique, fuse.attr_out(node.stat, 1 << 30))
            return
        if node.shared:
            self._writes.getattr(request, node)
            return

        def found(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            new = result.get("stat", ())
            if not errno and tuple(new[:2]) == tuple(node.stat[:2]) and not node.streamed and new[7] != node.stat[7]:
                self._close_handle(node)  # the next read opens anew, and sees what was appended
                node.stat = tuple(new)
            self.late(request.unique, fuse.attr_out(node.stat, ATTR_SECONDS))  # replaced or deleted: as it was

        self._links.call("stat", {"path": node.path, "follow": not st.S_ISLNK(node.stat[2])}, found)

    def _readlink(self, request: Request) -> None:
        def found(_result: dict[str, Any], raw: bytes, errno: int) -> None:
            self.late(request.unique, raw, errno=errno)

        self._links.call("readlink", {"path": self.nodes[request.node].path}, found)

    def _open_node(self, request: Request) -> None:
        node = self.nodes[request.node]
        if node.shared:
            self._writes.opened(request, node)
            return
        if fusechange.open_flags(request.body) & os.O_ACCMODE:
            self.answer(request.unique, errno=e.EROFS)
            return

        def ready(errno: int) -> None:
            if errno or request.unique not in self._pending:
                self.late(request.unique, errno=errno)
                return
            self._unclaimed.pop(request.node, None)
            if node.first and not node.opened and not node.streamed:
                self._write(fuse.store(request.node, 0, node.first))
                node.first = b""
            node.opened += 1
            flags = fuse.DIRECT_IO if node.streamed else fuse.KEEP_CACHE
            self.answer(request.unique, fuse.open_out(flags if self._writable else flags | fuse.NOFLUSH))

        if node.first is None:
            self.ask(node, ready)
        else:
            ready(0)

    def _release(self, request: Request) -> None:
        self.answer(request.unique)
        node = self.nodes.get(request.node)
        if node and node.shared:
            self._locks.released(node, fuse.handle(request.body))
            self._writes.released(request, node)
        elif node:
            node.opened -= 1
            if node.opened <= 0:
                self._locks.released(node, 0)
            if node.opened <= 0 and st.S_ISDIR(node.stat[2]):
                self._close_handle(node)  # but it may still be a working directory
            elif node.opened <= 0:
                self.drop(request.node)  # not at FORGET: the kernel keeps its cache until it needs the memory

    def _read(self, request: Request) -> None:
        node = self.nodes[request.node]
        offset, size = fuse.reading(request.body)
        node.reach = offset + size

        def answer(parts: list[fuse.Buffer], errno: int) -> None:
            self.late(request.unique, *parts, errno=errno)

        def ready(errno: int) -> None:
            first = node.first or b""
            if errno:
                self.late(request.unique, errno=errno)
            elif offset < len(first) and (offset + size <= len(first) or node.reader is None):
                answer([memoryview(first)[offset : offset + size]], 0)
            elif node.reader:
                node.reader.read(offset, size, answer)
            else:
                answer([], 0)

        if node.handle or (node.first and node.reader is None):
            ready(0)
        else:
            self.ask(node, ready)  # evicted from the page cache, or changed at the target

    def _statfs(self, request: Request) -> None:
        def found(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            self.late(request.unique, *([] if errno else [fuse.statfs(result["statfs"])]), errno=errno)

        self._links.call("statfs", {"path": self.nodes[request.node].path or "/"}, found)

    def _forget(self, request: Request) -> None:
        for number in fuse.forgotten(request):
            self.drop(number)

    def _interrupt(self, request: Request) -> None:
        unique = fuse.interrupted(request.body)
        if unique in self._firm:
            self._locks.interrupt(unique)
        elif unique in self._pending:
            self.answer(unique, errno=e.EINTR)
