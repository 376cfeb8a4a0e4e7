"""Which of the program's listeners are plugged into the target, and under which of its ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TlsRules:
    """TLS that ends beside the target."""

    spec: Mapping[str, Any] = field(repr=False)  # for the agent, as tls/identity.py reads it; may hold a private key
    ports: frozenset[int] | None = None  # None: all
    local: Mapping[str, Any] | None = None  # how the program is met over TLS, as tls/local.py reads it; None: in plain


@dataclass(frozen=True, slots=True)
class IncomingRules:
    mode: str = "mirror"  # mirror | steal | off
    ports: frozenset[int] | None = None  # allow-list of the target's ports; None: all
    ignore_ports: frozenset[int] = frozenset()
    port_mapping: Mapping[int, int] = field(default_factory=dict)  # the program's port -> the target's
    listen_ports: Mapping[int, int] = field(default_factory=dict)  # the port asked for -> the local one to use
    ignore_localhost: bool = False
    debugger_ports: frozenset[int] = frozenset()
    flush_connections: bool = False
    when_down: str = "pass"  # pass | 502
    on_conflict: str = "abort"  # abort | wait | override
    filter: Mapping[str, Any] | None = None  # which requests, as http/filters.py reads it; None: all that comes
    filter_ports: frozenset[int] | None = None  # the ports of which only matching requests are taken; None: all

    tls: TlsRules | None = None

    def tls_of(self, port: int) -> TlsRules | None:
        """What is to be done with TLS on one of the target's ports; None: nothing."""
        tls = self.tls if self.mode == "steal" else None
        return tls if tls and (tls.ports is None or port in tls.ports) else None

    def filter_of(self, port: int) -> Mapping[str, Any] | None:
        """The filter for one of the target's ports."""
        return self.filter if self.filter_ports is None or port in self.filter_ports else None

    def remote_port(self, port: int) -> int:
        return self.port_mapping.get(port, port)

    def listen(self, host: str, port: int) -> bool:
        """Does a listener that the program asked for on host:port get the target's traffic?"""
        remote = self.remote_port(port)
        if self.mode == "off" or not port or port in self.debugger_ports or remote in self.ignore_ports:
            return False
        if self.ports is not None and remote not in self.ports:
            return False
        return not (self.ignore_localhost and (host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")))
