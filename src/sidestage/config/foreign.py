"""What mirrord's configuration has and ours has not: each key is mapped, has no effect here, or is refused by name with our way.

A file may use these keys in any format; what they switch off is never a problem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidestage.config.check import long_form

Mapped = Callable[[Any], dict[str, Any]]  # the key's value -> dotted keys of ours, with theirs

_UNINJECTED = "nothing is injected into the program here"
_NO_OPERATOR = "there is no operator: several people share a target without one"
_NO_PROXY = "there is no proxy process to tune: its life is the program's"

# No effect, told once.
WITHOUT_EFFECT: dict[str, str] = {
    "operator": _NO_OPERATOR,
    "multi_cluster": _NO_OPERATOR,
    "telemetry": "nothing is ever sent home",
    "use_proxy": "HTTPS_PROXY is not used; a proxy is the kubeconfig's proxy-url",
    "api": "`sidestage status` lists sessions",
    "skip_sip": "of macOS",
    "sip_binaries": "of macOS",
    "startup_retry": "calls to the API server are retried as the server asks",
    "internal_proxy": _NO_PROXY,
    "external_proxy": _NO_PROXY,
    "container": "`sidestage container` puts nothing of its own into a container or beside it",
    "ci": "`exec` in the background does it: its output and exit status are the program's",
    "baggage": _NO_OPERATOR,
    "traceparent": _NO_OPERATOR,
    "experimental": "of experiments that have no counterpart here",
    "agent.log_level": "the agent keeps no log; `exec --debug` tells of errors",
    "agent.json_log": "the agent keeps no log; use `exec --output json`",
    "agent.communication_timeout": "the agent's stream is there from its first moment",
    "agent.check_out_of_pods": "the scheduler's and the kubelet's own words are told",
    "agent.clean_iptables_on_start": "rules can't be left behind: the kernel takes them away with the agent",
    "agent.nftables": "what the kernel has is found out",
    "agent.dns": "names are asked of the target's nameservers by the program's own resolver, with its own limits",
    "agent.exclude_from_mesh": "the agent listens on loopback only, which no mesh intercepts",
    "agent.http_detection_timeout": "nothing waits: bytes pass on as they come",
    "agent.jaq_time_limit": "there is no jq",
    "agent.override_cache_control": "answers are passed on as they come; tell the browser not to cache while you filter",
    "agent.metrics": "`exec --output json` tells what the agent counts",
    "feature.env.load_from_process": "the environment is there before the program starts",
    "feature.fs.readonly_file_buffer": "read-ahead adapts itself",
    "feature.magic.auto_mount": "in mode localwithoverrides name the volumes in feature.fs.read_only",
    "feature.magic.turbo": "set feature.network.outgoing.ignore_localhost for Next.js",
}  # fmt: skip

# Would change what the program or the target sees, and isn't there: refused, with the way that is.
REFUSED: dict[str, str] = {
    "profile": "profiles are objects of mirrord's operator; keep a configuration file a profile, and choose with -f",
    "feature.copy_target": "copying a target needs an operator; use a deployment of your own as the target",
    "feature.split_queues": "queues are split by mirrord's operator; name a queue of your own in feature.env.override",
    "feature.db_branches": "database branches are made by mirrord's operator; name a database of your own in feature.env.override",
    "feature.preview": "previews run in the cluster by mirrord's operator; here the program runs on this machine",
    "feature.network.incoming.http_filter.header_filter_jq": "there is no jq; write header_filter, a regular expression",
    "agent.inject_headers": "answers are passed on as they come",
}

# Always so: it is `false` that has no effect, or is refused.
ALWAYS: dict[str, str] = {
    "agent.disable_mesh_sidecar_injection": "no sidecar is put beside the agent, which needs none",
    "agent.external_ip_fix": "what is passed on goes where the client wanted to go",
}
NEEDED: dict[str, str] = {
    "feature.network.ipv6": "IPv6 can't be switched off; a program that must not use it has a switch of its own",
}

_INCOMING = "feature.network.incoming"


def _tls(value: Any) -> dict[str, Any]:
    """The certificate is not in mirrord's file: its operator has that."""
    if not isinstance(value, dict):
        return {} if value is None else {f"{_INCOMING}.tls.delivery": value}
    names = {"protocol": "delivery"}
    return {f"{_INCOMING}.tls.{names.get(key, key)}": {"tcp": "plain"}.get(item, item) if key == "protocol" else item
            for key, item in value.items() if item is not None}  # fmt: skip


