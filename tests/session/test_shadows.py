"""Shadows of watched files: what the agent tells is done again, on a real file system under a real watch."""

from __future__ import annotations

import ctypes
import errno as e
import os
import select
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidestage.agent import inotify as i
from sidestage.session.shadows import Shadows

IS_DIRECTORY = 0x40000000
DIRECTORY, FILE = 0o40755, 0o100644
_libc = ctypes.CDLL(None, use_errno=True)
_event = struct.Struct("=iIII")


class Agent:
    """Answers calls of `watch`: by path, the number and the names."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, int, list[tuple[str, bool]]]] = {}
        self.asked: list[str] = []

    def call(self, _op: str, args: dict[str, Any], done: Callable[..., None]) -> None:
        self.asked.append(args["path"])
        if args["path"] not in self.known:
            done({}, b"", e.ENOENT)
            return
        watch, mode, names = self.known[args["path"]]
        done({"watch": watch, "stat": [1, watch, mode, *[0] * 10], "names": names}, b"", 0)


class Watched:
    """A program's inotify descriptor on shadows."""

    def __init__(self) -> None:
        self.agent, self.changed, self.said = Agent(), set[str](), list[str]()
        self.shadows = Shadows(self.agent, self.changed.update, self.said.append)  # type: ignore[arg-type]
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.names: dict[int, str] = {}

    def add(self, path: str) -> int:
        """The error, or 0."""
        errors: list[int] = []

        def reply(errno: int = 0, fds: tuple[int, ...] = (), **_: Any) -> None:
            errors.append(errno)
            for fd in fds:
                number = _libc.inotify_add_watch(self.fd, f"/proc/self/fd/{fd}".encode(), i.MASK)
                assert number > 0
                self.names[number] = path
                os.close(fd)

        self.shadows.watch({"path": path, "follow": True}, [], reply)
        (errno,) = errors
        return errno

    def heard(self, *events: tuple[int, int, int, str]) -> list[tuple[str, int, str]]:
        """What the watch says of what the agent tells."""
        self.shadows.happened(events)
        if not select.select([self.fd], [], [], 0)[0]:
            return []
        data, at, found = os.read(self.fd, 1 << 16), 0, []
        while at < len(data):
            number, mask, _cookie, size = _event.unpack_from(data, at)
            at += _event.size + size
            found.append((self.names[number], mask, os.fsdecode(data[at - size : at].rstrip(b"\0"))))
        return found


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    made.agent.known = {
        "/d": (1, DIRECTORY, [("old", False), ("sub", True)]), "/e": (2, DIRECTORY, []), "/f": (3, FILE, []),
        "/alias": (3, FILE, []),
    }  # fmt: skip
    for path in "/d", "/e", "/f":
        assert made.add(path) == 0
    yield made
    os.close(made.fd)


def test_a_name_that_was_there_makes_no_event_of_its_own(watched: Watched) -> None:
    assert watched.heard((1, i.IN_MODIFY, 0, "old")) == [("/d", i.IN_MODIFY, "old")]
    assert watched.heard((1, i.IN_DELETE | IS_DIRECTORY, 0, "sub")) == [("/d", i.IN_DELETE | IS_DIRECTORY, "sub")]
    assert watched.changed == {"/d/old"}


def test_a_rename_has_both_halves_or_one(watched: Watched) -> None:
    whole = [(1, i.IN_MOVED_FROM, 7, "old"), (2, i.IN_MOVED_TO, 7, "new")]
    assert watched.heard(*whole) == [("/d", i.IN_MOVED_FROM, "old"), ("/e", i.IN_MOVED_TO, "new")]
    assert watched.heard((2, i.IN_MOVED_FROM, 8, "new")) == [("/e", i.IN_MOVED_FROM, "new")]
    assert watched.heard((2, i.IN_MOVED_TO, 9, "come")) == [("/e", i.IN_MOVED_TO, "come")]
    strangers = [(1, i.IN_MOVED_FROM | IS_DIRECTORY, 10, "sub"), (2, i.IN_MOVED_TO, 11, "other")]
    assert [event[1:] for event in watched.heard(*strangers)] == [
        (i.IN_MOVED_FROM | IS_DIRECTORY, "sub"), (i.IN_MOVED_TO, "other"),
    ]  # fmt: skip


def test_what_is_told_twice_or_of_nobody_is_no_event(watched: Watched) -> None:
    assert watched.heard((1, i.IN_CREATE, 0, "old"), (1, i.IN_DELETE, 0, "none"), (99, i.IN_CREATE, 0, "x")) == []


def test_a_name_beyond_those_that_are_kept_is_new_first(watched: Watched) -> None:
    assert watched.heard((2, i.IN_MODIFY, 0, "late")) == [("/e", i.IN_CREATE, "late"), ("/e", i.IN_MODIFY, "late")]


def test_the_end_of_a_file_is_the_end_of_its_watch(watched: Watched) -> None:
    gone = watched.heard((3, i.IN_DELETE_SELF, 0, ""), (3, i.IN_IGNORED, 0, ""))
    assert [mask for path, mask, _ in gone] == [i.IN_ATTRIB, i.IN_DELETE_SELF, i.IN_IGNORED]
    assert [mask for path, mask, _ in watched.heard((1, i.IN_DELETE_SELF, 0, ""))][-2:] == [i.IN_DELETE_SELF, i.IN_IGNORED]


def test_two_names_of_one_file_are_one_watch(watched: Watched) -> None:
    before = len(watched.names)
    assert watched.add("/alias") == 0
    assert len(watched.names) == before
    assert watched.heard((3, i.IN_MODIFY, 0, "")) == [("/alias", i.IN_MODIFY, "")]


def test_errors_are_those_of_the_target(watched: Watched) -> None:
    assert watched.add("/none") == e.ENOENT


def test_another_agent_watches_again(watched: Watched) -> None:
    """What is gone by then is told to be gone; the others have new numbers."""
    watched.agent.known = {"/d": (5, DIRECTORY, []), "/e": (6, DIRECTORY, [])}
    watched.agent.asked.clear()
    watched.shadows.agent_changed()
    assert watched.agent.asked == ["/d", "/e", "/f"]
    assert [event for event in watched.heard() if event[0] == "/f"][-1] == ("/f", i.IN_IGNORED, "")
    assert watched.heard((1, i.IN_CREATE, 0, "x")) == []
    assert watched.heard((5, i.IN_CREATE, 0, "x")) == [("/d", i.IN_CREATE, "x")]


def test_what_was_missed_is_said(watched: Watched) -> None:
    assert watched.heard((-1, i.IN_Q_OVERFLOW, 0, "")) == []
    assert len(watched.said) == 1
