"""What a router orders of the sockets, and the rules it reads; the words that router.py and its shell share."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Union

from sidestage.http.filters import Facts, Filter

CLIENT, POD = -1, 0  # a session's program is known by the number of its rule, from 1
REPLAY = 64 << 10  # bytes of a request kept to ask the target's own program when a session's fails
UPGRADED = (
    "a client and the target went over to HTTP/2 by Upgrade: h2c: no filter sees what is asked on that connection from then on; "
    "clients with prior knowledge of HTTP/2 are filtered"
)
MAX_WAITING = 64 << 10  # bytes of further requests kept while one is answered; the client is then not read


class Send(NamedTuple):
    """Queue it; also before the connection that an Open ordered is there."""

    to: int
    data: bytes


class Open(NamedTuple):
    to: int


class Eof(NamedTuple):
    """Half-close after what is queued."""

    to: int


class Close(NamedTuple):
    """Close after what is queued; nothing of that connection comes to the router any more, and it may be opened again."""

    to: int


class Reset(NamedTuple):
    """RST at once. Of CLIENT: all is over."""

    to: int


class Splice(NamedTuple):
    """From now on bytes and ends pass between client and `to` untouched; the router is done."""

    to: int


class Pause(NamedTuple):
    """Don't read from `source`."""

    source: int


class Resume(NamedTuple):
    source: int


class Timer(NamedTuple):
    """Call timeout() in so many seconds instead of what was ordered before; 0: not at all."""

    seconds: float


class Note(NamedTuple):
    """A line for the user of rule `number`."""

    number: int
    text: str


Order = Union[Send, Open, Eof, Close, Reset, Splice, Pause, Resume, Timer, Note]


class Rule(NamedTuple):
    number: int
    filter: Filter
    down: str = "pass"  # what becomes of its requests when its program fails: `pass` to the target's own, or `502`


def choose(rules: Sequence[Rule], facts: Facts, out: List[Order]) -> Optional[int]:
    """The first rule that takes the request, POD, or None: that depends on the body. `facts.body` b"": don't wait."""
    body = facts.body
    for rule in rules:
        if body and len(body) > rule.filter.max_body:
            facts.body = b""
        answer = rule.filter.answer(facts)
        facts.body = body
        expired = rule.filter.expired
        if expired and expired[-1]:
            out.append(Note(rule.number, f"the pattern {expired[-1]!r} takes too long, and matches nothing from now on"))
            expired.append("")  # said
        if answer is not False:
            return rule.number if answer else None
    return POD


def body_bounds(rules: Sequence[Rule]) -> "tuple[int, float]":
    """How many bytes of a body, and how many seconds, filters may wait for."""
    return max(rule.filter.max_body for rule in rules), max(rule.filter.body_time for rule in rules) / 1000
