"""Whatever is read in whatever order, and however late the answers come, the bytes are the file's."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as s

from sidestage.session import readahead
from sidestage.session.readahead import MAX_DEPTH, Budget, ReadAhead
from sidestage.views.fuse import Buffer

MIB = 1 << 20
FILE = random.Random(1).randbytes(6 * MIB + 12345)


class Agent:
    """Answers when told to."""

    def __init__(self, data: bytes = FILE) -> None:
        self.data, self.asked = data, list[tuple[int, int]]()
        self.waiting: list[Callable[[], None]] = []

    def fetch(self, offset: int, size: int, done: Callable[[bytes, int], None]) -> None:
        self.asked.append((offset, size))
        self.waiting.append(lambda: done(self.data[offset : offset + size], 0))

    def answer(self, which: int = 0) -> None:
        self.waiting.pop(which)()

    def reader(self, budget: Budget | None = None) -> ReadAhead:
        return ReadAhead(self.fetch, lambda: len(FILE), 0, budget or Budget())


@given(
    s.lists(s.tuples(s.one_of(s.none(), s.integers(0, len(FILE) + 9)), s.integers(1, MIB), s.booleans()), max_size=25),
    s.randoms(use_true_random=False),
)
def test_bytes(reads: list[tuple[int | None, int, bool]], order: random.Random) -> None:
    agent = Agent()
    reader = agent.reader()
    at, wanted, got = 0, list[bytes](), dict[int, bytes]()
    for number, (offset, size, settle) in enumerate(reads):
        at = at if offset is None else offset  # None: where the last one ended
        wanted.append(FILE[at : at + size])
        reader.read(at, size, lambda parts, errno, n=number: got.__setitem__(n, b"".join(parts)))  # type: ignore[misc]
        at += size
        while settle and agent.waiting:
            agent.answer(order.randrange(len(agent.waiting)))
    while agent.waiting:
        agent.answer(order.randrange(len(agent.waiting)))
    assert [got[n] for n in range(len(reads))] == wanted


def test_sequential_reads_become_few() -> None:
    agent = Agent()
    reader = agent.reader()
    for offset in range(0, len(FILE), 128 << 10):
        reader.read(offset, 128 << 10, lambda parts, errno: None)
        while agent.waiting:
            agent.answer()
    assert len(agent.asked) <= 10
    assert sum(size for _, size in agent.asked) == len(FILE)


def test_random_reads_fetch_no_more_than_asked() -> None:
    agent = Agent()
    reader = agent.reader()
    for offset in (5 * MIB, MIB, 3 * MIB, 2 * MIB):
        reader.read(offset, 4096, lambda parts, errno: None)
    assert agent.asked == [(5 * MIB, 4096), (MIB, 4096), (3 * MIB, 4096), (2 * MIB, 4096)]


def test_errors_arrive() -> None:
    out: list[tuple[list[Buffer], int]] = []
    reader = ReadAhead(lambda o, n, done: done(b"", 5), lambda: len(FILE), 0, Budget())
    reader.read(0, 4096, lambda parts, errno: out.append((parts, errno)))
    assert out == [([], 5)]


def test_a_file_that_became_shorter() -> None:
    agent = Agent(FILE[:1000])
    out: list[bytes] = []
    agent.reader().read(0, 4096, lambda parts, errno: out.append(b"".join(parts)))
    while agent.waiting:
        agent.answer()
    assert out == [FILE[:1000]]


@pytest.mark.parametrize("readers", [1, 5, 40])
def test_memory_is_bounded(readers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 4 * MIB
    budget, agent = Budget(limit), Agent()
    all_readers = [agent.reader(budget) for _ in range(readers)]
    for offset in range(0, len(FILE), 256 << 10):
        for reader in all_readers:
            reader.read(offset, 256 << 10, lambda parts, errno: None)
            while agent.waiting:
                agent.answer()
            held = sum(segment.end - segment.start for one in all_readers for segment in one._window)
            assert held == budget._held <= max(limit, MAX_DEPTH + readahead.SLACK + MIB)
    for reader in all_readers:
        reader.forget()
    assert budget._held == 0
