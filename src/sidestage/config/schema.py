"""The configuration's keys, with mirrord's names where the meaning is the same. Frozen dataclasses; no key is required.

A field's type is its whole validation: load.py walks the dataclasses and checks each value against the annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


class Pattern(str):
    """A regular expression."""

    __slots__ = ()


class Address(str):
    """A filter of connections, `[tcp://|udp://][name|address|network][:port]`."""

    __slots__ = ()


class Name(str):
    """A filter of names, `[name][:port]`."""

    __slots__ = ()


Strings = tuple[str, ...]  # a single string is taken as a list of one
Patterns = tuple[Pattern, ...]
PortPairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Env:
    include: Strings = ()
    exclude: Strings = ()
    override: dict[str, str] = field(default_factory=dict)
    mapping: dict[Pattern, str] = field(default_factory=dict)
    unset: Strings = ()
    env_file: str = ""


@dataclass(frozen=True, slots=True)
class Fs:
    mode: Literal["local", "localwithoverrides", "read", "write"] = "read"
    read_write: Patterns = ()
    read_only: Patterns = ()
    local: Patterns = ()
    not_found: Patterns = ()
    execute: Patterns = ()
    mapping: dict[Pattern, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """Which requests are taken; one of the first six. http_filter.py knows what they mean."""

    header_filter: Pattern = Pattern("")  # a regular expression for `Name: value`
    path_filter: Pattern = Pattern("")  # a regular expression for the path, and for the path with its query
    method_filter: str = ""
    body_filter: dict[str, str] = field(default_factory=dict)  # {body: json, query: JSONPath, matches: regular expression}
    all_of: tuple[dict[str, Any], ...] | None = None  # of {header}, {path}, {method}, {body, query, matches}, {all_of}, {any_of}
    any_of: tuple[dict[str, Any], ...] | None = None
    ports: tuple[int, ...] | None = None  # None: all; others are taken whole
    probes: bool = False  # take the kubelet's probes too


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of stolen connections ends beside the target, if there is a certificate; tls.py knows what the keys mean."""

    certificate: str = ""  # a file with the chain in PEM, or a folder with tls.crt and tls.key; target:PATH is the target's
    key: str = ""  # empty: it is in the same file or folder
    ports: tuple[int, ...] | None = None  # None: all that are stolen
    alpn: Strings = ()  # only these protocols inside; empty: what the target's program offers
    delivery: Literal["tls", "plain"] = "tls"  # to the local program
    trust_roots: Strings = ()
    server_cert: str = ""
    server_name: str = ""
    client_cert: str = ""
    client_key: str = ""


@dataclass(frozen=True, slots=True)
class Incoming:
    mode: Literal["mirror", "steal", "off"] = "mirror"
    ports: tuple[int, ...] | None = None
    ignore_ports: tuple[int, ...] = ()
    port_mapping: PortPairs = ()  # [local, remote]
    listen_ports: PortPairs = ()  # [asked, actual]
    ignore_localhost: bool = False
    flush_connections: bool = False
    when_down: Literal["pass", "502"] = "pass"
    on_conflict: Literal["abort", "wait", "override"] = "abort"
    http_filter: HttpFilter = field(default_factory=HttpFilter)
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True)
class AddressFilters:
    remote: tuple[Address, ...] = ()
    local: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    tcp: bool = True
    udp: bool = True
    ignore_localhost: bool = False
    filter: AddressFilters = AddressFilters()
    unix_streams: Patterns = ()


@dataclass(frozen=True, slots=True)
class NameFilters:
    remote: tuple[Name, ...] = ()
    local: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Dns:
    enabled: bool = True
    filter: NameFilters = NameFilters()


@dataclass(frozen=True, slots=True)
class Network:
    incoming: Incoming = field(default_factory=Incoming)
    outgoing: Outgoing = Outgoing()
    dns: Dns = Dns()


@dataclass(frozen=True, slots=True)
class Magic:
    aws: bool = True  # credentials of this machine are hidden, so that the target's identity is used


@dataclass(frozen=True, slots=True)
class Diff:
    enabled: bool = False  # compare the local program's answers with the target's own
    ignore: Strings = ()  # status, header:NAME, body:PATH, each maybe behind METHOD and PATH
    fail: bool = False  # exit status 3 when anything differs
    count: int = 0  # end when so many exchanges are compared; 0: when the program ends


@dataclass(frozen=True, slots=True)
class Feature:
    env: Env = field(default_factory=Env)
    fs: Fs = field(default_factory=Fs)
    network: Network = field(default_factory=Network)
    hostname: bool = True
    magic: Magic = Magic()
    diff: Diff = Diff()


@dataclass(frozen=True, slots=True)
class Target:
    """A string is taken as `path`; forms.py knows the object forms of mirrord."""

    path: str = ""
    namespace: str = ""  # empty: the kubeconfig context's


@dataclass(frozen=True, slots=True)
class Agent:
    """How the agent is started. All but the first three are about Kubernetes; an empty text leaves it to the cluster or to us."""

    python: str = ""  # the interpreter that runs the agent; empty: ours, or `python3` of the image
    heartbeat: float = 5.0  # seconds between pings, each way
    silence: float = 20.0  # seconds without a word after which each side gives the other up
    mode: Literal["job", "ephemeral", "in-container"] = "job"
    image: str = ""  # any that has Python 3.9 or later
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: Strings = ()
    namespace: str = ""  # of the Job; empty: the target's
    service_account: str = ""
    priority_class: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)  # targetless only: else it is the target's node
    tolerations: tuple[dict[str, Any], ...] | None = None  # None: all taints beside a target, none when targetless
    resources: dict[str, Any] = field(default_factory=dict)  # as in a container, over ours
    security_context: dict[str, Any] = field(default_factory=dict)  # as in a container, over ours
    privileged: bool = False
    disabled_capabilities: tuple[Literal["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"], ...] = ()
    startup_timeout: int = 60  # seconds until the agent must have begun
    max_body_buffer_size: int = 65_535  # bytes of a body that a filter waits for; a longer one matches none
    max_body_buffer_timeout: int = 1_000  # milliseconds
    ttl: int = 1  # seconds that a finished Job stays, for a look at its pod


@dataclass(frozen=True, slots=True)
class Config:
    target: Target = Target()
    kubeconfig: str = ""  # a path, or several as in KUBECONFIG
    kube_context: str = ""
    accept_invalid_certificates: bool | None = None  # None: as the kubeconfig says
    use_kubectl: bool = False  # kubectl logs in, and all goes through it; so it is anyway where only kubectl can
    key: str = ""  # of the session: names it, and is a variable of templates
    skip_processes: Strings = ()  # exact names of programs that are let through, anywhere in the tree
    skip_build_tools: bool = True
    skip_extra_build_tools: Strings = ()
    agent: Agent = field(default_factory=Agent)
    feature: Feature = field(default_factory=Feature)


# Short forms: feature.fs: "read" stands for feature.fs.mode: "read", and so on.
SHORT: dict[str, dict[object, dict[str, object]]] = {
    "feature.env": {True: {}, False: {"exclude": "*"}},
    "feature.diff": {True: {"enabled": True}, False: {}},
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
