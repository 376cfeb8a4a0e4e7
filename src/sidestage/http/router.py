"""Routes one intercepted connection by its first bytes: HTTP/1, HTTP/2 with prior knowledge, or nothing of the kind.

What it is told are a connection's bytes and ends, what it answers are orders (orders.py): sockets are its shell's. The
target's own program is connected to at once. If it speaks first, or if the client's first bytes can't be HTTP, the two are
spliced without a delay.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

from sidestage.http.orders import POD, Open, Order, Rule
from sidestage.http.route1 import Http1
from sidestage.http.wires import Wires


class Router:
    def __init__(self, rules: Sequence[Rule]) -> None:
        """`rules`, in the order of registration, may change under way: they are read for each request."""
        self._rules = rules
        self._out: List[Order] = []
        self._route: Wires = Http1(rules, self._out)
        self._first: Optional[bytes] = b""  # what may yet be the preface of HTTP/2; None: it is known

    @property
    def done(self) -> bool:
        """Nothing is left to route: spliced, or over."""
        return self._route.done

    def start(self) -> List[Order]:
        self._out.append(Open(POD))
        return self._orders()

    def client(self, data: bytes) -> List[Order]:
        self._route.client(data)
        return self._orders()

    def client_eof(self) -> List[Order]:
        self._decide()
        self._route.client_eof()
        return self._orders()

    def client_reset(self) -> List[Order]:
        self._route.client_reset()
        return self._orders()

    def peer(self, to: int, data: bytes) -> List[Order]:
        self._decide()
        self._route.peer(to, data)
        return self._orders()

    def peer_eof(self, to: int) -> List[Order]:
        self._decide()
        self._route.peer_eof(to)
        return self._orders()

    def peer_reset(self, to: int) -> List[Order]:
        self._decide()
        self._route.peer_reset(to)
        return self._orders()

    def peer_failed(self, to: int) -> List[Order]:
        """It could not be connected to."""
        return self.peer_reset(to)

    def timeout(self) -> List[Order]:
        self._decide()
        self._route.timeout()
        return self._orders()

    def blocked(self, to: int) -> List[Order]:
        """What is queued for `to` has become too much."""
        self._route.blocked(to)
        return self._orders()

    def ready(self, to: int) -> List[Order]:
        self._route.ready(to)
        return self._orders()

    def _decide(self) -> None:
        """Something else came than the rest of a preface."""
        if self._first:
            first, self._first = self._first, None
            self._route.client(first)

    def _orders(self) -> List[Order]:
        self._route.settle()
        out = self._out[:]
        self._out.clear()
        return out
