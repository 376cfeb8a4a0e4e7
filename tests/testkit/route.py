"""A router between a client and programs that are all in this process: what each of them was sent, and in what state it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidestage.http.filters import Filter
from sidestage.http.orders import CLIENT, POD, Close, Eof, Note, Open, Order, Pause, Reset, Resume, Rule, Send, Splice, Timer
from sidestage.http.router import Router


def rule(number: int = 1, down: str = "pass", **spec: Any) -> Rule:
    return Rule(number, Filter(spec), down)


class Play:
    """Carries orders out on paper, and checks the rules of the game that they must keep."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.router = Router(rules)
        self.sent: dict[int, bytes] = {}  # all bytes that each was sent, over all its connections
        self.log: list[str] = []  # opens and ends, in order
        self.open: set[int] = set()
        self.eofs: set[int] = set()
        self.paused: set[int] = set()
        self.spliced: int | None = None
        self.timer = 0.0
        self.notes: list[str] = []
        self.over = False
        self._do(self.router.start())

    def _do(self, orders: list[Order]) -> None:
        for order in orders:
            assert not self.over, order
            assert self.spliced is None, order
            match order:
                case Send(to, data):
                    assert data
                    assert isinstance(data, bytes)
                    assert to not in self.eofs
                    assert to == CLIENT or to in self.open, order
                    self.sent[to] = self.sent.get(to, b"") + data
                case Open(to):
                    assert to not in self.open
                    self.open.add(to)
                    self.eofs.discard(to)
                    self.log.append(f"open {to}")
                case Eof(to):
                    assert to not in self.eofs
                    self.eofs.add(to)
                    self.log.append(f"eof {to}")
                case Close(to):
                    self.open.remove(to)
                    self.log.append(f"close {to}")
                case Reset(to):
                    if to == CLIENT:
                        self.over = True
                    else:
                        self.open.remove(to)
                    self.log.append(f"reset {to}")
                case Splice(to):
                    assert self.open == {to}
                    self.spliced = to
                    self.log.append(f"splice {to}")
                case Pause(source):
                    assert source not in self.paused
                    self.paused.add(source)
                case Resume(source):
                    self.paused.remove(source)
                case Timer(seconds):
                    self.timer = seconds
                case Note(_, text):
                    self.notes.append(text)

    def client(self, data: bytes, step: int = 0) -> Play:
        return self._feed(CLIENT, self.router.client, data, step)

    def peer(self, to: int, data: bytes, step: int = 0) -> Play:
        return self._feed(to, lambda part: self.router.peer(to, part), data, step)

    def _feed(self, source: int, enter: Callable[[bytes], list[Order]], data: bytes, step: int) -> Play:
        for at in range(0, len(data), step or len(data) or 1):
            part = data[at : at + step] if step else data
            if self.spliced is not None:
                to = self.spliced if source == CLIENT else CLIENT
                self.sent[to] = self.sent.get(to, b"") + part
            elif not self.over and (source == CLIENT or source in self.open):
                self._do(enter(part))
        return self

    def client_eof(self) -> Play:
        self._do(self.router.client_eof())
        return self

    def client_reset(self) -> Play:
        self._do(self.router.client_reset())
        self.over = True
        return self

    def peer_eof(self, to: int) -> Play:
        assert to in self.open
        self._do(self.router.peer_eof(to))
        return self

    def peer_reset(self, to: int) -> Play:
        self.open.remove(to)
        self._do(self.router.peer_reset(to))
        return self

    def timeout(self) -> Play:
        assert self.timer
        self.timer = 0
        self._do(self.router.timeout())
        return self

    def blocked(self, to: int) -> Play:
        self._do(self.router.blocked(to))
        return self

    def ready(self, to: int) -> Play:
        self._do(self.router.ready(to))
        return self

    def take(self, to: int) -> bytes:
        """What `to` was sent since the last take."""
        return self.sent.pop(to, b"")

    @property
    def pod(self) -> bytes:
        return self.take(POD)

    @property
    def answer(self) -> bytes:
        return self.take(CLIENT)
