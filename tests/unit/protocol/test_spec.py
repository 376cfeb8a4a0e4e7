"""docs/protocol.md says what the code does: its tables of types and limits, and its example byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidestage.protocol import window, wire
from sidestage.protocol.messages import (
    Accepted,
    Bye,
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
from sidestage.stream import link

SPEC = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
Order = Callable[[Mux], object]
# (side, what it does, the order to its mux, what the other side is told)
SCENE: list[tuple[str, str, Order, list[Event]]] = [
    ("laptop", "the preamble: magic, version 1", lambda m: None, []),
    ("agent", "its own", lambda m: None, []),
    ("laptop", "CALL 1", lambda m: m.call("readlink", {"path": "/a"}), [Called(1, "readlink", {"path": "/a"}, b"")]),
    ("agent", "REPLY 1, with raw bytes behind the JSON", lambda m: m.reply(1, {}, b"/b"), [Replied(1, {}, b"/b")]),
    ("laptop", "CALL 2", lambda m: m.call("close", {"handle": 9}), [Called(2, "close", {"handle": 9}, b"")]),
    ("agent", "FAIL 2", lambda m: m.fail(2, 9, "no such handle"), [CallFailed(2, 9, "no such handle")]),
    ("laptop", "OPEN 1", lambda m: m.open("unix", {"path": "/s"}), [Opened(1, "unix", {"path": "/s"})]),
    ("agent", "ACCEPT 1", lambda m: m.accept(1, {}), [Accepted(1, {})]),
    ("laptop", "DATA 1", lambda m: m.send(1, b"ping"), [Data(1, b"ping")]),
    ("laptop", "EOF 1: nothing more from here", lambda m: m.send_eof(1), [Eof(1)]),
    ("agent", "DATA 1: the other direction goes on", lambda m: m.send(1, b"pong"), [Data(1, b"pong")]),
    ("agent", "EOF 1: the channel has ended", lambda m: m.send_eof(1), [Eof(1)]),
    ("agent", "OPEN 2: the agent's numbers are even", lambda m: m.open("mirror", {}), [Opened(2, "mirror", {})]),
    ("laptop", "ACCEPT 2", lambda m: m.accept(2, {}), [Accepted(2, {})]),
    ("agent", "RESET 2", lambda m: m.reset(2), [Reset(2)]),
    ("laptop", "OPEN 3", lambda m: m.open("unix", {"path": "/t"}), [Opened(3, "unix", {"path": "/t"})]),
    ("agent", "REFUSE 3", lambda m: m.refuse(3, 111, ""), [Refused(3, 111, "")]),
    ("agent", "EVENT", lambda m: m.event("warning", {"text": "hi"}), [Noticed("warning", {"text": "hi"})]),
    ("laptop", "PING 7", lambda m: m.ping(7), []),
    ("agent", "PONG 7, by the mux itself", lambda m: None, [Pong(7)]),
    ("laptop", "BYE", lambda m: m.bye(), [Bye()]),
]


def exchange() -> Iterator[tuple[str, str, bytes]]:
    """(side, what, bytes) of the scene, each checked at the other side."""
    muxes = {side: Mux(side, clock=lambda: 0.0) for side in ("laptop", "agent")}
    for side, what, order, told in SCENE:
        order(muxes[side])
        sent = b"".join(bytes(part) for part in muxes[side].take(1 << 20))
        events = muxes["agent" if side == "laptop" else "laptop"].feed(sent)
        assert events == told, what
        yield side, what, sent


def example() -> list[tuple[str, str, bytes]]:
    """The same, as the page has it."""
    found: list[tuple[str, str, bytes]] = []
    block = SPEC.partition("## An example")[2].partition("```text\n")[2].partition("```")[0]
    for line in block.splitlines():
        side, digits = line[:7].strip(), bytes.fromhex(line[8:55].strip())
        if side:
            found.append((side, line[56:].partition("   ")[2].strip(), digits))
        else:
            found[-1] = (*found[-1][:2], found[-1][2] + digits)
    return found


def test_the_example_is_what_the_muxes_say() -> None:
    page, scene = example(), list(exchange())
    assert [line[::2] for line in page] == [line[::2] for line in scene]
    for (_, said, _), (_, what, _) in zip(page, scene, strict=True):
        assert said.endswith(what)


def test_the_types_are_those_of_the_code() -> None:
    rows = {name: int(number) for number, name in re.findall(r"^\| (\d+) \| `([A-Z]+)` \|", SPEC, re.M)}
    names = "CALL REPLY FAIL OPEN ACCEPT REFUSE DATA EOF RESET CREDIT EVENT PING PONG BYE".split()
    assert rows == {name: getattr(wire, name) for name in names}
    assert sorted(rows.values()) == list(wire.KINDS)


@pytest.mark.parametrize(
    "name, value",
    [
        ("WINDOW", wire.WINDOW), ("MAX_DATA", wire.MAX_DATA), ("MAX_PAYLOAD", wire.MAX_PAYLOAD), ("MAX_RECORD", wire.MAX_RECORD),
        ("MAX_CHANNELS", wire.MAX_CHANNELS), ("MAX_CALLS", wire.MAX_CALLS), ("MAX_GROWN", window.MAX_GROWN),
        ("HEARTBEAT", int(link.HEARTBEAT)), ("SILENCE", int(link.SILENCE)),
    ],
)  # fmt: skip
def test_the_limits_are_those_of_the_code(name: str, value: int) -> None:
    (said,) = re.findall(rf"^\| `{name}` \| ([\d ]+) ", SPEC, re.M)
    assert int(said.replace(" ", "")) == value


def test_credit_is_granted_in_batches() -> None:
    """As the page says: from half a window on, by a CREDIT of four bytes."""
    laptop, agent = Mux("laptop", clock=lambda: 0.0), Mux("agent", clock=lambda: 0.0)

    def pass_on(source: Mux, sink: Mux) -> list[Event]:
        return sink.feed(b"".join(bytes(part) for part in source.take(1 << 22)))

    channel = laptop.open("tcp", {})
    pass_on(laptop, agent)
    agent.accept(channel, {})
    pass_on(agent, laptop)
    part = wire.WINDOW // 2
    laptop.send(channel, bytes(part))
    pass_on(laptop, agent)
    agent.consumed(channel, part - 1)
    assert pass_on(agent, laptop) == []
    agent.consumed(channel, 1)
    assert pass_on(agent, laptop) == [Credit(channel, wire.WINDOW)]
