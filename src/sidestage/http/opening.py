"""The beginning of a connection of HTTP/2 to a port that is taken whole: is it the kubelet that asks? Pure, sans-IO.

Its gRPC probes say so in their first request (User-Agent: kube-probe/..., pkg/probe/grpc in Kubernetes), but like all of gRPC's
clients they send none before they have seen SETTINGS of the server. So the client is told SETTINGS without a word, which
are what holds until said otherwise (RFC 9113 6.5.2), and its acknowledgement of them is kept from whoever gets the connection:
that server's own SETTINGS come later, as they may at any time. All else passes as it came.
"""

from __future__ import annotations

from typing import List, Optional

from sidestage.http.hpack import Decoder, HpackError
from sidestage.http.http2 import ACK, MAX_FRAME, PREFACE, SETTINGS, Blocks, BrokenFrame, Frame, Splitter, fragment, settings

MAX_KEPT = 64 << 10  # bytes before the first request
AGENT = b"kube-probe/"


class Opening:
    def __init__(self) -> None:
        self.probe: Optional[bool] = None  # None: not known yet
        self._kept = b""
        self._frames, self._blocks = Splitter(), Blocks()
        self._frames.limit = MAX_FRAME
        self._begun = self._greeted = False
        self._owed = False  # an acknowledgement that is ours

    @property
    def settled(self) -> bool:
        """Nothing that comes needs to be looked at any more."""
        return self.probe is not None and not self._owed

    def feed(self, data: bytes) -> bytes:
        """Takes what the client sent, and gives what it is to be told."""
        if not self._begun:
            self._kept += data
            if self._kept[:24] != PREFACE[: len(self._kept)]:
                self.probe = False
            if len(self._kept) < 24 or self.probe is not None:
                return b""
            self._begun, data, self._kept = True, self._kept[24:], PREFACE
        try:
            for each in self._frames.feed(data):
                self._frame(each)
        except (BrokenFrame, HpackError):  # somebody else's to judge
            self.probe, self._owed = bool(self.probe), False
        if self.probe is None and len(self._kept) > MAX_KEPT:
            self.probe = False
        if self.probe is not None or self._greeted:
            return b""
        self._greeted = self._owed = True
        return settings({})

    def _frame(self, each: Frame) -> None:
        if self._owed and each.kind == SETTINGS and each.flags & ACK:
            self._owed = False
            return
        self._kept += each.raw
        if self.probe is None:
            block = self._blocks.feed(each)
            if block:
                self.probe = _kubelet(block)

    def take(self) -> bytes:
        """What goes on to whoever has the connection now; once it is settled, all that has come."""
        if self.probe is None:
            self.probe = False
        kept, self._kept = self._kept, b""
        return kept if self._owed else kept + self._frames.rest()


def may_open(data: bytes) -> bool:
    """Are these the first bytes of a client of HTTP/2?"""
    return data[:24] == PREFACE[: len(data)]


def _kubelet(block: List[Frame]) -> bool:
    fields, _ = Decoder().decode(fragment(block))
    return any(field.name == b"user-agent" and field.value.startswith(AGENT) for field in fields)
