"""Few large, overlapping reads of the target's file instead of the kernel's many small ones. No I/O of its own.

The kernel asks for 128 or 256 KiB at a time. As long as the questions follow one another, a window of segments runs ahead of them;
its depth doubles up to 8 MiB, so that a delay of 20 ms still lets 400 MB/s through. A question elsewhere is fetched as it is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from sidestage.views.fuse import Buffer

SEGMENT = 1 << 20  # the agent's largest read
FIRST_DEPTH = 512 << 10
MAX_DEPTH = 8 << 20
SLACK = 512 << 10  # what is kept behind the reader: requests of two CPUs may come in either order
BUDGET = 64 << 20  # bytes held for all files together; the longest unused are forgotten first

Answer = Callable[[list[Buffer], int], None]  # parts, errno
Fetch = Callable[[int, int, Callable[[bytes, int], None]], None]  # offset, size, done(data, errno)


class _Segment:
    __slots__ = ("data", "end", "errno", "start", "waiting")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.data: memoryview | None = None
        self.errno = 0
        self.waiting: list[Callable[[], None]] = []


class Budget:
    """Which readers hold how much."""

    def __init__(self, limit: int = BUDGET) -> None:
        self._limit, self._held = limit, 0
        self._readers: OrderedDict[ReadAhead, int] = OrderedDict()

    def charge(self, reader: ReadAhead, size: int) -> None:
        self._readers[reader] = self._readers.get(reader, 0) + size
        self._readers.move_to_end(reader)
        self._held += size
        while self._held > self._limit and len(self._readers) > 1:
            next(iter(self._readers)).forget()

    def release(self, reader: ReadAhead) -> None:
        self._held -= self._readers.pop(reader, 0)


class ReadAhead:
    def __init__(self, fetch: Fetch, size: Callable[[], int], start: int, budget: Budget) -> None:
        self._fetch, self._size, self._budget = fetch, size, budget
        self._window: deque[_Segment] = deque()
        self._next = start  # the offset that would make the next question sequential
        self._depth = FIRST_DEPTH

    def read(self, offset: int, size: int, answer: Answer) -> None:
        end = min(offset + size, self._size())
        if end <= offset:
            answer([], 0)
            return
        if not (self._window and self._window[0].start <= offset <= self._window[-1].end):
            sequential = offset == self._next
            self.forget()
            self._next = end
            if not sequential:
                self._fetch(offset, end - offset, lambda data, errno: answer([data], errno))
                return
        self._next = max(self._next, end)
        self._trim(offset)
        self._extend(offset, end)
        covering = [s for s in self._window if s.start < end and s.end > offset]
        missing = [s for s in covering if s.data is None]
        left = len(missing)

        def arrived() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                answer(*_collect(covering, offset, end))

        for segment in missing:
            segment.waiting.append(arrived)
        if not missing:
            arrived()

    def forget(self) -> None:
        """What is on its way still answers who waits for it."""
        self._window.clear()
        self._depth = FIRST_DEPTH
        self._budget.release(self)

    def _trim(self, offset: int) -> None:
        while self._window and self._window[0].end + SLACK <= offset:
            gone = self._window.popleft()
            self._budget.charge(self, gone.start - gone.end)

    def _extend(self, offset: int, end: int) -> None:
        tail = self._window[-1].end if self._window else offset
        goal = min(end + self._depth, self._size())
        if tail >= min(end + self._depth // 2, self._size()):  # in large steps, not in the kernel's
            return
        while tail < goal:
            segment = _Segment(tail, min(tail + SEGMENT, goal))
            tail = segment.end
            self._window.append(segment)
            self._budget.charge(self, segment.end - segment.start)
            self._fetch(segment.start, segment.end - segment.start, lambda data, errno, s=segment: _fill(s, data, errno))  # type: ignore[misc]
        self._depth = min(self._depth * 2, MAX_DEPTH)


def _fill(segment: _Segment, data: bytes, errno: int) -> None:
    segment.data, segment.errno = memoryview(data), errno
    waiting, segment.waiting = segment.waiting, []
    for callback in waiting:
        callback()


def _collect(segments: list[_Segment], offset: int, end: int) -> tuple[list[Buffer], int]:
    parts: list[Buffer] = []
    for segment in segments:
        if segment.errno:
            return [], segment.errno
        assert segment.data is not None
        part = segment.data[max(0, offset - segment.start) : end - segment.start]
        parts.append(part)
        if len(segment.data) < segment.end - segment.start:
            break  # the file became shorter
    return parts, 0
