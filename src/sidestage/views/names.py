"""Reads DNS answers that pass, so that filters may speak of names in every runtime (RFC 1035).

A filter that names a host can only be applied to a connect() of an address, and a program that speaks DNS itself never
calls getaddrinfo: the answers on their way are the one place where all runtimes can be heard.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

DNS_PORT = 53
MAX_NAMES = 4096  # addresses remembered; the oldest is forgotten
MAX_ALIASES = 64  # names of one address
_A, _CNAME, _AAAA = 1, 5, 28
_MAX_JUMPS = 32  # compression pointers may form loops (RFC 1035 4.1.4)


def answers(message: bytes) -> Iterator[tuple[str, str]]:
    """(name as asked, address) of each A and AAAA record of a response; nothing for what isn't one."""
    try:
        _, flags, questions, records = struct.unpack_from("!4H", message)
        if not flags & 0x8000 or questions != 1:
            return
        asked, at = _name(message, 12)
        at += 4
        for _ in range(records):
            _, at = _name(message, at)
            kind, _, _, size = struct.unpack_from("!HHIH", message, at)
            at += 10
            data = message[at : at + size]
            at += size
            if (kind == _A and size == 4) or (kind == _AAAA and size == 16):
                yield asked, str(ipaddress.ip_address(data))
    except (struct.error, ValueError, IndexError, UnicodeDecodeError):
        return


def aliases(message: bytes) -> list[str]:
    """The names behind which a response found its addresses: CNAMEs, without the name asked; they have the same addresses."""
    found: list[str] = []
    try:
        _, flags, questions, records = struct.unpack_from("!4H", message)
        at = end_of_question(message) if flags & 0x8000 and questions == 1 else len(message)
        for _ in range(min(records, MAX_ALIASES)):
            _, at = _name(message, at)
            kind, _, _, size = struct.unpack_from("!HHIH", message, at)
            at += 10
            if kind == _CNAME:
                found.append(_name(message, at)[0])
            at += size
    except (struct.error, ValueError, IndexError, UnicodeDecodeError):
        pass
    return found


def end_of_question(message: bytes) -> int:
    """Where the first question of a message ends. Raises as a message that is no such does."""
    return _name(message, 12)[1] + 4


def after_name(message: bytes, at: int) -> int:
    """Where a name ends. Raises as a message that is no such does."""
    return _name(message, at)[1]


def question(message: bytes) -> tuple[str, int] | None:
    """(name, type) that a message with one question asks or answers."""
    try:
        if struct.unpack_from("!H", message, 4)[0] != 1:
            return None
        name, at = _name(message, 12)
        return name, struct.unpack_from("!H", message, at)[0]
    except (struct.error, ValueError, IndexError, UnicodeDecodeError):
        return None


def server_failure(query: bytes) -> bytes:
    """SERVFAIL for `query`: what a program may hear at once where no nameserver can be reached (RFC 1035 4.1.1)."""
    if len(query) < 12:
        return b""
    ident, flags, questions = struct.unpack_from("!3H", query)
    return struct.pack("!6H", ident, 0x8082 | (flags & 0x7900), questions, 0, 0, 0) + query[12:]


def _name(message: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    end = -1
    for _ in range(_MAX_JUMPS + 128):
        length = message[at]
        if length & 0xC0 == 0xC0:
            if end < 0:
                end = at + 2
            at = ((length & 0x3F) << 8) | message[at + 1]
        elif not length:
            return ".".join(labels).lower(), end if end >= 0 else at + 1
        else:
            labels.append(message[at + 1 : at + 1 + length].decode("ascii"))
            at += length + 1
    raise ValueError("name without end")


class Names:
    """address -> names it was an answer for."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def learn(self, name: str, address: str) -> None:
        known = self._names.setdefault(address, set())
        if len(known) < MAX_ALIASES:
            known.add(name.rstrip(".").lower())
        if len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]

    def of(self, address: str) -> frozenset[str]:
        return frozenset(self._names.get(address, ()))
