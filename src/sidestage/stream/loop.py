"""One epoll loop: descriptors, timers, and results from threads. The only event loop of session and agent."""

from __future__ import annotations

import collections
import heapq
import os
import select
import threading
import time
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

THREADS = 4  # blocking file calls under way at once
BATCH = 256  # events taken from the kernel at a time
BULK_NICE = 10  # of a process whose loop moves bulk and nothing else: it gives way to those whose words are waited for (nice(2))


class Timer:
    __slots__ = ("fn",)

    def __init__(self, fn: Callable[[], None]) -> None:
        self.fn: Optional[Callable[[], None]] = fn

    def cancel(self) -> None:
        self.fn = None


class Loop:
    """Callbacks run one at a time in the thread of run(); an exception of one ends run()."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: Dict[int, Callable[[int], None]] = {}
        self._timers: List[Tuple[float, int, Timer]] = []
        self._order = 0
        self._soon: Deque[Callable[[], None]] = collections.deque()
        self._pool: Any = None  # a ThreadPoolExecutor when one was needed: its import costs as much as all of this package
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._finished: List[Callable[[], None]] = []
        self._running = False
        self.watch(self._wake_r, select.EPOLLIN, self._woken)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._epoll.register(fd, events)
        self._watched[fd] = callback

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; must come before it is closed, as a duplicate elsewhere would keep it in epoll (epoll(7))."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, fn: Callable[[], None]) -> Timer:
        timer = Timer(fn)
        self._order += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._order, timer))
        return timer

    def soon(self, fn: Callable[[], None]) -> None:
        self._soon.append(fn)

    def offload(self, fn: Callable[[], Any], done: Callable[[Any, Optional[BaseException]], None]) -> None:
        """Run `fn` in a thread, then `done(result, error)` in the loop."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(THREADS)

        def work() -> None:
            result, error = None, None
            try:
                result = fn()
            except BaseException as caught:
                error = caught
            self.post(lambda: done(result, error))

        self._pool.submit(work)

    def post(self, fn: Callable[[], None]) -> None:
        """As soon(), from any thread."""
        with self._lock:
            self._finished.append(fn)
        try:
            os.write(self._wake_w, b"x")
        except BlockingIOError:
            pass  # full: the loop wakes up anyway

    def _woken(self, _: int) -> None:
        os.read(self._wake_r, 4096)
        with self._lock:
            finished, self._finished = self._finished, []
        self._soon.extend(finished)

    def run(self) -> None:
        """Until stop()."""
        self._running = True
        try:
            while self._running:
                self._once()
        finally:
            self._running = False

    def stop(self) -> None:
        self._running = False

    def _once(self) -> None:
        soon = self._soon
        for _ in range(len(soon)):
            soon.popleft()()
        timers = self._timers
        while timers and timers[0][2].fn is None:
            heapq.heappop(timers)
        if soon or not self._running:
            wait = 0.0
        elif timers:
            wait = max(0.0, timers[0][0] - time.monotonic())
        else:
            wait = -1
        watched = self._watched
        batch = self._epoll.poll(wait, BATCH)
        # A callback may unwatch a descriptor whose event is still in this batch, and its number may be in use again:
        # the callback of the time of the poll tells whether the event still has its owner.
        owners = [(fd, events, watched.get(fd)) for fd, events in batch] if len(batch) > 1 else None
        if owners is None:
            for fd, events in batch:
                callback = watched.get(fd)
                if callback is not None:
                    callback(events)
        else:
            for fd, events, owner in owners:
                if owner is not None and watched.get(fd) is owner:
                    owner(events)
        if timers:
            now = time.monotonic()
            while timers and timers[0][0] <= now:
                fn = heapq.heappop(timers)[2].fn
                if fn is not None:
                    fn()
