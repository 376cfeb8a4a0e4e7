"""Where an outgoing connection goes: one pure decision, (family, host, port, protocol) -> remote address or local."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from sidestage.views.dns import NameFilterError, ascii_name, brackets
from sidestage.views.names import DNS_PORT, Names

_FILTER = re.compile(
    r"(?:(?P<protocol>tcp|udp)://)?(?P<host>\[[0-9a-fA-F:.]+\](?:/\d+)?|[^:\s\[\]]*)(?::(?P<port>\d+))?\Z"
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


FilterError = NameFilterError


@dataclass(frozen=True, slots=True)
class AddressFilter:
    """`[tcp://|udp://][name|ip|cidr][:port]`; 0.0.0.0, `*` and port 0 mean any; `*` in a name any
    characters. IPv6 in brackets, prefix after them."""

    protocol: str | None
    network: Network | None
    name: str | None
    port: int

    @classmethod
    def parse(cls, text: str) -> AddressFilter:
        found = _FILTER.match(text.strip())
        if not found or not text.strip():
            raise FilterError(f"{text!r} is not [tcp://|udp://][name|ip|cidr][:port]" + brackets(text))
        host = found["host"].replace("[", "").replace("]", "")
        port = int(found["port"] or 0)
        if port > 65535:
            raise FilterError(f"{text!r}: there is no port {port}")
        network: Network | None = None
        name: str | None = None
        if host not in ("", "*", "0.0.0.0", "::"):
            try:
                network = _unmapped(ipaddress.ip_network(host, strict=False))
            except ValueError as error:
                if "/" in host or "[" in found["host"]:
                    raise FilterError(f"{text!r}: {error}") from error
                name = ascii_name(host)
        return cls(found["protocol"], network, name, port)

    def matches(self, address: str, port: int, protocol: str, names: Collection[str]) -> bool:
        if (self.protocol and self.protocol != protocol) or (self.port and self.port != port):
            return False
        if self.name is not None:
            return self.name in names or ("*" in self.name and any(fnmatchcase(name, self.name) for name in names))
        return self.network is None or _parse(address) in self.network


@dataclass(frozen=True, slots=True)
class OutgoingRules:
    tcp: bool = True
    udp: bool = True
    dns: bool = True
    ignore_localhost: bool = False
    remote: tuple[AddressFilter, ...] = ()  # at most one of remote and local is not empty
    local: tuple[AddressFilter, ...] = ()
    unix_streams: tuple[str, ...] = ()  # regexes on the path; an abstract name starts with @
    debugger_ports: frozenset[int] = frozenset()


class OutgoingPolicy:
    def __init__(
        self, rules: OutgoingRules, names: Names, nameservers: Collection[str], local_nameservers: Collection[str]
    ) -> None:
        self._rules = rules
        self._names = names
        self._nameservers = list(nameservers)
        self._local_nameservers = {canonical(server) for server in local_nameservers}
        self._unix = [re.compile(pattern) for pattern in rules.unix_streams]

    def connect(self, family: int, host: str, port: int, kind: str) -> tuple[str, int] | None:
        """The address to use in the target's network, or None: the kernel connects here."""
        rules, host = self._rules, canonical(host)
        if not port or port in rules.debugger_ports:
            return None
        address = _parse(host)
        if port == DNS_PORT and rules.dns and self._nameservers:
            # A runtime with a resolver of its own may have read this machine's configuration before or elsewhere;
            # the names it asks for are the target's all the same.
            if host not in self._nameservers and (address.is_loopback or host in self._local_nameservers):
                return self._nameservers[0], port
            return host, port
        if not (rules.tcp if kind == "tcp" else rules.udp) or address.is_multicast or host == "255.255.255.255":
            return None
        if address.is_unspecified:  # ip(7): connecting to INADDR_ANY means the loopback
            host = "127.0.0.1" if address.version == 4 else "::1"
            address = _parse(host)
        if address.is_loopback and rules.ignore_localhost:
            return None
        if rules.remote or rules.local:
            names = self._names.of(host)
            listed = any(f.matches(host, port, kind, names) for f in rules.remote or rules.local)
            if listed != bool(rules.remote):
                return None
        return host, port

    def unix(self, path: str) -> bool:
        return any(pattern.search(path) for pattern in self._unix)


def _unmapped(network: Network) -> Network:
    """A network of v4-mapped addresses as the IPv4 network: as `canonical` does to the addresses."""
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        return ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


@lru_cache(4096)
def canonical(host: str) -> str:
    """v4-mapped IPv6 as IPv4, scope left out: filters and tables know one spelling of an address."""
    address = _parse(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@lru_cache(4096)
def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host)
