"""Who is asked for a name: the target's nameservers or this machine's. Pure; decided for each query, so in every runtime.

A query says a name that the program's resolver has completed already (resolv.conf(5): search), and names may have a service in
front (RFC 2782): a filter means the name without either as well. No query says for which port the address will be used.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate

from sidestage.views.names import end_of_question, question

A, AAAA = 1, 28
HERE_TTL = 0  # of what this machine's hosts file says: it may be edited at any time (hosts(5))
_FILTER = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\](?:/\d+)?|[^:\s\[\]]*)(?::(?P<port>\d+|\*))?\Z")
_BARE = re.compile(r"(?:(?:tcp|udp)://)?[0-9a-fA-F]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:/\d+)?\Z")
_REVERSE = {".in-addr.arpa": 4, ".ip6.arpa": 32}  # labels of a whole address (RFC 1035 3.5, RFC 3596 2.5)


class NameFilterError(ValueError):
    """A filter that can't be read; the text says why."""


def brackets(text: str) -> str:
    """What helps whoever wrote an IPv6 address as it is: nobody could tell where its port begins."""
    return "; IPv6 is written in brackets, as [fd00::1]:80 or [fd00::]/8" if _BARE.match(text) else ""


@dataclass(frozen=True, slots=True)
class NameFilter:
    """`[name][:port]`, where `*` stands for any characters; an address or network means reverse look-ups of it."""

    text: str
    pattern: re.Pattern[str] | None  # None: an address
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: bool  # one is said, to no effect

    @classmethod
    def parse(cls, text: str) -> NameFilter:
        found = _FILTER.match(text.strip())
        if not found or not text.strip():
            raise NameFilterError(f"{text!r} is not [name][:port]" + brackets(text))
        host, port = found["host"].replace("[", "").replace("]", ""), found["port"] or "*"
        if port != "*" and int(port) > 65535:
            raise NameFilterError(f"{text!r}: there is no port {port}")
        if not host and port != "*":
            raise NameFilterError(f"{text!r} has no name; leave it out: a query doesn't say for which port the address is")
        try:
            network = ipaddress.ip_network(host, strict=False)
        except ValueError as error:
            if "/" in host or "[" in found["host"]:
                raise NameFilterError(f"{text!r}: {error}") from error
        else:
            return cls(text, None, network, port not in ("*", "0"))
        return cls(text, re.compile(translate(ascii_name(host) or "*")), None, port not in ("*", "0"))

    def matches(self, name: str) -> bool:
        if self.pattern:
            return self.pattern.match(name) is not None
        address = reversed_address(name)
        return address is not None and self.network is not None and address in self.network


@dataclass(frozen=True, slots=True)
class NameRules:
    """At most one of the two is not empty; without any all names are the target's."""

    remote: tuple[NameFilter, ...] = ()
    local: tuple[NameFilter, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remote or self.local)

    def here(self, name: str, search: Sequence[str]) -> bool:
        """Is this machine asked for `name`, as it is in a query?"""
        said = list(forms(name, search))
        listed = any(one.matches(form) for one in self.remote or self.local for form in said)
        return listed if self.local else bool(self.remote) and not listed


def rules(
    remote: Iterable[str], local: Iterable[str], outgoing_remote: Iterable[str], outgoing_local: Iterable[str]
) -> tuple[NameRules, list[str]]:
    """The rules of dns.filter, with the names of outgoing.filter; and what the user should hear. Raises NameFilterError.

    As mirrord has it: names whose connections stay here are looked up here, unless dns.filter says the contrary.
    """
    there, here = _parsed(remote), _parsed(local)
    if there and here:
        raise NameFilterError("remote and local exclude each other: what the one doesn't name is the other's")
    notes = [f"{one.text}: a query doesn't say for which port the address will be used; all ports are meant"
             for one in (*there, *here) if one.port]  # fmt: skip
    if there:
        found = NameRules(remote=(*there, *_parsed(outgoing_remote)))
        both = [name for name in outgoing_local if not found.here(name, ())]
        notes += [f"{name}: connected to from here (outgoing.filter.local), but looked up by the target (dns.filter.remote)"
                  for name in both]  # fmt: skip
        return found, notes
    return NameRules(local=(*here, *_parsed(outgoing_local))), notes


def forms(name: str, search: Sequence[str]) -> Iterator[str]:
    """A name as it may have been meant: whole, without a search domain, each without the service in front."""
    name = name.rstrip(".").lower()
    for one in (name, *(name.removesuffix("." + domain) for domain in search if name.endswith("." + domain))):
        yield one
        bare = re.sub(r"\A(?:_[^.]+\.)+", "", one)
        if bare != one:
            yield bare


def ascii_name(name: str) -> str:
    """As it is in queries (RFC 5891). Raises NameFilterError."""
    labels = name.rstrip(".").lower().split(".")
    try:
        return ".".join(label if label.isascii() else label.encode("idna").decode() for label in labels)
    except UnicodeError as error:
        raise NameFilterError(f"{name!r} can't be a name") from error


def reversed_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a reverse look-up of `name` asks for."""
    for suffix, count in _REVERSE.items():
        labels = name.removesuffix(suffix).split(".")[::-1]
        if name.endswith(suffix) and len(labels) == count:
            try:
                return ipaddress.ip_address(".".join(labels) if count == 4 else ":".join(re.findall("....", "".join(labels))))
            except ValueError:
                return None
    return None


def from_hosts(query: bytes, addresses: Iterable[str]) -> bytes | None:
    """The answer to a query for addresses of a name that has these; empty where none is of the kind asked for, as
    systemd-resolved says it. None when it asks for something else, or nothing is known."""
    asked, known = question(query), [ipaddress.ip_address(address) for address in addresses]
    if not asked or asked[1] not in (A, AAAA) or not known:
        return None
    ident, flags = struct.unpack_from("!2H", query)
    chosen = [address.packed for address in known if address.version == (4 if asked[1] == A else 6)]
    records = [b"\xc0\x0c" + struct.pack("!HHIH", asked[1], 1, HERE_TTL, len(packed)) + packed for packed in chosen]
    head = struct.pack("!6H", ident, 0x8480 | (flags & 0x0100), 1, len(records), 0, 0)
    return head + query[12 : end_of_question(query)] + b"".join(records)


def _parsed(texts: Iterable[str]) -> tuple[NameFilter, ...]:
    return tuple(NameFilter.parse(text) for text in texts)
