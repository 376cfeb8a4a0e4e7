"""Mirrored connections of which only some requests are told: a channel is opened with the first that matches."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from sidestage.agent.tcp import Key
from sidestage.http.filters import Filter
from sidestage.http.orders import Note, Rule
from sidestage.http.sieve import Sieve
from sidestage.protocol.errors import ProtocolError
from sidestage.stream.link import Link

Gone = Callable[[Any, int], None]  # (flow, bytes that were not sent)
Opener = Callable[[Gone], Any]  # opens a channel's flow
Sifter = Callable[[Key, Opener, Gone], "SiftedFlow"]


def sifter(only: Dict[str, Any], link: Link) -> Sifter:
    """What makes the flows of one port. Raises ValueError for a filter that can't be read."""
    rules = [Rule(1, Filter(only))]

    def say(text: str) -> None:
        link.event("warning", {"text": text})

    return lambda key, opener, gone: SiftedFlow(key, opener, gone, rules, say)


class SiftedFlow:
    """As mirror.py's own flow, for its owner."""

    def __init__(self, key: Key, opener: Opener, gone: Gone, rules: List[Rule], say: Callable[[str], None]) -> None:
        self.key, self._opener, self._gone, self._say = key, opener, gone, say
        self._sieve = Sieve(rules)
        self._flow: Optional[Any] = None
        self._ended = self.finished = False

    def data(self, data: bytes) -> None:
        sieve = self._sieve
        told = sieve.feed(data)
        for note in sieve.notes:
            if isinstance(note, Note):
                self._say(note.text)
        sieve.notes.clear()
        if told:
            try:
                self._flow = self._flow or self._opener(self._over)
            except ProtocolError:  # all channels are in use
                self._over(None, len(told))
                return
            self._flow.data(told)
        if sieve.lost:
            self._stop()

    def eof(self) -> None:
        self.finished = True
        if self._flow is not None:
            self._flow.eof()
        else:
            self._over(None, 0)

    def abort(self) -> None:
        self.finished = True
        self._stop()

    def _stop(self) -> None:
        if self._flow is not None:
            self._flow.abort()
        self._over(None, 0)

    def _over(self, _flow: Any, unsent: int) -> None:
        if not self._ended:
            self._ended = True
            self._gone(self, unsent)
