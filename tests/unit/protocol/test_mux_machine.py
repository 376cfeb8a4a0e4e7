"""Two muxes and two pipes that deliver whatever slices they like: a state machine that knows what each side may see.

What must hold: a channel's bytes arrive equal and in order; no more is under way than the window, and all windows together grow
by no more than they may, however the clock runs; a side that has reset or refused a channel hears no more of it; nothing waits
for ever; what has ended is forgotten on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as s
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidestage.protocol import wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import (
    Accepted,
    Called,
    CallFailed,
    Credit,
    Data,
    Eof,
    Event,
    Noticed,
    Opened,
    Pong,
    Refused,
    Replied,
    Reset,
)  # fmt: skip
from sidestage.protocol.mux import Mux

SIDES = ("laptop", "agent")
PEER = {"laptop": "agent", "agent": "laptop"}
OPENING, ASKED, OPEN, GONE = "opening", "asked", "open", "gone"
side_of, index, size = s.sampled_from(SIDES), s.integers(0, 7), s.integers(0, 300)


@dataclass
class View:
    """A channel as one side has it."""

    state: str
    sent: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    consumed: int = 0
    eof_out: bool = False
    eof_in: bool = False


class Machine(RuleBasedStateMachine):
    @initialize(
        window=s.sampled_from([1, 2, 7, 64, 1000]), max_data=s.sampled_from([1, 5, 64]), grown=s.sampled_from([0, 3, 5000])
    )
    def start(self, window: int, max_data: int, grown: int) -> None:
        self.window, self.grown, self.now = window, grown, 1.0
        self.mux = {
            side: Mux(side, window=window, max_data=max_data, max_grown=grown, clock=lambda: self.now) for side in SIDES
        }
        self.wire = {side: bytearray() for side in SIDES}  # what that side has written and the peer not read
        self.views: dict[str, dict[int, View]] = {side: {} for side in SIDES}
        self.asked: dict[str, dict[int, tuple[str, bytes]]] = {side: {} for side in SIDES}  # calls without their answer
        self.to_answer: dict[str, list[int]] = {side: [] for side in SIDES}
        self.expected: dict[str, dict[int, tuple[object, ...]]] = {side: {} for side in SIDES}
        self.notices: dict[str, list[int]] = {side: [] for side in SIDES}
        self.pings: dict[str, list[int]] = {side: [] for side in SIDES}
        self.count = 0
        for side in SIDES:  # so that most steps have something to do
            self.open(side)
            self.settle()
            self.decide(PEER[side], 0, True)
        self.settle()

    def some(self, side: str, which: int, *states: str) -> tuple[int, View] | None:
        found = [(number, view) for number, view in self.views[side].items() if view.state in states]
        return found[which % len(found)] if found else None

    def any(self, *states: str) -> bool:
        return any(view.state in states for views in self.views.values() for view in views.values())

    # -- orders --

    @precondition(lambda self: all(len(views) < 12 for views in self.views.values()))
    @rule(side=side_of)
    def open(self, side: str) -> None:
        number = self.mux[side].open("tcp", {"host": "::1"})
        assert number not in self.views[side] and number % 2 == (side == "laptop")
        self.views[side][number] = View(OPENING)
        assert self.mux[side].writable(number) == self.window

    @precondition(lambda self: self.any(ASKED))
    @rule(side=side_of, which=index, yes=s.booleans())
    def decide(self, side: str, which: int, yes: bool) -> None:
        if found := self.some(side, which, ASKED):
            number, view = found
            view.state = OPEN if yes else GONE
            self.mux[side].accept(number, {"n": number}) if yes else self.mux[side].refuse(number, 111, "no")

    @precondition(lambda self: self.any(OPEN))
    @rule(side=side_of, which=index, n=size)
    def send(self, side: str, which: int, n: int) -> None:
        if found := self.some(side, which, OPEN, OPENING):
            number, view = found
            room = self.mux[side].writable(number)
            assert not (view.eof_out and room)
            n = min(n, room)
            if n or not view.eof_out:
                data = bytes((len(view.sent) + at) * 7 & 0xFF for at in range(n))
                self.mux[side].send(number, data)
                view.sent += data

    @precondition(lambda self: self.any(OPEN))
    @rule(side=side_of, which=index)
    def send_too_much(self, side: str, which: int) -> None:
        if found := self.some(side, which, OPEN, OPENING):
            with pytest.raises(ProtocolError) as caught:
                self.mux[side].send(found[0], bytes(self.mux[side].writable(found[0]) + 1))
            assert not caught.value.remote

    @precondition(lambda self: self.any(OPEN))
    @rule(side=side_of, which=index)
    def send_eof(self, side: str, which: int) -> None:
        if found := self.some(side, which, OPEN):
            number, view = found
            self.mux[side].send_eof(number)
            view.eof_out = True
            self.end_if_done(view)

    @rule(side=side_of, which=index)
    def reset(self, side: str, which: int) -> None:
        if found := self.some(side, which, OPENING, ASKED, OPEN):
            self.mux[side].reset(found[0])
            found[1].state = GONE

    @precondition(lambda self: self.any(OPEN))
    @rule(side=side_of, which=index, n=size)
    def consume(self, side: str, which: int, n: int) -> None:
        if found := self.some(side, which, OPEN, ASKED):
            number, view = found
            n = min(n, len(view.got) - view.consumed)
            view.consumed += n
            self.mux[side].consumed(number, n)

    @precondition(lambda self: self.any(OPEN))
    @rule(side=side_of, which=index, n=size)
    def carry(self, side: str, which: int, n: int) -> None:
        """A whole life of some bytes, which chance alone seldom plays."""
        self.send(side, which, n)
        self.exchange(side)
        self.consume(PEER[side], which, n)

    @precondition(lambda self: self.any(GONE))
    @rule(side=side_of, which=index)
    def orders_to_what_has_ended_are_nothing(self, side: str, which: int) -> None:
        if found := self.some(side, which, GONE):
            number, mux = found[0], self.mux[side]
            before = mux.pending()
            mux.send(number, b"late")
            mux.send_eof(number)
            mux.reset(number)
            mux.accept(number, {})
            mux.refuse(number, 1)
            mux.consumed(number, 5)
            assert mux.pending() == before and mux.writable(number) == 0

    @rule(side=side_of, raw=s.binary(max_size=20))
    def call(self, side: str, raw: bytes) -> None:
        self.count += 1
        op = f"op{self.count}"
        self.asked[side][self.mux[side].call(op, {"x": self.count}, raw)] = op, raw

    @rule(side=side_of, which=index, ok=s.booleans())
    def answer(self, side: str, which: int, ok: bool) -> None:
        """In any order."""
        if waiting := self.to_answer[side]:
            call = waiting.pop(which % len(waiting))
            self.expected[PEER[side]][call] = ({"r": call}, b"raw") if ok else (2, "none")
            self.mux[side].reply(call, {"r": call}, b"raw") if ok else self.mux[side].fail(call, 2, "none")

    @rule(side=side_of)
    def notice(self, side: str) -> None:
        self.count += 1
        self.notices[side].append(self.count)
        self.mux[side].event("said", {"n": self.count})

    @rule(seconds=s.sampled_from([0.001, 0.02, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(side=side_of, token=s.integers(0, 0xFFFFFFFF))
    def ping(self, side: str, token: int) -> None:
        self.pings[side].append(token)
        self.mux[side].ping(token)

    # -- the wire --

    @rule(side=side_of, limit=s.sampled_from([0, 1, 30, 1 << 20]))
    def write(self, side: str, limit: int) -> None:
        mux = self.mux[side]
        before = mux.pending()
        out = b"".join(mux.take(limit))
        assert mux.pending() == before - len(out)
        self.wire[side] += out

    @rule(side=side_of, n=s.integers(1, 400))
    def deliver(self, side: str, n: int) -> None:
        data = bytes(self.wire[side][:n])
        del self.wire[side][:n]
        for event in self.mux[PEER[side]].feed(data):
            self.see(PEER[side], event)

    @rule(side=side_of)
    def exchange(self, side: str) -> None:
        self.write(side, 1 << 20)
        self.deliver(side, len(self.wire[side]))

    def see(self, side: str, event: Event) -> None:
        peer = PEER[side]
        if isinstance(event, Called):
            assert (event.op, event.raw) == self.asked[peer][event.call]
            self.to_answer[side].append(event.call)
        elif isinstance(event, (Replied, CallFailed)):
            del self.asked[side][event.call]
            assert tuple(event[1:]) == self.expected[side].pop(event.call)
        elif isinstance(event, Noticed):
            assert event.args["n"] == self.notices[peer].pop(0)
        elif isinstance(event, Pong):
            assert event.token == self.pings[side].pop(0)
        elif isinstance(event, Opened):
            assert event.channel not in self.views[side] and event.kind == "tcp" and event.args == {"host": "::1"}
            self.views[side][event.channel] = View(ASKED)
        else:
            self.see_channel(self.views[side], self.views[peer], event)

    def see_channel(self, views: dict[int, View], theirs: dict[int, View], event: Event) -> None:
        assert isinstance(event, (Accepted, Refused, Data, Eof, Reset, Credit))
        view, other = views[event.channel], theirs[event.channel]
        if isinstance(event, Accepted):
            assert view.state == OPENING and event.info == {"n": event.channel}
            view.state = OPEN
        elif isinstance(event, Refused):
            assert view.state == OPENING and (event.errno, event.text) == (111, "no")
            view.state = GONE
        elif isinstance(event, Data):
            assert view.state in (OPEN, ASKED) and not view.eof_in
            view.got += event.data
        elif isinstance(event, Eof):
            assert view.state == OPEN and not view.eof_in and view.got == other.sent
            view.eof_in = True
            self.end_if_done(view)
        elif isinstance(event, Reset):
            assert view.state != GONE and other.state == GONE
            view.state = GONE
        else:
            assert view.state in (OPEN, OPENING) and not view.eof_out

    def end_if_done(self, view: View) -> None:
        if view.eof_in and view.eof_out:
            view.state = GONE

    # -- what always holds --

    @invariant()
    def bytes_arrive_in_order_and_within_the_windows(self) -> None:
        for side in SIDES if hasattr(self, "views") else ():
            beyond = 0
            for number, view in self.views[side].items():
                other = self.views[PEER[side]].get(number, View(GONE))
                assert view.sent[: len(other.got)] == other.got
                if GONE not in (view.state, other.state):
                    under_way = len(view.sent) - other.consumed
                    beyond += max(under_way + self.mux[side].writable(number) - self.window, 0)
            assert beyond <= self.grown

    def settle(self) -> None:
        while any(self.wire.values()) or any(mux.pending() for mux in self.mux.values()):
            for side in SIDES:
                self.write(side, 1 << 20)
                self.deliver(side, 1 << 20)

    def teardown(self) -> None:
        if not hasattr(self, "views"):
            return
        self.settle()
        for side in SIDES:
            while self.to_answer[side]:
                self.answer(side, 0, True)
            while self.some(side, 0, ASKED):
                self.decide(side, 0, True)
        self.settle()
        for side in SIDES:
            for number, view in self.views[side].items():
                if view.state == OPEN:
                    assert view.got == self.views[PEER[side]][number].sent
                    self.mux[side].consumed(number, len(view.got) - view.consumed)
                    view.consumed = len(view.got)
        self.settle()
        for side in SIDES:
            assert not (self.asked[side] or self.expected[side] or self.notices[side] or self.pings[side])
            for number, view in self.views[side].items():
                other = self.views[PEER[side]][number]
                assert (view.state == GONE) == (other.state == GONE)
                if view.state == OPEN and not view.eof_out:  # nobody waits for ever
                    assert self.mux[side].writable(number) * 2 > self.window
        for side in SIDES:
            while any(view.state == OPEN and not view.eof_out for view in self.views[side].values()):
                for number, view in self.views[side].items():
                    if view.state == OPEN and not view.eof_out:
                        self.mux[side].send_eof(number)
                        view.eof_out = True
                        self.end_if_done(view)
        self.settle()
        for side in SIDES:
            assert all(view.state == GONE for view in self.views[side].values())
            assert not self.mux[side]._channels  # forgotten on both sides
            assert self.mux[side]._pool.spare == self.grown


TestMux = Machine.TestCase
TestMux.settings = settings(max_examples=250, stateful_step_count=80, deadline=None)


def test_the_limits_are_what_the_machine_assumes() -> None:
    assert wire.WINDOW >= 2 * wire.MAX_DATA and wire.MAX_PAYLOAD > wire.WINDOW
