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
class Feature:
    env: Env = field(default_factory=Env)
    fs: Fs = field(default_factory=Fs)
    network: Network = Network()
    hostname: bool = True


@dataclass(frozen=True, slots=True)
class Agent:
    python: str = ""  # the interpreter that runs the agent; empty: ours


@dataclass(frozen=True, slots=True)
class Config:
    target: str = ""
    skip_processes: Strings = ()  # exact names of programs that are let through, anywhere in the tree
    skip_build_tools: bool = True
    skip_extra_build_tools: Strings = ()
    agent: Agent = Agent()
    feature: Feature = field(default_factory=Feature)


# What mirrord's users may write that is not there yet, and what to do instead.
NOT_YET = {
    "feature.fs.mode=write": "write mode is not there yet; with `read`, files opened for writing are local",
    "feature.network.incoming.mode=steal": "steal is not there yet; `mirror` leaves the answers to the target",
    "feature.network.incoming.http_filter": "HTTP filters are not there yet",
    "feature.copy_target": "copying a target is not planned: use a deployment of your own",
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
