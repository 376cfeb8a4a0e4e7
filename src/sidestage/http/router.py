"""Routes one intercepted connection by its first bytes: HTTP/1, HTTP/2 with prior knowledge, or nothing of the kind.

What it is told are a connection's bytes and ends, what it answers are orders (orders.py): sockets are its shell's. The
target's own program is connected to at once. If it speaks first, or if the client's first bytes can't be HTTP, the two are
spliced without a delay.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

from sidestage.http.http2 import PREFACE, begins_settings
from sidestage.http.orders import CLIENT, POD, Eof, Note, Open, Order, Rule, Send, Timer
from sidestage.http.route1 import DETECT_TIME, Http1
from sidestage.http.route2 import Http2
from sidestage.http.wires import Wires

ENCRYPTED = "clients speak TLS, in which filters see nothing: name the certificate in feature.network.incoming.tls.certificate"
_TLS = b"\x16\x03"  # a record with a handshake, RFC 8446 5.1
MAX_EARLY = 64 << 10  # bytes that a server may send before the client's preface


class Router:
    def __init__(self, rules: Sequence[Rule]) -> None:
        """`rules`, in the order of registration, may change under way: they are read for each request."""
        self._rules = rules
        self._out: List[Order] = []
        self._route: Wires = Http1(rules, self._out)
        self._first: Optional[bytes] = b""  # what may yet be the preface of HTTP/2; None: it is known
        self._early = b""  # SETTINGS of a server of HTTP/2 that doesn't wait for the preface

    @property
    def done(self) -> bool:
        """Nothing is left to route: spliced, or over."""
        return self._route.done

    @property
    def idle(self) -> bool:
        """No request is under way, nor the beginning of one."""
        return not self._first and not self._early and self._route.idle()

    def start(self) -> List[Order]:
        self._out.append(Open(POD))
        return self._orders()

    def client(self, data: bytes) -> List[Order]:
        if self._first is not None:
            first = self._first + data
            if first[:24] == PREFACE[: len(first)]:
                if len(first) < 24:
                    if not self._first:
                        self._out.append(Timer(DETECT_TIME))
                    self._first = first
                    return self._orders()
                if self._first:
                    self._out.append(Timer(0))
                self._route, self._first = Http2(self._rules, self._out), None
                self._route.client(first)
                early, self._early = self._early, b""
                if early:
                    self._route.peer(POD, early)
                return self._orders()
            if first.startswith(_TLS):
                self._out.append(Note(0, ENCRYPTED))
            self._first = first
            self._decide()
        else:
            self._route.client(data)
        return self._orders()

    def client_eof(self) -> List[Order]:
        self._decide(ended=True)
        if not self.done:
            self._route.client_eof()
        return self._orders()

    def client_reset(self) -> List[Order]:
        self._route.client_reset()
        return self._orders()

    def peer(self, to: int, data: bytes) -> List[Order]:
        if self._first is not None and to == POD:
            self._early += data
            if len(self._early) <= MAX_EARLY and begins_settings(self._early):
                return self._orders()
            self._decide()
        else:
            self._route.peer(to, data)
        return self._orders()

    def peer_eof(self, to: int) -> List[Order]:
        if self._early and self._first is not None:
            self._out += [Send(CLIENT, self._early), Eof(CLIENT)]
            self._route.surrender(self._first, b"")
        else:
            self._decide()
            self._route.peer_eof(to)
        return self._orders()

    def peer_reset(self, to: int) -> List[Order]:
        self._route.peer_reset(to)
        return self._orders()

    def peer_failed(self, to: int) -> List[Order]:
        """It could not be connected to."""
        return self.peer_reset(to)

    def timeout(self) -> List[Order]:
        self._decide()
        if not self.done:
            self._route.timeout()
        return self._orders()

    def blocked(self, to: int) -> List[Order]:
        """What is queued for `to` has become too much."""
        self._route.blocked(to)
        return self._orders()

    def ready(self, to: int) -> List[Order]:
        self._route.ready(to)
        return self._orders()

    def _decide(self, ended: bool = False) -> None:
        """It is not HTTP/2."""
        first, self._first = self._first, None
        if first is None:
            return
        early, self._early = self._early, b""
        if early:
            self._route.surrender(first, early, ended)
        elif first:
            self._route.client(first)

    def _orders(self) -> List[Order]:
        self._route.settle()
        out = self._out[:]
        self._out.clear()
        return out
