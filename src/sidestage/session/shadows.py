"""What a program watches by inotify(7) at the target: a shadow of it here, on which all that happens there is done again.

The program's own inotify descriptor gets a watch on the shadow, an empty file or a directory of empty files in a tmpfs that has no
mount point. The agent tells what happened to the real one; the same is done to the shadow, and the kernel makes the events, with
cookies, masks and queues as ever. Reads aren't done again; IN_CLOSE_WRITE comes with an IN_OPEN before it.

A shadow stays while its file does: nobody tells when the last watch is removed.
"""

from __future__ import annotations

import contextlib
import errno as e
import os
import stat as st
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sidestage.agent import inotify as i
from sidestage.session import fusemount

if TYPE_CHECKING:
    from sidestage.session.broker import Args, Reply
    from sidestage.session.recent import Recent
    from sidestage.stream.links import Links

STASH = ".stash"  # where names come from and go to that no shadow has
_GONE = i.IN_DELETE_SELF | i.IN_IGNORED
_IS_DIRECTORY = 0x40000000  # IN_ISDIR

Event = tuple[int, int, int, str]  # watch, mask, cookie, name


def no_watch(_args: Args, _fds: list[int], reply: Reply) -> None:
    """Where there is no FUSE, there is no such file system either."""
    reply(e.EOPNOTSUPP)


class _Shadow:
    def __init__(self, path: str, follow: bool, name: str, directory: bool) -> None:
        self.path, self.follow, self.name, self.directory = path, follow, name, directory


