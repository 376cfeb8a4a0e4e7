"""The connections of one router, as it knows them, and the orders about them; base of route1.py and route2.py."""

from __future__ import annotations

from typing import List, Sequence, Set

from sidestage.http.orders import CLIENT, POD, Close, Eof, Open, Order, Pause, Reset, Resume, Rule, Send, Splice, Timer


class Wires:
    def __init__(self, rules: Sequence[Rule], out: List[Order]) -> None:
        """`out` takes the orders. The connection to POD is open."""
        self._rules, self._out = rules, out
        self.done = False
        self._client_ended = False
        self._open: Set[int] = {POD}
        self._eofs: Set[int] = set()  # those of them that were told the client's end
        self._blocked: Set[int] = set()
        self._paused: Set[int] = set()
        self._timing = 0.0

    def _ensure(self, to: int) -> None:
        if to not in self._open:
            self._open.add(to)
            for known in (self._eofs, self._blocked, self._paused):
                known.discard(to)
            self._out.append(Open(to))

    def _eof(self, to: int) -> None:
        if to not in self._eofs:
            self._eofs.add(to)
            self._out.append(Eof(to))

    def _close(self, to: int) -> None:
        self._open.discard(to)
        self._out.append(Close(to))

    def _reset(self) -> None:
        self._timer(0)
        self._out += [Reset(to) for to in sorted(self._open)]
        self._out.append(Reset(CLIENT))
        self.done = True

    def client(self, data: bytes) -> None:
        raise NotImplementedError

    def client_eof(self) -> None:
        raise NotImplementedError

    def peer(self, to: int, data: bytes) -> None:
        raise NotImplementedError

    def peer_eof(self, to: int) -> None:
        raise NotImplementedError

    def peer_reset(self, to: int) -> None:
        raise NotImplementedError

    def timeout(self) -> None:
        raise NotImplementedError

    def idle(self) -> bool:
        """No request is under way."""
        raise NotImplementedError

    def client_reset(self) -> None:
        self._out += [Reset(to) for to in sorted(self._open)]
        self.done = True

    def surrender(self, up: bytes, down: bytes, ended: bool = False) -> None:
        """The connection is POD's."""
        self._client_ended = self._client_ended or ended
        self._splice_raw(POD, up, down)

    def _splice_raw(self, to: int, up: bytes, down: bytes) -> None:
        """All is decided: `up` still goes to `to`, and `down` to the client."""
        self._timer(0)
        for other in sorted(self._open - {to}):
            self._close(other)
        self._ensure(to)
        if up:
            self._out.append(Send(to, up))
        if self._client_ended:
            self._eof(to)
        if down:
            self._out.append(Send(CLIENT, down))
        self._out.append(Splice(to))
        self.done = True

    def _timer(self, seconds: float) -> None:
        if self._timing != seconds:
            self._timing = seconds
            self._out.append(Timer(seconds))

    def blocked(self, to: int) -> None:
        self._blocked.add(to)

    def ready(self, to: int) -> None:
        self._blocked.discard(to)

    def settle(self) -> None:
        """Behind each input: nobody is read whose bytes have no place to go."""
        if self.done or not (self._blocked or self._paused or self._full()):
            return
        wanted = set(self._open) if CLIENT in self._blocked else set()
        if self._full():
            wanted.add(CLIENT)
        self._out += [Pause(source) for source in sorted(wanted - self._paused)]
        self._out += [Resume(source) for source in sorted((self._paused - wanted) & {CLIENT, *self._open})]
        self._paused = wanted

    def _full(self) -> bool:
        """Is there no room for more of the client's bytes?"""
        raise NotImplementedError
