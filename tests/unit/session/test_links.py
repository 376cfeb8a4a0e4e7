"""Calls between two agents wait for the second, or fail with the first if there is none."""

from __future__ import annotations

import socket
from typing import Any

from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop


class Ends:
    """A laptop's link, and an agent's that answers each call with its own name."""

    def __init__(self, loop: Loop, name: str) -> None:
        near, far = socket.socketpair()
        self.agent: Link = self._link(loop, far.detach(), "agent", lambda call, *_: self.agent.reply(call, {"by": name}))
        self.laptop = self._link(loop, near.detach(), "laptop", lambda *_: None)

    def _link(self, loop: Loop, fd: int, side: str, on_call: Any) -> Link:
        def closed(_reason: str) -> None:
            socket.socket(fileno=fd).close()

        return Link(
            loop, fd, fd, side, on_call=on_call, on_open=lambda *_: None, on_event=lambda *_: None, on_closed=closed
        )

    def close(self) -> None:
        self.laptop.close("lost")
        self.agent.close("lost")


def turn(loop: Loop, until: list[Any], count: int) -> None:
    loop.later(20, loop.stop)
    while len(until) < count:
        loop._once()


def test_what_is_asked_between_two_agents_is_answered_by_the_second() -> None:
    loop = Loop()
    first, second = Ends(loop, "first"), Ends(loop, "second")
    links, answers = Links(first.laptop), list[tuple[Any, int]]()

    def done(result: Any, _raw: bytes, errno: int) -> None:
        answers.append((result.get("by"), errno))

    links.call("stat", {}, done)
    turn(loop, answers, 1)
    first.close()
    links.down()
    links.call("stat", {}, done)
    links.call("read", {}, done)
    opened: list[str] = []
    links.when_up(lambda: opened.append("opened"))
    assert (answers, opened) == ([("first", 0)], [])
    links.control = second.laptop
    links.up()
    turn(loop, answers, 3)
    assert answers[1:] == [("second", 0), ("second", 0)]
    assert opened == ["opened"]
    second.close()


def test_without_a_second_it_fails() -> None:
    loop = Loop()
    first = Ends(loop, "first")
    links, answers = Links(first.laptop), list[int]()
    first.close()
    links.down()
    links.call("stat", {}, lambda _result, _raw, errno: answers.append(errno))
    links.up()
    turn(loop, answers, 1)
    assert answers == [5]