class Shadows:
    """`changed` hears of the paths whose contents or attributes are others now."""

    def __init__(self, links: Links | Recent, changed: Callable[[set[str]], None], say: Callable[[str], None]) -> None:
        self._links, self._changed, self._say = links, changed, say
        self._root = -1  # the directory that they are in, made with the first
        self._of: dict[int, _Shadow] = {}  # by the agent's number of the watch
        self._last = 0

    def watch(self, args: Args, _fds: list[int], reply: Reply) -> None:
        """`{path, follow}`; answered with a descriptor of the shadow."""

        def watched(result: dict[str, Any], _raw: bytes, errno: int) -> None:
            if errno:
                reply(errno)
                return
            try:
                shadow = self._of.get(result["watch"]) or self._make(result, args["path"], args["follow"])
                reply(fds=[os.open(shadow.name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._root)])
            except OSError as error:
                reply(error.errno or e.EIO)

        self._links.call("watch", {"path": args["path"], "follow": args["follow"]}, watched)

    def _make(self, result: dict[str, Any], path: str, follow: bool) -> _Shadow:
        if self._root < 0:
            self._root = fusemount.tmpfs()
            os.mkdir(STASH, 0o700, dir_fd=self._root)
        self._last += 1
        shadow = _Shadow(path, follow, str(self._last), st.S_ISDIR(result["stat"][2]))
        self._create(shadow.name, shadow.directory)
        for name, directory in result["names"]:
            self._create(f"{shadow.name}/{name}", directory)
        self._of[result["watch"]] = shadow
        return shadow

    def agent_changed(self) -> None:
        """Another agent knows nothing of the watches."""
        shadows, self._of = list(self._of.values()), {}
        for shadow in shadows:

            def watched(result: dict[str, Any], _raw: bytes, errno: int, shadow: _Shadow = shadow) -> None:
                if errno:
                    self._remove(shadow)
                else:
                    self._of[result["watch"]] = shadow

            self._links.call("watch", {"path": shadow.path, "follow": shadow.follow}, watched)

    # -- what happened --

    def happened(self, events: Iterable[Event]) -> None:
        """The agent's event `watched`: in order, and both halves of a rename together."""
        events = [(int(watch), int(mask), int(cookie), str(name)) for watch, mask, cookie, name in events]
        self._changed({path for event in events if (path := self._path(event))})
        events = self._unechoed(events)
        paired = False
        for event, following in pairwise([*events, (0, 0, 0, "")]):
            if paired:
                paired = False
                continue
            paired = bool(event[1] & i.IN_MOVED_FROM and following[1] & i.IN_MOVED_TO and event[2] == following[2])
            with contextlib.suppress(OSError):  # what the shadow lacks, or has already
                if paired:
                    self._move(event, following)
                else:
                    self._again(event)

    def _unechoed(self, events: list[Event]) -> list[Event]:
        """Without the IN_ATTRIB of a file's last link that goes: to remove its shadow is that event as well (vfs_unlink)."""
        kept, gone = [], set()
        for event in reversed(events):
            watch, mask, _cookie, name = event
            if mask & i.IN_ATTRIB and not name and watch in gone:
                gone.discard(watch)
                continue
            if mask & i.IN_DELETE_SELF and watch in self._of and not self._of[watch].directory:
                gone.add(watch)
            kept.append(event)
        return kept[::-1]

    def _path(self, event: Event) -> str:
        shadow = self._of.get(event[0])
        if shadow is None or not event[1] & (i.IN_MODIFY | i.IN_ATTRIB):
            return ""
        return f"{shadow.path.rstrip('/')}/{event[3]}" if event[3] else shadow.path

    def _again(self, event: Event) -> None:
        watch, mask, _cookie, name = event
        if mask & i.IN_Q_OVERFLOW:
            self._say("the target's files change faster than it can tell: programs that watch them miss some changes")
        shadow = self._of.get(watch)
        if shadow is None:
            return
        if mask & _GONE:
            self._remove(self._of.pop(watch))
            return
        place, directory = f"{shadow.name}/{name}" if name else shadow.name, bool(mask & _IS_DIRECTORY or not name)
        if mask & i.IN_MOVE_SELF:
            self._last += 1
            os.rename(shadow.name, str(self._last), src_dir_fd=self._root, dst_dir_fd=self._root)
            shadow.name = str(self._last)
        elif mask & i.IN_CREATE:
            self._create(place, directory)
        elif mask & i.IN_DELETE:
            self._delete(place)
        elif mask & i.IN_MOVED_FROM:
            self._rename(place, f"{STASH}/gone")
            self._delete(f"{STASH}/gone")
        elif mask & i.IN_MOVED_TO:
            self._create(f"{STASH}/come", directory)
            self._rename(f"{STASH}/come", place)
        else:
            if name:
                with contextlib.suppress(FileExistsError):
                    self._create(place, directory)
            self._touch(place, mask)

    def _touch(self, place: str, mask: int) -> None:
        if mask & i.IN_MODIFY:
            os.truncate(self._link(place), 0)
        elif mask & i.IN_ATTRIB:
            os.chmod(place, 0o700, dir_fd=self._root)
        elif mask & i.IN_CLOSE_WRITE:
            os.close(os.open(place, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._root))

    def _link(self, place: str) -> str:
        return f"/proc/self/fd/{self._root}/{place}"  # truncate(2) has no form with a descriptor, and ftruncate wants an open

    def _move(self, old: Event, new: Event) -> None:
        source, target = self._of.get(old[0]), self._of.get(new[0])
        if source and target:
            place = f"{source.name}/{old[3]}"
            with contextlib.suppress(FileExistsError):
                self._create(place, bool(old[1] & _IS_DIRECTORY))
            self._rename(place, f"{target.name}/{new[3]}")

    # -- the shadows themselves --

    def _create(self, place: str, directory: bool) -> None:
        """By mknod(2): open(2) would be events of its own."""
        if directory:
            os.mkdir(place, 0o700, dir_fd=self._root)
        else:
            os.mknod(place, st.S_IFREG | 0o700, dir_fd=self._root)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)

    def _delete(self, place: str) -> None:
        try:
            os.unlink(place, dir_fd=self._root)
        except IsADirectoryError:
            os.rmdir(place, dir_fd=self._root)

    def _remove(self, shadow: _Shadow) -> None:
        """Its file is gone, or can't be watched any more."""
        with contextlib.suppress(OSError):
            if shadow.directory:
                for name in os.listdir(self._link(shadow.name)):
                    self._delete(f"{shadow.name}/{name}")
            self._delete(shadow.name)
