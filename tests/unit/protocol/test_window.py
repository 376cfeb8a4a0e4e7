"""Two muxes over a wire with a delay, in a time of their own: a fast reader gets the whole rate, a slow one a small window."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as s

from sidestage.protocol import wire
from sidestage.protocol.messages import Data
from sidestage.protocol.mux import Mux
from sidestage.protocol.window import MAX_GROWN, Pool, Window

MB = 1e6
PIECE = 64 << 10


class Wire:
    """The agent sends without end; what it sends arrives `delay` later, in order, at `rate` bytes a second at most. The readers
    of the laptop take `takes` bytes a second each."""

    def __init__(self, delay: float, rate: float, takes: list[float]) -> None:
        self.now, self.delay, self.rate, self.takes = 0.0, delay, rate, takes
        self.agent, self.laptop = (Mux(side, max_data=PIECE, clock=lambda: self.now) for side in ("agent", "laptop"))
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.free = 0.0  # when the wire has sent what it was given
        self.channels = [self.laptop.open("tcp", {}) for _ in takes]
        self.read, self.unread, self.most = [0] * len(takes), [0] * len(takes), [0] * len(takes)
        self.busy = [False] * len(takes)
        self.laptop.ping(1)
        self.to_agent()
        self.at(2.5 * delay, self.start)

    def at(self, when: float, fn: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), fn))

    def start(self) -> None:
        for channel in self.channels:
            self.agent.accept(channel, {})
        self.to_laptop()
        self.send()

    def send(self) -> None:
        for channel in self.channels:
            while self.agent.writable(channel) >= PIECE:
                self.agent.send(channel, bytes(PIECE))
        self.to_laptop()

    def to_agent(self) -> None:
        if data := b"".join(self.laptop.take(1 << 30)):
            self.at(self.now + self.delay, lambda: self.agent_got(data))

    def agent_got(self, data: bytes) -> None:
        self.agent.feed(data)
        self.to_laptop()
        self.send()

    def to_laptop(self) -> None:
        """One piece after the other leaves, as the wire takes them."""
        if self.free > self.now or not (data := b"".join(self.agent.take(1))):
            return
        self.free = self.now + len(data) / self.rate
        self.at(self.free + self.delay, lambda: self.laptop_got(data))
        self.at(self.free, self.send)

    def laptop_got(self, data: bytes) -> None:
        for event in self.laptop.feed(data):
            if isinstance(event, Data):
                which = self.channels.index(event.channel)
                self.unread[which] += len(event.data)
                self.most[which] = max(self.most[which], self.unread[which])
                self.take(which)
        self.to_agent()

    def take(self, which: int) -> None:
        if self.unread[which] and not self.busy[which]:
            self.busy[which] = True
            size = min(self.unread[which], PIECE)
            self.at(self.now + size / self.takes[which], lambda: self.took(which, size))

    def took(self, which: int, size: int) -> None:
        self.busy[which] = False
        self.unread[which] -= size
        self.read[which] += size
        self.laptop.consumed(self.channels[which], size)
        self.to_agent()
        self.take(which)

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, fn = heapq.heappop(self.events)
            fn()
        self.now = until

    def window(self, which: int) -> int:
        return self.laptop._channels[self.channels[which]].window.size


@pytest.mark.parametrize("delay", [0.0001, 0.01, 0.04])
def test_a_fast_reader_gets_the_rate_of_the_wire(delay: float) -> None:
    run = Wire(delay, 200 * MB, [1000 * MB])
    run.run(1.0)
    before = run.read[0]
    run.run(2.0)
    assert run.read[0] - before > 0.9 * 200 * MB
    assert run.window(0) <= max(wire.WINDOW, 4 * 200 * MB * 2 * delay)  # no more than that needs


def test_a_slow_reader_stays_at_the_first_window() -> None:
    run = Wire(0.01, 200 * MB, [10 * MB])
    run.run(3.0)
    assert run.window(0) == wire.WINDOW and run.most[0] <= wire.WINDOW


def test_a_reader_that_becomes_slow_shrinks_to_it() -> None:
    run = Wire(0.01, 200 * MB, [1000 * MB])
    run.run(1.0)
    assert run.window(0) > 8 << 20
    run.takes[0] = 10 * MB
    run.run(1.0 + 20)
    assert run.window(0) < 2 * wire.WINDOW
    run.takes[0] = 1000 * MB
    before = run.read[0]
    run.run(22.5)
    assert run.read[0] - before > 0.8 * 1.5 * 200 * MB


def test_a_queue_on_the_way_is_no_reason_to_grow() -> None:
    """The wire is the bottleneck: the window stays near what it carries in its own round trip, however long a queue makes that."""
    run = Wire(0.01, 20 * MB, [1000 * MB])
    run.run(1.0)
    run.laptop.ping(2)
    run.run(10.0)
    run.laptop.ping(3)
    run.run(20.0)
    assert run.window(0) <= 4 * 20 * MB * 0.02 + wire.WINDOW


def test_all_windows_together_are_bounded() -> None:
    readers = 30
    run = Wire(0.04, 4000 * MB, [4000 * MB] * readers)
    run.run(0.7)
    grown = sum(run.window(which) - wire.WINDOW for which in range(readers))
    assert MAX_GROWN - readers < grown <= MAX_GROWN
    for channel in run.channels:
        run.laptop.reset(channel)
    assert run.laptop._pool.spare == MAX_GROWN


def test_nothing_grows_before_a_round_trip_is_known() -> None:
    now = 0.0
    window = Window(Pool(100, lambda: now))
    for _ in range(50):
        now += 1
        assert window.consumed(50) == 50


@given(s.lists(s.tuples(s.integers(0, 400), s.floats(0, 10)), max_size=60), s.floats(0.001, 5), s.integers(0, 1000))
def test_credit_is_never_lost(taken: list[tuple[int, float]], rtt: float, spare: int) -> None:
    """What the peer may send and what it has sent are the window, at each moment, however it changes."""
    now = 0.0
    pool = Pool(100, lambda: now, spare)
    pool.heard(rtt)
    window, granted, read = Window(pool), 100, 0
    for n, seconds in taken:
        now += seconds
        n = min(n, granted - read)
        read += n
        granted += window.consumed(n)
        assert granted - read <= 100 + spare and window.size >= 100
        if n == granted - read + n:  # all is read: the peer must be able to go on
            assert granted > read
    window.release()
    assert pool.spare == spare
