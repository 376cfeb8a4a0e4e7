"""The agent's watches on a real file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidestage.agent import inotify as i
from sidestage.agent.files import Files
from sidestage.agent.inotify import Event, Inotify
from sidestage.stream.loop import Loop


class Watching:
    def __init__(self, root: Path) -> None:
        self.loop, self.told, self.behind = Loop(), list[list[Event]](), 0
        self.root = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self.inotify = Inotify(self.loop, Files(self.root), self.told.append, lambda: self.behind)

    def turn(self, seconds: float = 0.3) -> list[Event]:
        self.loop.later(seconds, self.loop.stop)
        self.loop.run()
        told, self.told[:] = [event for events in self.told for event in events], []
        return told


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("x")
    (tmp_path / "d" / "sub").mkdir()
    (tmp_path / "link").symlink_to("/d")
    made = Watching(tmp_path)
    yield made
    os.close(made.root)


def test_a_directory(watching: Watching, tmp_path: Path) -> None:
    found = watching.inotify.watch("/link", True)
    assert sorted(found["names"]) == [("sub", True), ("x", False)]
    assert watching.inotify.watch("/d", True)["watch"] == found["watch"]
    (tmp_path / "d" / "x").read_text()
    (tmp_path / "d" / "x").rename(tmp_path / "d" / "y")
    first, second = watching.turn()
    assert (first[1], first[3], second[1], second[3]) == (i.IN_MOVED_FROM, "x", i.IN_MOVED_TO, "y")
    assert first[2] == second[2] != 0


def test_refusals(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, follow, code in ("/none", True, errno.ENOENT), ("/link", False, errno.EOPNOTSUPP), ("/../../etc", True, errno.ENOENT):
        with pytest.raises(OSError) as caught:
            watching.inotify.watch(path, follow)
        assert caught.value.errno == code
    monkeypatch.setattr(i, "MAX_WATCHES", 1)
    watching.inotify.watch("/d", True)
    with pytest.raises(OSError) as caught:
        watching.inotify.watch("/d/x", True)
    assert caught.value.errno == errno.ENOSPC


def test_a_watch_that_ended_makes_room(watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i, "MAX_WATCHES", 1)
    watching.inotify.watch("/d/x", True)
    (tmp_path / "d" / "x").unlink()
    assert watching.turn()[-1][1] == i.IN_IGNORED
    watching.inotify.watch("/d", True)


def test_a_link_that_is_behind_is_not_told_more(watching: Watching, tmp_path: Path) -> None:
    watching.inotify.watch("/d", True)
    watching.behind = i.MAX_BEHIND + 1
    (tmp_path / "d" / "new").mkdir()
    assert watching.turn() == []
    watching.behind = 0
    assert [event[3] for event in watching.turn()] == ["new"]


def test_a_directory_of_many_names_is_told_in_part(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i, "MAX_NAMES", 1)
    assert len(watching.inotify.watch("/d", True)["names"]) == 1
