"""The agent's end of `diagnose`: what it gives and takes is bounded, and ends when both have ended."""

from __future__ import annotations

from typing import Any

import pytest

from sidestage.agent.measure import MAX, PIECE, Measure


class Link:
    """As a link whose reader takes `room` bytes at a time."""

    def __init__(self, room: int) -> None:
        self.room, self.sent, self.did = room, 0, list[str]()

    def writable(self, channel: int) -> int:
        return self.room

    def send(self, channel: int, data: Any) -> None:
        self.sent += len(data)
        self.room -= len(data)

    def consumed(self, channel: int, size: int) -> None:
        self.did.append(f"consumed {size}")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.did.append(name)


def made(link: Link, give: Any) -> Measure:
    return Measure(link, 1, {"give": give})  # type: ignore[arg-type]


def test_it_gives_what_was_asked_for_as_there_is_room() -> None:
    link = Link(room=len(PIECE) + 5)
    one = made(link, len(PIECE) * 2)
    assert link.sent == len(PIECE) + 5
    one.on_eof()
    assert "send_eof" not in link.did
    link.room = 1 << 30
    one.on_credit()
    assert (link.sent, link.did[-2:]) == (len(PIECE) * 2, ["send_eof", "forget"])


def test_it_ends_when_all_has_been_taken() -> None:
    link = Link(room=9)
    one = made(link, 0)
    one.on_data(b"abc")
    one.on_eof()
    assert link.did == ["accept", "register", "consumed 3", "send_eof", "forget"]


def test_it_takes_no_more_than_the_bound() -> None:
    link = Link(room=9)
    one = made(link, 0)
    piece = memoryview(bytes(64 << 20))
    for _ in range(MAX // len(piece)):
        one.on_data(piece)
    assert "reset" not in link.did
    one.on_data(b"x")
    assert link.did[-1] == "reset"


@pytest.mark.parametrize("give", [-1, MAX + 1, "much"])
def test_what_it_does_not_give(give: Any) -> None:
    with pytest.raises(ValueError):
        made(Link(room=9), give)
