"""What a stub resolver decides, by resolv.conf(5) and hosts(5) of the target: which names to ask for, and how. Pure."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, AAAA = 1, 28
MAX_SEARCH, MAX_SERVERS, MAX_HOSTS = 32, 3, 1024
DEFAULT_SERVER = "127.0.0.1"  # where a file names none (resolv.conf(5))
NOT_FOUND = 3  # NXDOMAIN (RFC 1035 4.1.1)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that matter here, with the resolver's own defaults."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5.0
    attempts: int = 2


def settings(text: str, nameservers: Sequence[str] = ()) -> Settings:
    """Of a resolv.conf; `nameservers` where it names none."""
    found: list[str] = []
    search: tuple[str, ...] = ()
    options: dict[str, int] = {}
    for words in (line.partition("#")[0].split() for line in text.splitlines()):
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and is_address(words[1].partition("%")[0]):
            found.append(words[1].partition("%")[0])
        elif words[0] in ("search", "domain"):
            search = tuple(word.rstrip(".") for word in words[1 : 1 + MAX_SEARCH] if word.strip("."))
        elif words[0] == "options":
            for name, _, value in (word.partition(":") for word in words[1:]):
                if value.isdecimal():
                    options[name] = int(value)
    return Settings(
        tuple(found or nameservers)[:MAX_SERVERS], search, min(options.get("ndots", 1), 15),
        min(max(options.get("timeout", 5), 1), 30), min(max(options.get("attempts", 2), 1), 5),
    )  # fmt: skip


def hosts(text: str, name: str) -> list[str]:
    """Addresses that a hosts file gives to `name`."""
    wanted = name.rstrip(".").lower()
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [words[0] for words in lines if wanted in (word.lower() for word in words[1:]) and is_address(words[0])]


def all_hosts(text: str) -> list[tuple[str, str]]:
    """(name, address) of all lines of a hosts file."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [(word.lower(), words[0]) for words in lines for word in words[1:] if is_address(words[0])][:MAX_HOSTS]


def candidates(name: str, of: Settings) -> list[str]:
    """The full names to ask for, in their order."""
    if name.endswith("."):
        return [name[:-1]]
    searched = [f"{name}.{domain}" for domain in of.search]
    return [name, *searched] if name.count(".") >= of.ndots else [*searched, name]


def query(name: str, kind: int, ident: int) -> bytes:
    """Raises ValueError for what can't be a name."""
    labels = [label.encode("idna") if not label.isascii() else label.encode() for label in name.split(".")]
    if not all(0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ValueError(f"{name!r} can't be a name")
    asked = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + asked + struct.pack("!2H", kind, 1)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
