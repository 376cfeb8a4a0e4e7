"""A connection to a port that one session has taken whole: the program's if it takes it, the target's if the kubelet asks.

A server that speaks first is not waited for, and nothing of a client's bytes is changed. That the kubelet asks is seen in the
first bytes, of gRPC in the first request: http/opening.py says how a client is brought to send that.
"""

from __future__ import annotations

from typing import Any, List, Optional

from sidestage.agent.legs import Leg
from sidestage.agent.passage import LINGER, Client, Place, Spliced
from sidestage.protocol.messages import Buffer
from sidestage.stream.loop import Timer

FIRST_BYTES = 1.0  # seconds to wait for a request that shall be answered 502
DETECT_TIME = 0.5  # seconds for the first request of HTTP/2; then the connection is the program's
_DOWN = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 59\r\n\r\n"
    b"sidestage: the local program that took this port is down.\n\n"
)
_METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ")
_PROBE = b"\r\nuser-agent: kube-probe/"
_PREFACE = b"PRI"  # the first bytes of HTTP/2's


class Whole:
    def __init__(self, place: Place, client: Client, number: int, down: str, exempt: bool) -> None:
        """`exempt`: the kubelet's probes are the target's."""
        self._place, self._client, self._down, self._exempt = place, client, down, exempt
        self._early: List[bytes] = []  # of the client
        self._opening: Any = None  # an http.opening.Opening that has them instead
        self._held: List[Buffer] = []  # of the program, while it isn't known who asks
        self._failed = False
        self._timer = Timer(lambda: None)
        client.passage = client.leg.owner = self
        self._program: Optional[Leg] = place.to_session(self, number, client)
        client.leg.start()
        if self._program is None:
            place.loop.soon(self._not_taken)

    def drain(self) -> None:
        """It has a session still."""

    # -- what happens --

    def on_open(self, leg: Leg) -> None:
        if self._known() or self._client.leg.eof_in:
            self._take()

    def on_data(self, leg: Leg, data: Buffer) -> None:
        if leg is not self._client.leg:
            if self._exempt and not self._known() and (self._opening is not None or data[:1] == b"\0"):
                self._hold(data)
            else:
                self._take()
                self._client.leg.send(data)
            return
        if self._exempt and self._opening is None and not self._early and _PREFACE.startswith(bytes(data[:3])):
            from sidestage.http.opening import Opening

            self._opening = Opening()
            self._wait()
        if self._opening is None:
            self._early.append(bytes(data))
        else:
            answer = self._opening.feed(bytes(data))
            if answer:
                leg.send(answer)
        if self._known():
            self._decide()

    def on_eof(self, leg: Leg) -> None:
        if leg is not self._client.leg or (self._program is not None and self._program.open):
            self._take()
        # else the leg remembers it

    def on_reset(self, leg: Leg) -> None:
        self._timer.cancel()
        other = self._program if leg is self._client.leg else self._client.leg
        if other is not None:
            other.reset()

    def on_failed(self, leg: Leg) -> None:
        self._program = None
        self._not_taken()

    def on_blocked(self, leg: Leg) -> None:
        return

    def on_ready(self, leg: Leg) -> None:
        return

    # -- what to do --

    def _known(self) -> bool:
        """Has the client said who it is?"""
        return bool(self._early) if self._opening is None else self._opening.probe is not None

    def _decide(self) -> None:
        program = self._program
        if self._opening.probe if self._opening is not None else self._exempt and is_probe(self._early[0]):
            if program is not None:
                program.reset()
            self._pass()
        elif self._failed:
            self._not_taken()
        elif program is not None and program.open:
            self._take()
        else:
            self._client.leg.read(False)  # until it is known whose it is

    def _hold(self, data: Buffer) -> None:
        """The program's SETTINGS, perhaps, before the client's first request."""
        from sidestage.http.http2 import begins_settings

        self._held.append(data)
        if self._opening is None and not begins_settings(bytes(self._held[0])):
            self._take()
        elif len(self._held) == 1:
            assert self._program is not None
            self._program.read(False)
            self._wait()

    def _wait(self) -> None:
        self._timer.cancel()
        self._timer = self._place.loop.later(DETECT_TIME, self._late)

    def _late(self) -> None:
        """No kubelet waits so long."""
        if self._client.leg.over or self._client.passage is not self or (self._known() and not self._held):
            return
        if self._opening is not None and self._opening.probe is None:
            self._opening.probe = False
        if self._known():
            self._decide()
        elif self._held:
            self._take()

    def _take(self) -> None:
        assert self._program is not None
        self._join(self._program)

    def _pass(self) -> None:
        self._held.clear()
        self._join(self._place.to_pod(self, self._client))

    def _join(self, leg: Leg) -> None:
        self._timer.cancel()
        client = self._client
        if self._opening is None:
            for data in self._early:
                leg.send(data)
            client.passage = Spliced(client.leg, leg)
        else:
            leg.send(self._opening.take())
            client.passage = Spliced(client.leg, leg) if self._opening.settled else Settling(client.leg, leg, self._opening)
        for held in self._held:
            client.leg.send(held)

    def _not_taken(self) -> None:
        client = self._client.leg
        if client.over or self._client.passage is not self:
            return
        if self._down == "pass":
            self._pass()
        elif not self._known() and not client.eof_in and not self._failed:
            self._failed = True
            client.read(True)
            self._place.loop.later(FIRST_BYTES, self._not_taken)
        elif self._early and self._early[0].startswith(_METHODS):
            client.send(_DOWN)
            client.dismiss(LINGER)
        else:
            client.reset()


class Settling(Spliced):
    """Until the client has acknowledged the SETTINGS that were ours."""

    def __init__(self, client: Leg, other: Leg, opening: Any) -> None:
        self._from, self._opening = client, opening
        super().__init__(client, other)

    def on_data(self, leg: Leg, data: Buffer) -> None:
        if leg is self._from and not self._opening.settled:
            self._opening.feed(bytes(data))
            data = self._opening.take()
        if data:
            super().on_data(leg, data)


def is_probe(data: bytes) -> bool:
    """Is this the beginning of an HTTP/1.1 probe of the kubelet?"""
    return data.startswith(b"GET ") and _PROBE in data[:4096].lower()
