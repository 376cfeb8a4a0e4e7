"""Answers of nameservers, for as long as their TTLs allow: who asks the same again needs no round trip. Pure; the clock is given.

Kept is what RFC 1035 7.4 and RFC 2308 let a resolver keep: whole answers, and that a name or a type of record is not there. A
question is the same if it is so to the letter, in its flags and options too, and was put to the same nameserver. What is given has
its TTLs less its age, and addresses in turns, so that a program spreads its connections as it would without us.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sidestage.views.names import after_name, end_of_question

MAX_KEPT = 1024  # answers; the oldest goes first
MAX_ASKED = 256  # questions of one socket that wait for an answer
MAX_TTL = 300  # seconds; longer ones gain nothing within a session
_A, _SOA, _SIG, _AAAA, _OPT, _TSIG = 1, 6, 24, 28, 41, 250
_META = range(249, 256)  # TKEY to ANY (RFC 6895 3.1): of transactions, and what may differ from one time to the next
_NOT_FOUND = 3


class _Record(NamedTuple):
    kind: int
    ttl_at: int  # where its four bytes are
    ttl: int  # seconds
    start: int
    end: int


class _Kept(NamedTuple):
    message: bytes
    born: float
    ends: float
    ttls: tuple[tuple[int, int], ...]  # where, and how many seconds it was
    turning: tuple[int, int, int]  # start, end, size of records that are addresses of one name; size 0: none


class Answered:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, bytes], _Kept] = {}
        self._turn = 0

    def get(self, server: str, query: bytes) -> bytes | None:
        """The answer to `query`, as `server` would give it now."""
        kept = self._kept.get((server, query[2:]))
        if kept is None:
            return None
        now = self._clock()
        if now >= kept.ends:
            del self._kept[server, query[2:]]
            return None
        answer = bytearray(kept.message)
        answer[:2] = query[:2]
        for at, ttl in kept.ttls:
            struct.pack_into("!I", answer, at, ttl - int(now - kept.born))
        start, end, size = kept.turning
        if size:
            self._turn += 1
            cut = start + self._turn * size % (end - start)
            answer[start:end] = answer[cut:end] + answer[start:cut]
        return bytes(answer)

    def put(self, server: str, query: bytes, answer: bytes) -> None:
        """Keep it if it may be kept."""
        try:
            records = _lasting(query, answer)
        except (struct.error, IndexError, ValueError, UnicodeDecodeError):
            return
        ttl = min((record.ttl for _, record in records), default=0)
        if ttl <= 0:
            return
        now = self._clock()
        key = (server, query[2:])
        self._kept.pop(key, None)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        ttls = tuple((record.ttl_at, record.ttl) for _, record in records)
        addresses = [record for section, record in records if not section]
        self._kept[key] = _Kept(answer, now, now + ttl, ttls, _turning(answer, addresses))


class Questions:
    """The questions of one socket that wait for their answer."""

    def __init__(self) -> None:
        self._asked: dict[bytes, bytes] = {}  # ident -> query

    def asked(self, query: bytes) -> None:
        if len(self._asked) >= MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[query[:2]] = query

    def answered(self, answer: bytes) -> bytes:
        """The query that it belongs to, or nothing."""
        return self._asked.pop(answer[:2], b"")


def _lasting(query: bytes, answer: bytes) -> list[tuple[int, _Record]]:
    """(section, record) of an answer that may be kept, each with the TTL that counts; empty if it may not.

    Raises on what is no DNS.
    """
    _, asks, questions = struct.unpack_from("!3H", query)
    _, flags, echoed, count, authorities, others = struct.unpack_from("!6H", answer)
    end = end_of_question(query)
    kind = struct.unpack_from("!H", query, end - 4)[0]
    code = flags & 15
    usable = flags & 0x8000 and not asks & 0x8000 and not (asks | flags) & 0x7A00 and code in (0, _NOT_FOUND)  # QUERY, not cut
    if not usable or questions != 1 or echoed != 1 or kind in _META or answer[12:end] != query[12:end]:
        return []
    records = list(_records(answer, end, (count, authorities, others)))
    if any(record.kind in (_SIG, _TSIG) for _, record in records):
        return []
    found = [(section, record) for section, record in records if record.kind != _OPT]
    if not count or code:
        soas = [record for section, record in found if section == 1 and record.kind == _SOA]
        limits = [struct.unpack_from("!I", answer, record.end - 4)[0] for record in soas]
        if len(limits) != 1:
            return []
        found = [(section, record._replace(ttl=min(record.ttl, *limits))) for section, record in found]
    return [(section, record._replace(ttl=min(record.ttl, MAX_TTL))) for section, record in found]


def _records(message: bytes, at: int, counts: tuple[int, ...]) -> Iterator[tuple[int, _Record]]:
    for section, count in enumerate(counts):
        for _ in range(count):
            start, at = at, after_name(message, at)
            kind, _, ttl, size = struct.unpack_from("!HHIH", message, at)
            end = at + 10 + size
            if end > len(message):
                raise ValueError("cut")
            yield section, _Record(kind, at + 4, 0 if ttl >> 31 else ttl, start, end)  # RFC 2181 8
            at = end


def _turning(message: bytes, records: list[_Record]) -> tuple[int, int, int]:
    """Addresses of one name, one after the other and nothing else."""
    first = records[0] if records else None
    if not first or first.kind not in (_A, _AAAA):
        return 0, 0, 0
    size = first.end - first.start
    name = message[first.start : first.ttl_at]
    if any(record.end - record.start != size or message[record.start : record.ttl_at] != name for record in records):
        return 0, 0, 0
    return first.start, records[-1].end, size
