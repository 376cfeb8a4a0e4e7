"""The resolver's files are asked for once in a while; all others each time."""

from __future__ import annotations

from typing import Any

import pytest

from sidestage.session import recent
from sidestage.session.recent import Recent

Answer = tuple[dict[str, Any], bytes, int]


class Agent:
    def __init__(self, answer: Answer) -> None:
        self.answer, self.asked = answer, list[tuple[str, dict[str, Any]]]()

    def call(self, op: str, args: dict[str, Any], done: Any, raw: bytes = b"") -> None:
        self.asked.append((op, args))
        done(*self.answer)


def ask(agent: Agent, *calls: tuple[str, dict[str, Any]], memory: Recent | None = None) -> int:
    """How many of the calls the agent saw; each must be answered as the agent does."""
    memory = memory or Recent(agent)  # type: ignore[arg-type]
    before = len(agent.asked)
    for op, args in calls:
        got: list[Answer] = []
        memory.call(op, args, lambda *answer, got=got: got.append(answer))
        assert got == [agent.answer]
    return len(agent.asked) - before


HOSTS = ("open", {"path": "/etc/hosts", "follow": True})
WHOLE: Answer = ({"stat": [1], "handle": 0, "eof": True}, b"127.0.0.1 localhost\n", 0)


@pytest.mark.parametrize(
    ("answer", "calls", "asked"),
    [
        (WHOLE, [HOSTS, HOSTS, HOSTS], 1),
        (WHOLE, [HOSTS, ("open", {"path": "/etc/hosts", "follow": False})], 2),
        (WHOLE, [HOSTS, ("stat", {"path": "/etc/hosts", "follow": True})], 2),
        (WHOLE, [("open", {"path": "/etc/passwd", "follow": True})] * 2, 2),
        (WHOLE, [("read", {"handle": 3, "offset": 0, "size": 9})] * 2, 2),
        (WHOLE, [("access", {"path": "/etc/hosts", "mode": 4}), ("access", {"path": "/etc/hosts", "mode": 2})], 2),
        (({"stat": [1], "handle": 5, "eof": False}, b"x", 0), [HOSTS, HOSTS], 2),  # a handle is one opener's
        (({}, b"", 2), [HOSTS, HOSTS], 1),
        (({}, b"", 5), [HOSTS, HOSTS], 2),  # the link has failed: no word about the file
    ],
)
def test_what_is_remembered(answer: Answer, calls: list[tuple[str, dict[str, Any]]], asked: int) -> None:
    assert ask(Agent(answer), *calls) == asked


def test_for_a_few_seconds_and_for_one_target(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    agent = Agent(WHOLE)
    memory = Recent(agent)  # type: ignore[arg-type]
    assert ask(agent, HOSTS, HOSTS, memory=memory) == 1
    now += recent.SECONDS + 0.1
    assert ask(agent, HOSTS, HOSTS, memory=memory) == 1
    memory.forget()
    assert ask(agent, HOSTS, memory=memory) == 1
