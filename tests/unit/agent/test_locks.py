"""What owners hold of a file, who waits for whom, and locks that are asked for wrongly."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidestage.agent.files import Files
from sidestage.agent.locks import EOF, NONE, READ, WRITE, Locks, Range, replace
from sidestage.stream.loop import Loop


@pytest.mark.parametrize(
    ("held", "new", "after"),
    [
        ([], (0, 9, WRITE), [(0, 9, WRITE)]),
        ([(0, 9, WRITE)], (0, 9, NONE), []),
        ([(0, 9, WRITE)], (3, 5, NONE), [(0, 2, WRITE), (6, 9, WRITE)]),
        ([(0, 9, WRITE)], (3, 5, READ), [(0, 2, WRITE), (3, 5, READ), (6, 9, WRITE)]),
        ([(0, 9, READ), (20, EOF, READ)], (5, 25, WRITE), [(0, 4, READ), (5, 25, WRITE), (26, EOF, READ)]),
        ([(0, 9, READ), (20, 30, READ)], (0, EOF, NONE), []),
        ([(5, 9, READ)], (10, 12, WRITE), [(5, 9, READ), (10, 12, WRITE)]),
        ([(5, 9, READ)], (9, 9, NONE), [(5, 8, READ)]),
    ],
)
def test_ranges(held: list[tuple[int, int, int]], new: tuple[int, int, int], after: list[tuple[int, int, int]]) -> None:
    assert replace([Range(*each) for each in held], Range(*new)) == [Range(*each) for each in after]


class Agent:
    """Locks with a loop and a link that keeps the answers."""

    def __init__(self, root: Path) -> None:
        self.answers: dict[int, dict[str, Any] | int] = {}
        control = SimpleNamespace(
            reply=lambda call, result, _raw: self.answers.update({call: result}),
            fail=lambda call, code, _text: self.answers.update({call: code}),
        )
        self.loop = Loop()
        self.files = Files(os.open(root, os.O_PATH))
        self.locks = Locks(self.loop, SimpleNamespace(control=control), self.files)  # type: ignore[arg-type]
        self.handle = self.files.keep(os.open(root / "f", os.O_RDWR | os.O_CREAT, 0o600))
        self._calls = 0

    def ask(self, owner: int, kind: int, start: int = 0, end: int = EOF, **more: Any) -> int:
        self._calls += 1
        args = {"handle": self.handle, "owner": owner, "kind": kind, "start": start, "end": end, "pid": 1000 + owner, **more}
        self.locks.lock(self._calls, args)
        return self._calls

    def code(self, call: int) -> int:
        """0 when it was granted."""
        self.until(lambda: call in self.answers)
        answer = self.answers[call]
        return answer if isinstance(answer, int) else 0

    def until(self, condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < ends
            self.loop.later(0.01, self.loop.stop)
            self.loop.run()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


def test_a_ring_of_three(agent: Agent) -> None:
    for owner in (1, 2, 3):
        assert agent.code(agent.ask(owner, WRITE, owner, owner)) == 0
    first = agent.ask(1, READ, 2, 2, wait=10, posix=True)
    second = agent.ask(2, WRITE, 3, 3, wait=11, posix=True)
    assert agent.code(agent.ask(3, READ, 1, 1, wait=12, posix=True)) == errno.EDEADLK
    assert first not in agent.answers
    assert agent.code(agent.ask(3, NONE)) == agent.code(second) == 0
    assert agent.code(agent.ask(2, NONE)) == agent.code(first) == 0


def test_a_ring_with_an_open_file_description(agent: Agent) -> None:
    for owner in (1, 2):
        assert agent.code(agent.ask(owner, WRITE, owner, owner)) == 0
    first = agent.ask(1, READ, 2, 2, wait=10, posix=False)
    second = agent.ask(2, READ, 1, 1, wait=11, posix=True)
    agent.locks.cancel({"wait": 11})
    assert agent.code(second) == errno.EINTR
    agent.locks.cancel({"wait": 11})  # comes late
    agent.locks.cancel({"wait": 10})
    assert agent.code(first) == errno.EINTR


def test_closed_while_it_waits(agent: Agent) -> None:
    assert agent.code(agent.ask(1, WRITE, 0, 4)) == 0
    granted = agent.ask(2, WRITE, 5, 9)
    waiting = agent.ask(2, WRITE, 0, 0, wait=10, posix=True)
    answer = agent.answers[granted]
    assert isinstance(answer, dict)
    agent.locks.unlock(answer)
    agent.locks.unlock(answer)
    assert agent.code(agent.ask(3, WRITE, 5, 9)) == 0
    assert agent.code(agent.ask(1, NONE)) == 0
    assert agent.code(waiting) == errno.EBADF
    assert agent.code(agent.ask(3, WRITE)) == 0


def test_too_many_wait(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidestage.agent.locks.MAX_WAITING", 1)
    assert agent.code(agent.ask(1, WRITE)) == 0
    first = agent.ask(2, WRITE, wait=10)
    assert agent.code(agent.ask(3, WRITE, wait=11)) == errno.ENOLCK
    agent.locks.cancel({"wait": 10})
    assert agent.code(first) == errno.EINTR


def test_by_path(agent: Agent, tmp_path: Path) -> None:
    """A small file that was read as a whole has no handle; another file of its name isn't it."""
    info = os.stat(tmp_path / "f")
    named = {"path": "/f", "file": [info.st_dev, info.st_ino], "owner": 5, "start": 0, "end": EOF, "kind": READ}
    agent.locks.lock(90, named)
    assert agent.code(90) == 0
    assert agent.code(agent.ask(6, WRITE)) == errno.EAGAIN
    assert agent.locks.getlk({**named, "owner": 7, "kind": WRITE})["kind"] == READ
    os.rename(tmp_path / "f", tmp_path / "g")
    (tmp_path / "f").write_text("another")
    with pytest.raises(OSError, match="another file"):
        agent.locks.lock(91, {**named, "owner": 8})
    with pytest.raises(OSError, match="no such lock"):
        agent.locks.lock(92, {**named, "lock": 4711})


def test_one_open_file_description_for_all(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file can't be opened again, the program's own is used; its locks end with their owner all the same."""
    monkeypatch.setattr("sidestage.agent.locks.os.open", lambda *_: (_ for _ in ()).throw(PermissionError()))
    granted = agent.ask(1, WRITE)
    assert agent.code(granted) == 0
    other = os.dup(agent.files.fd(agent.handle))
    monkeypatch.undo()
    assert agent.code(agent.ask(2, READ)) == errno.EAGAIN
    answer = agent.answers[granted]
    assert isinstance(answer, dict)
    agent.locks.unlock(answer)
    assert agent.code(agent.ask(2, READ)) == 0
    os.close(other)


def test_who_is_in_the_way(agent: Agent) -> None:
    for owner, kind, start, end in ((1, READ, 0, 9), (2, READ, 5, 20), (3, WRITE, 30, EOF)):
        assert agent.code(agent.ask(owner, kind, start, end)) == 0
    ask = {"handle": agent.handle, "owner": 9, "start": 6, "end": 6, "kind": WRITE}
    found = agent.locks.getlk(ask)
    assert (found["start"], found["end"], found["pid"]) in ((0, 9, 1001), (5, 20, 1002))
    later = {**ask, "start": 40, "kind": READ, "end": EOF}
    assert agent.locks.getlk(later) == {"start": 30, "end": EOF, "kind": WRITE, "pid": 1003}
    assert agent.locks.getlk({**ask, "start": 21, "end": 29})["kind"] == fcntl.F_UNLCK
