"""From the configuration to the rules of incoming traffic: all that session must know before trap's policy is there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sidestage.cli.errors import UserError
from sidestage.config import Config, http_filter, tls
from sidestage.views.incoming import IncomingRules, TlsRules

# What Node and the JVM listen on, or connect to, when they are told to; and debugpy, pydevd and dlv by options of their own
_INSPECTED = re.compile(r"--inspect(?:-brk|-wait)?(?:=(?:[^:\s]*:)?(\d+))?(?=\s|\Z)|jdwp\S*address=(?:[^:,\s]*:)?(\d+)")
_DEBUGGER = re.compile(r"(?:^|[\s/])(?:debugpy|pydevd(?:\.py)?|dlv)(?=[\s/]|\Z)")
_OPTION = re.compile(r"\s--(?:listen|connect|client-addr|port)[= ](?:\S*:)?(\d+)(?=\s|\Z)")
NODE_PORT = 9229


def incoming_rules(config: Config, command: Sequence[str], targetless: bool) -> IncomingRules:
    """Raises UserError."""
    incoming = config.feature.network.incoming
    return IncomingRules(
        mode="off" if targetless else incoming.mode,  # without a target there is nobody's traffic to mirror
        ports=None if incoming.ports is None else frozenset(incoming.ports),
        ignore_ports=frozenset(incoming.ignore_ports), port_mapping=dict(incoming.port_mapping),
        listen_ports=dict(incoming.listen_ports), ignore_localhost=incoming.ignore_localhost,
        debugger_ports=debugger_ports(command), flush_connections=incoming.flush_connections,
        when_down=incoming.when_down, on_conflict=incoming.on_conflict, filter=http_filter.spec(config),
        filter_ports=None if incoming.http_filter.ports is None else frozenset(incoming.http_filter.ports),
        tls=_tls(config),
    )  # fmt: skip


def _tls(config: Config) -> TlsRules | None:
    try:
        spec = tls.spec(config)
    except OSError as error:  # it could be read a moment ago
        raise UserError(f"{error.filename} can't be read: {error.strerror}", f"correct {tls.WHERE}") from error
    ports = config.feature.network.incoming.tls.ports
    return TlsRules(spec, None if ports is None else frozenset(ports), tls.local(config)) if spec else None


def debugger_ports(command: Sequence[str]) -> frozenset[int]:
    """Ports by which a debugger in this command line talks to its user: never touched."""
    line = " ".join(command)
    found = {int(match[1] or match[2] or NODE_PORT) for match in _INSPECTED.finditer(line)}
    debugger = _DEBUGGER.search(line)
    if debugger:
        found |= {int(match[1]) for match in _OPTION.finditer(line, debugger.start())}
    return frozenset(found)
