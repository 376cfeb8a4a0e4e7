"""The configuration's keys, with mirrord's names where the meaning is the same. Frozen dataclasses; no key is required.

A field's type is its whole validation: load.py walks the dataclasses and checks each value against the annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Strings = tuple[str, ...]  # a single string is taken as a list of one
PortPairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Env:
    include: Strings = ()
    exclude: Strings = ()
    override: dict[str, str] = field(default_factory=dict)
    mapping: dict[str, str] = field(default_factory=dict)
    unset: Strings = ()
    env_file: str = ""


@dataclass(frozen=True, slots=True)
class Fs:
    mode: Literal["local", "localwithoverrides", "read"] = "read"
    read_write: Strings = ()
    read_only: Strings = ()
    local: Strings = ()
    not_found: Strings = ()
    mapping: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incoming:
    mode: Literal["mirror", "off"] = "mirror"
    ports: tuple[int, ...] | None = None
    ignore_ports: tuple[int, ...] = ()
    port_mapping: PortPairs = ()  # [local, remote]
    listen_ports: PortPairs = ()  # [asked, actual]
    ignore_localhost: bool = False


@dataclass(frozen=True, slots=True)
class AddressFilters:
    remote: Strings = ()
    local: Strings = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    tcp: bool = True
    udp: bool = True
    ignore_localhost: bool = False
    filter: AddressFilters = AddressFilters()
    unix_streams: Strings = ()


@dataclass(frozen=True, slots=True)
class Dns:
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    incoming: Incoming = Incoming()
    outgoing: Outgoing = Outgoing()
    dns: Dns = Dns()


@dataclass(frozen=True, slots=True)
class Magic:
    aws: bool = True  # credentials of this machine are hidden, so that the target's identity is used


@dataclass(frozen=True, slots=True)
class Feature:
    env: Env = field(default_factory=Env)
    fs: Fs = field(default_factory=Fs)
    network: Network = Network()
    hostname: bool = True
    magic: Magic = Magic()


@dataclass(frozen=True, slots=True)
class Agent:
    python: str = ""  # the interpreter that runs the agent; empty: ours


@dataclass(frozen=True, slots=True)
class Config:
    target: str = ""
    key: str = ""  # of the session: names it, and is a variable of templates
    skip_processes: Strings = ()  # exact names of programs that are let through, anywhere in the tree
    skip_build_tools: bool = True
    skip_extra_build_tools: Strings = ()
    agent: Agent = Agent()
    feature: Feature = field(default_factory=Feature)


# What mirrord's users may write that is not there yet, and what to do instead.
_CLUSTER = "clusters are not there yet"
_STEAL = "steal is not there yet"
NOT_YET = {
    "accept_invalid_certificates": _CLUSTER,
    "kubeconfig": _CLUSTER,
    "kube_context": _CLUSTER,
    "agent.image": _CLUSTER,
    "agent.image_pull_policy": _CLUSTER,
    "agent.image_pull_secrets": _CLUSTER,
    "agent.namespace": _CLUSTER,
    "agent.ephemeral": _CLUSTER,
    "agent.privileged": _CLUSTER,
    "agent.disabled_capabilities": _CLUSTER,
    "agent.startup_timeout": _CLUSTER,
    "agent.ttl": _CLUSTER,
    "agent.tolerations": _CLUSTER,
    "agent.node_selector": _CLUSTER,
    "agent.service_account": _CLUSTER,
    "agent.labels": _CLUSTER,
    "agent.annotations": _CLUSTER,
    "agent.priority_class": _CLUSTER,
    "agent.security_context": _CLUSTER,
    "agent.resources": _CLUSTER,
    "agent.flush_connections": _STEAL,
    "agent.max_body_buffer_size": _STEAL,
    "agent.max_body_buffer_timeout": _STEAL,
    "feature.network.incoming.tls_delivery": _STEAL,
    "feature.network.incoming.https_delivery": _STEAL,
    "feature.network.incoming.on_concurrent_steal": _STEAL,
    "feature.network.dns.filter": "DNS filters are not there yet; feature.network.outgoing.filter names what connects where",
    "feature.fs.mode=write": "write mode is not there yet; with `read`, files opened for writing are local",
    "feature.network.incoming.mode=steal": "steal is not there yet; `mirror` leaves the answers to the target",
    "feature.network.incoming.http_filter": "HTTP filters are not there yet",
}
# Short forms: feature.fs: "read" stands for feature.fs.mode: "read", and so on.
SHORT: dict[str, dict[object, dict[str, object]]] = {
    "feature.env": {True: {}, False: {"exclude": "*"}},
    "feature.fs": {True: {}, False: {"mode": "local"}},
    "feature.network": {
        True: {},
        False: {"incoming": {"mode": "off"}, "outgoing": {"tcp": False, "udp": False}, "dns": {"enabled": False}},
    },
    "feature.network.incoming": {True: {}, False: {"mode": "off"}},
    "feature.network.outgoing": {True: {}, False: {"tcp": False, "udp": False}},
    "feature.network.dns": {True: {}, False: {"enabled": False}},
}
MODE_SHORT = ("feature.fs", "feature.network.incoming")