def _header_filter(value: Any) -> dict[str, Any]:
    """What http_filter was called before mirrord 3.46: a text, or {filter, ports}."""
    given = value if isinstance(value, dict) else {"filter": value}
    names = {"filter": "header_filter"}
    return {f"{_INCOMING}.http_filter.{names.get(key, key)}": item for key, item in given.items() if item is not None}


# Values that have no exact counterpart, told once.
NEAREST: dict[tuple[str, str], str] = {
    (f"{_INCOMING}.on_concurrent_steal", "continue"): "taken as on_conflict: wait, the program gets the port when it is free",
}

# The same thing under another name.
MAPPED: dict[str, Mapped] = {
    "agent.ephemeral": lambda value: {"agent.mode": {True: "ephemeral", False: "job"}.get(value, value)},
    "agent.flush_connections": lambda value: {f"{_INCOMING}.flush_connections": value},
    f"{_INCOMING}.on_concurrent_steal": lambda value: {f"{_INCOMING}.on_conflict": "wait" if value == "continue" else value},
    f"{_INCOMING}.http_header_filter": lambda value: _header_filter(value),
    f"{_INCOMING}.tls_delivery": lambda value: _tls(value),
    f"{_INCOMING}.https_delivery": lambda value: _tls(value),
}

Note = Callable[[str], None]


def adapt(tree: dict[str, Any], problems: list[str], say: Note) -> dict[str, str]:
    """Take mirrord's own keys out of `tree`, in place; what is refused goes to `problems`, what has no effect to `say`.

    Returns which of ours are there for which of theirs.
    """
    moved: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for path, convert in MAPPED.items():
        found, value = _take(tree, path)
        if found:
            ours = convert(value)
            moved.update(ours)
            sources.update(dict.fromkeys(ours, path))
            near = NEAREST.get((path, str(value)))
            if near is not None:
                say(f"{path}: {value} is {near}")
    for path, reason in WITHOUT_EFFECT.items():
        found, value = _take(tree, path)
        if found and not _off(value):
            say(f"{path} has no effect: {reason}")
    for path, reason in REFUSED.items():
        found, value = _take(tree, path)
        if found and not _off(value):
            problems.append(f"{path}: {reason}")
    for path, reason in ALWAYS.items():
        if _take(tree, path) == (True, False):
            say(f"{path}: false has no effect: {reason}")
    for path, reason in NEEDED.items():
        if _take(tree, path) == (True, False):
            problems.append(f"{path}: {reason}")
    for path, value in moved.items():
        _put(tree, path, value)
    return sources


def _off(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("enabled") is False or all(map(_off, value.values()))
    return value in (None, False, "", [])


def _take(tree: dict[str, Any], path: str) -> tuple[bool, Any]:
    *folders, last = path.split(".")
    for folder in folders:
        below = tree.get(folder)
        if not isinstance(below, dict):
            return False, None
        tree = below
    return (True, tree.pop(last)) if last in tree else (False, None)


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split(".")
    for at, folder in enumerate(folders, 1):
        below = long_form(".".join(folders[:at]), tree.get(folder))
        below = {} if below is None else below
        if not isinstance(below, dict):
            return  # the schema's check says what is wrong with it
        tree[folder] = dict(below)  # a short form belongs to everybody
        tree = tree[folder]
    tree.setdefault(last, value)
