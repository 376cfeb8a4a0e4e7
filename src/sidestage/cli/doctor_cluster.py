"""What the cluster of the current context allows: reached, which version, which rights, and would it take our Job?

Nothing is created: rights are asked for, and the Job is sent as a dry run. A lack is never fatal: other targets need no cluster.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sidestage.cli.finding import Finding
from sidestage.config import Config
from sidestage.targets.spec import TargetError

if TYPE_CHECKING:
    from sidestage.cluster.api import Api

EXEC_OVER_WEBSOCKET = (1, 29)  # the first that has v5.channel.k8s.io, KEP-4006
ALTERNATIVES = {"job": "", "ephemeral": "-e (ephemeral)", "in-container": "--in-container"}


def examine(config: Config) -> list[Finding]:
    from sidestage.cli.cluster import api

    try:
        client = api(config)
    except TargetError as error:
        return [Finding("cluster", "lack", error.cause, error.cure)]
    with client:
        try:
            reached = reach(client)
        except TargetError as error:
            return [Finding("cluster", "lack", error.cause, error.cure)]
        try:
            return [reached, *rights(client, config)]
        except TargetError as error:
            return [reached, Finding("rights", "lack", error.cause, error.cure)]


def reach(client: Api) -> Finding:
    client.request("GET", "/version")  # the connection and TLS
    began = time.perf_counter()
    told = client.request("GET", "/version")
    took = (time.perf_counter() - began) * 1000
    version = str(told.get("gitVersion", "")) if isinstance(told, dict) else ""
    detail = f"{client.access}, version {version or 'unknown'}, {took:.0f} ms away"
    numbers = tuple(int(part) for part in version.lstrip("v").split(".")[:2] if part.isdigit())
    if numbers and numbers < EXEC_OVER_WEBSOCKET:
        return Finding("cluster", "lack", detail, "Kubernetes 1.29 or later speaks exec over WebSocket in full")
    return Finding("cluster", "ok", detail)


def rights(client: Api, config: Config) -> list[Finding]:
    """For the configured mode; if it lacks something, also which other mode would do."""
    from sidestage.cluster import permissions

    namespace, mode = client.namespace, config.agent.mode
    kind = config.target.path.partition("/")[0] or "deployment"
    wanted = permissions.needs(kind, mode, namespace, config.agent.namespace)
    missing = permissions.lacking(client, wanted)
    hard = [need for need in missing if not need.optional]
    if not missing:
        found = [Finding("rights", "ok", f"all that mode {mode} needs in namespace {namespace}")]
    else:
        words = ", ".join(dict.fromkeys(str(need) for need in missing))
        cure = "an administrator can allow it with `kubectl apply -f -` of:\n" + permissions.role(wanted, permissions.who(client))
        if hard and (other := _other(client, kind, mode, namespace)):
            cure = f"use {other}, which is allowed; or {cure}"
        found = [Finding("rights", "lack", f"may not {words}", cure)]
    if mode == "job" and not any(need.resource == "jobs" for need in hard):
        found.append(_job(client, config))
    return found


def _other(client: Api, kind: str, mode: str, namespace: str) -> str:
    from sidestage.cluster import permissions

    for each, flag in ALTERNATIVES.items():
        if flag and each != mode:
            missing = permissions.lacking(client, permissions.needs(kind, each, namespace))
            if all(need.optional for need in missing):
                return flag
    return ""


def _job(client: Api, config: Config) -> Finding:
    """Asks admission: Pod Security, quotas, policies."""
    from sidestage.cluster import job, permissions
    from sidestage.cluster.kinds import KINDS

    namespace = config.agent.namespace or client.namespace
    item = job.job(
        config.agent, "doctor", 1, namespace=namespace, node="doctor", features={"files", "mirror"}, target="none"
    )  # fmt: skip
    try:
        permissions.dry_run(client, KINDS["job"].path(namespace), item, f"the agent's Job in namespace {namespace}")
    except TargetError as error:
        return Finding("agent", "lack", error.cause, error.cure)
    return Finding("agent", "ok", f"its Job would be taken in namespace {namespace}")
