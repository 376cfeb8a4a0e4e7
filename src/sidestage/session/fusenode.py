"""What one number of the FUSE mount stands for: a file or directory of the target, as far as we know it."""

from __future__ import annotations

import errno as e
import os
import stat as st
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidestage.session.readahead import ReadAhead
from sidestage.views.fuse import Stat

if TYPE_CHECKING:
    from sidestage.session.fuselocks import Owned

ROOT_STAT: Stat = (0, 1, st.S_IFDIR | 0o555, 2, 0, 0, 0, 0, 4096, 0, 0, 0, 0)
Done = Callable[[dict[str, Any], int], None]
Then = Callable[[int], None]  # errno


class Node:
    __slots__ = (
        "claims", "entries", "first", "handle", "handles", "locks", "names", "opened", "path", "reach", "reader", "stat",
        "streamed", "waiting", "writable",
    )  # fmt: skip

    def __init__(self, path: str, stat: Stat, *, writable: bool = False) -> None:
        self.path, self.stat, self.writable = path, stat, writable
        self.first: bytes | None = None  # until the kernel has them; None also when the agent wasn't asked to open
        self.handle = 0  # at the agent, for reading
        self.handles: dict[int, int] = {}  # of a shared file: the agent's handle of each open, and its flags
        self.claims: list[int] = []  # of a shared file: names of opens that the kernel hasn't asked for yet
        self.names: list[int] = []  # of a shared file: all its claims, while it is open anywhere
        self.locks: dict[int, Owned] = {}  # by owner, as the kernel names it
        self.opened = 0
        self.streamed = False  # the size is not the length (/proc and the like): read to the end, past the page cache
        self.reach = 0  # up to where the kernel has asked: it may know of a size before we do
        self.reader: ReadAhead | None = None
        self.entries: list[tuple[bytes, int, int]] | None = None
        self.waiting: list[Then] = []

    @property
    def shared(self) -> bool:
        """One node for all opens of the file, so that its pages and locks are the same for all processes of the program."""
        return self.writable and st.S_ISREG(self.stat[2])


def refusal(mode: int, flags: int) -> int:
    """What open(2) says of a file of this kind, when it isn't 0."""
    if st.S_ISLNK(mode) and not flags & os.O_PATH:
        return e.ELOOP
    if flags & os.O_DIRECTORY and not st.S_ISDIR(mode):
        return e.ENOTDIR
    if not (st.S_ISREG(mode) or st.S_ISDIR(mode) or flags & os.O_PATH):
        return e.ENXIO  # a pipe, socket or device of the target has no meaning here
    return 0
