"""One outgoing connection as the feed tells of it: `connect` with its result, `closed` with what went through."""

from __future__ import annotations

import itertools
import time

from sidestage.session.feed import Feed

_numbers = itertools.count(1)


class Attempt:
    """`where` is host, port and name of a TCP or UDP peer, or the path of a unix socket."""

    def __init__(self, feed: Feed, kind: str, **where: object) -> None:
        self._feed, self._number = feed, next(_numbers)
        self._about = {"id": self._number, "kind": kind, **where}
        self._start = time.monotonic()

    def result(self, errno: int = 0) -> None:
        """`errno` 0: connected."""
        self._feed.tell("connect", **self._about, errno=errno, ms=round((time.monotonic() - self._start) * 1000, 3))

    def ended(self, up: int, down: int) -> None:
        """`up`, `down`: bytes."""
        self._feed.tell("closed", id=self._number, up=up, down=down, seconds=round(time.monotonic() - self._start, 6))
