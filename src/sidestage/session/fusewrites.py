"""Files that may be written: one node for all opens of a file, so that its pages, its mappings and its locks are one thing here.

Writes go through to the target before they return (FUSE's write-through): the page cache holds what is there, and a change that
somebody makes at the target is seen when attributes are asked again, after a second at most. Who opens with O_APPEND goes past
the cache, since only the target knows the end of the file. Each open is a handle of its own at the agent, with the flags that it
had here; trap opens it by a *claim*, a name that leads to the node and to that handle.
"""

from __future__ import annotations

import errno as e
import os
import stat as st
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sidestage.session.fusenode import Done, Node
from sidestage.views import fuse, fusechange
from sidestage.views.fuse import Op, Request

if TYPE_CHECKING:
    from sidestage.session.fusefs import FuseFiles
    from sidestage.session.recent import Recent
    from sidestage.stream.links import Links

_KEY = os.O_ACCMODE | os.O_APPEND  # what tells one handle from another
_SIZE, _MTIME = 7, 11  # places in a stat


class _Claim(NamedTuple):
    number: int
    key: int
    handle: int


class Writes:
    def __init__(self, files: FuseFiles, links: Links | Recent) -> None:
        self._files, self._links = files, links
        self._known: dict[tuple[int, int], int] = {}  # (device, inode) at the target -> node
        self._claims: dict[int, _Claim] = {}
        self._names: dict[int, int] = {}  # of claims, also when they are open -> node
        self._looked: set[int] = set()  # claims that trap is just opening
        self.serve: dict[int, Callable[[Request, Node], None]] = {
            Op.WRITE: self._write, Op.SETATTR: self._setattr, Op.FSYNC: self._sync, Op.FSYNCDIR: self._sync,
            Op.FALLOCATE: self._allocate, Op.LSEEK: self._seek, Op.SETXATTR: self._setxattr, Op.REMOVEXATTR: self._removexattr,
            Op.GETXATTR: self._getxattr, Op.LISTXATTR: self._listxattr,
        }  # fmt: skip

    # -- opens --

    def open(self, path: str, flags: int, mode: int, done: Done) -> None:
        """As FuseFiles.open; the answer has `created` too."""

        def opened(result: dict[str, Any], raw: bytes, errno: int) -> None:
            if errno:
                done({}, errno)
                return
            stat, handle = tuple(result["stat"]), result["handle"]
            if st.S_ISDIR(stat[2]):
                node = Node(path, stat, writable=True)
                node.handle, node.first = handle, b""
                name = self._files.add(node)
            else:
                name = self._claim(path, stat, handle, flags & _KEY, raw)
            self._files.await_claim(name)
            done({"node": str(name), "directory": st.S_ISDIR(stat[2]), "stat": stat, "created": result["created"]}, 0)

        self._links.call("create", {"path": path, "flags": flags, "mode": mode, "first": True}, opened)

    def _claim(self, path: str, stat: tuple[int, ...], handle: int, key: int, first: bytes) -> int:
        identity = (stat[0], stat[1])  # nobody else gets it while we have the file open
        number = self._known.get(identity, 0)
        if number in self._files.nodes:
            node = self._files.nodes[number]
            self._saw(node, stat)
        else:
            node = Node(path, stat, writable=True)
            node.first, node.streamed = bytes(first), len(first) > stat[_SIZE]
            node.reader = self._files.reader(node, len(first))
            number = self._known[identity] = self._files.add(node)
        name = self._files.new_number()
        self._claims[name] = _Claim(number, key, handle)
        node.claims.append(name)
        node.names.append(name)
        self._names[name] = number
        return name

    def looked_up(self, name: int) -> int:
        """The node of a claim; of anything else, itself."""
        if name not in self._claims:
            return name
        self._looked.add(name)
        return self._claims[name].number

    def expired(self, name: int) -> bool:
        """Trap never came; False: it was no claim."""
        if name not in self._claims:
            return False
        claim = self._take(name)
        self._close(claim.handle)
        self._drop_unused(claim.number)
        return True

    def _take(self, name: int) -> _Claim:
        claim = self._claims.pop(name)
        self._looked.discard(name)
        self._files.nodes[claim.number].claims.remove(name)
        return claim

    def opened(self, request: Request, node: Node) -> None:
        """The kernel opens a shared node: trap by a claim, the program by /proc/self/fd."""
        key = fusechange.open_flags(request.body) & _KEY
        for name in node.claims:
            if name in self._looked and self._claims[name].key == key:
                self._files.claimed(name)
                self._hold(request, node, key, self._take(name).handle)
                return

        def again(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            if errno:
                self._files.late(request.unique, errno=errno)
            elif not self._files.is_pending(request.unique):
                self._close(result["handle"])
            else:
                self._hold(request, node, key, result["handle"])

        self._links.call("reopen", {"handle": self._any(node), "flags": key}, again)

    def _hold(self, request: Request, node: Node, key: int, handle: int) -> None:
        node.handles[handle] = key
        if key & os.O_ACCMODE != os.O_WRONLY and not node.handle:
            node.handle = handle
        first, node.first = node.first, b""
        if first and not node.opened and not node.streamed:
            self._files.store(request.node, first)
        node.opened += 1
        past_cache = node.streamed or key & os.O_APPEND
        flags = fuse.DIRECT_IO if past_cache else fuse.KEEP_CACHE  # AUTO_INVAL_DATA drops what has changed
        self._files.answer(request.unique, fuse.open_out(flags, handle))

    def released(self, request: Request, node: Node) -> None:
        handle = fuse.handle(request.body)
        node.opened -= 1
        if node.handles.pop(handle, None) is not None:
            self._close(handle)
        if node.handle == handle:
            readable = (other for other, key in node.handles.items() if key & os.O_ACCMODE != os.O_WRONLY)
            node.handle = next(readable, 0)
            if node.reader:
                node.reader.forget()
        self._drop_unused(request.node)

    def _drop_unused(self, number: int) -> None:
        node = self._files.nodes.get(number)
        if node and node.opened <= 0 and not node.claims:
            self._known.pop((node.stat[0], node.stat[1]), None)
            for name in node.names:
                del self._names[name]
            self._files.drop(number)

    def _close(self, handle: int) -> None:
        self._links.call("close", {"handle": handle}, lambda *_: None)

    def _any(self, node: Node) -> int:
        """Some handle of the file; 0: there is none."""
        return node.handle or next(iter(node.handles), 0) or (self._claims[node.claims[0]].handle if node.claims else 0)

    def subject(self, name: int) -> dict[str, Any]:
        """How the agent is told of an open file, by its number or a claim; by its path where it isn't open any more."""
        node = self._files.nodes.get(self._names.get(name, name))
        if node is None:
            raise OSError(e.ESTALE, "not open any more")
        handle = self._any(node)
        return {"handle": handle} if handle else {"path": node.path, "follow": True}

    # -- what changes --

    def touched(self, stats: list[list[int]]) -> None:
        """Files were changed by their path: the kernel asks for their attributes again."""
        for stat in stats:
            number = self._known.get((stat[0], stat[1]), 0)
            node = self._files.nodes.get(number)
            if node:
                self._saw(node, tuple(stat))
                self._files.invalidate(number)

    @staticmethod
    def _saw(node: Node, stat: tuple[int, ...]) -> None:
        if node.reader and (stat[_SIZE], stat[_MTIME]) != (node.stat[_SIZE], node.stat[_MTIME]):
            node.reader.forget()
        node.stat = stat

    def getattr(self, request: Request, node: Node) -> None:
        def found(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            if not errno:
                self._saw(node, tuple(result["stat"]))
            self._files.late(request.unique, *([] if errno else [self._files.attributes(node)]), errno=_of_handle(errno))

        if handle := self._any(node):
            self._links.call("fstat", {"handle": handle}, found)
        else:
            self._files.answer(request.unique, self._files.attributes(node))

    def _refused(self, request: Request, node: Node) -> bool:
        if not node.writable:
            self._files.answer(request.unique, errno=e.EROFS)
        else:
            self._files.keep_going(request.unique)  # what is done can't be interrupted
        return not node.writable

    def _write(self, request: Request, node: Node) -> None:
        if self._refused(request, node):
            return
        handle, offset, data = fusechange.write(request.body)

        def written(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            size = result.get("size", 0)
            if node.reader:
                node.reader.forget()
            if offset + size > node.stat[_SIZE]:
                node.stat = (*node.stat[:_SIZE], offset + size, *node.stat[_SIZE + 1 :])
            self._files.late(request.unique, fusechange.written(size), errno=_of_handle(errno))

        self._links.call("write", {"handle": handle, "offset": offset}, written, data)

    def _change(self, op: str, request: Request, node: Node, args: dict[str, Any], raw: bytes = b"", *, attr: bool = False) -> None:
        """Ask the agent; answered with attributes or with nothing."""

        def changed(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            stats = result.get("touched") or ([result["stat"]] if "stat" in result else [])
            if stats:
                self._saw(node, tuple(stats[0]))
            parts = [self._files.attributes(node)] if attr and not errno else []
            self._files.late(request.unique, *parts, errno=_of_handle(errno))

        self._links.call(op, args, changed, raw)

    def _setattr(self, request: Request, node: Node) -> None:
        if self._refused(request, node):
            return
        handle, what = fusechange.attributes(request.body)
        subject = {"handle": handle} if handle in node.handles else self.subject(request.node)
        self._change("setattr", request, node, {**subject, **what}, attr=True)

    def _allocate(self, request: Request, node: Node) -> None:
        if not self._refused(request, node):
            self._change("allocate", request, node, fusechange.allocation(request.body))

    def _sync(self, request: Request, node: Node) -> None:
        handle, data_only = fusechange.sync(request.body)
        handle = handle if handle in node.handles else node.handle
        if not node.writable or not handle:
            self._files.answer(request.unique)  # nothing of ours is on its way
            return
        self._files.keep_going(request.unique)
        self._change("sync", request, node, {"handle": handle, "data": data_only})

    def _seek(self, request: Request, node: Node) -> None:
        args = fusechange.seek(request.body)
        handle = args["handle"] if args["handle"] in node.handles else node.handle
        if not handle:  # a small file that is known as a whole: data up to its end
            size = node.stat[_SIZE]
            found = size if args["whence"] == os.SEEK_HOLE else args["offset"]
            errno = e.ENXIO if args["offset"] >= size else 0
            self._files.answer(request.unique, fusechange.sought(found), errno=errno)
            return

        def sought(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            self._files.late(request.unique, fusechange.sought(result.get("offset", 0)), errno=errno)

        self._links.call("seek", {**args, "handle": handle}, sought)

    # -- extended attributes of open files --

    def _setxattr(self, request: Request, node: Node) -> None:
        if self._refused(request, node):
            return
        name, value, flags = fusechange.new_xattr(request.body)
        args = {**self.subject(request.node), "name": os.fsdecode(name), "flags": flags}
        self._change("setxattr", request, node, args, value)

    def _removexattr(self, request: Request, node: Node) -> None:
        if not self._refused(request, node):
            args = {**self.subject(request.node), "name": os.fsdecode(fuse.name(request.body))}
            self._change("removexattr", request, node, args)

    def _getxattr(self, request: Request, _node: Node) -> None:
        self._ask_xattr("getxattr", request)

    def _listxattr(self, request: Request, _node: Node) -> None:
        self._ask_xattr("listxattr", request)

    def _ask_xattr(self, op: str, request: Request) -> None:
        room, name = fusechange.wanted_xattr(request.body)

        def found(_result: dict[str, Any], raw: bytes, errno: int) -> None:
            if not errno and room and len(raw) > room:
                errno = e.ERANGE
            self._files.late(request.unique, raw if room else fusechange.xattr_size(len(raw)), errno=errno)

        args = self.subject(request.node)
        self._links.call(op, {**args, "name": os.fsdecode(name)} if op == "getxattr" else args, found)


def _of_handle(errno: int) -> int:
    """The program's descriptor is good; a handle that isn't was another agent's, which is gone with what it had open."""
    return e.EIO if errno == e.EBADF else errno
