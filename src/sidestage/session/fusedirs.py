"""Lists the target's directories to the kernel: as a whole when they are read from the beginning."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sidestage.session.fusenode import Node, Then
from sidestage.views import fuse
from sidestage.views.fuse import Request

if TYPE_CHECKING:
    from sidestage.session.fusefs import FuseFiles
    from sidestage.session.recent import Recent
    from sidestage.stream.links import Links


class Directories:
    def __init__(self, files: FuseFiles, links: Links | Recent) -> None:
        self._files, self._links = files, links

    def read(self, request: Request) -> None:
        node = self._files.nodes[request.node]
        offset, size = fuse.reading(request.body)

        def listed(errno: int) -> None:
            entries = node.entries or []
            self._files.late(request.unique, fuse.dirents(entries[offset:], offset, size), errno=errno)

        if node.entries is not None and offset:
            listed(0)
        elif node.handle:
            self._list(node, listed, again=node.entries is not None)  # rewinddir(3): what is there now
        else:
            self._files.ask(node, lambda errno: listed(errno) if errno else self._list(node, listed))

    def _list(self, node: Node, then: Then, *, again: bool = False) -> None:
        here = node.stat[1]
        found = [(b".", here, 4), (b"..", here, 4)]  # the agent leaves these to us; 4 is DT_DIR

        def batch(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            entries = result.get("entries", ())
            found.extend((os.fsencode(name), ino, kind) for name, ino, kind in entries)
            if errno or not entries:
                node.entries = None if errno else found
                then(errno)
            else:
                self._links.call("readdir", {"handle": node.handle}, batch)

        self._links.call("readdir", {"handle": node.handle, **({"again": True} if again else {})}, batch)
