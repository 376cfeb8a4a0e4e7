"""What is created in the cluster, as objects: the agent's Job, its pod, and the ephemeral container. Pure.

The container's main process (agent/guard.py) waits for the agent that exec starts in it and ends with it; the finished Job is
deleted by its TTL. So all goes by itself, also when nobody is left who could delete it.
"""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Collection, Mapping
from typing import Any

from sidestage.agent import payload
from sidestage.config.schema import Agent

IMAGE = "docker.io/library/python:3.13-slim"
CONTAINER = "agent"
PATIENCE = 20  # seconds that the container waits for its agent: whoever made it may have been killed
ANOTHER = 12  # seconds that a container of several sessions waits for another agent after its last: one may be starting again
MAX_SHARES = 4  # sessions whose memory is added up in one container; more than that are rarely busy together
DEADLINE = 24 * 3600  # seconds of the longest life of one agent; the session gets another one then
GRACE = 10  # seconds for the agent to undo what it did when the pod is deleted
SESSION = "sidestage.dev/session"  # the label by which all of a session is found
LABELS = {"app.kubernetes.io/name": "sidestage-agent", "app.kubernetes.io/managed-by": "sidestage"}
# Service meshes, each by its own word; as labels and annotations, as their versions differ in which they read.
NO_MESH = {
    "sidecar.istio.io/inject": "false", "kuma.io/sidecar-injection": "disabled", "linkerd.io/inject": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
}  # fmt: skip
CPU, CPU_MAX = 10, "2"  # millicores of one session's agent, asked for; cores that a container may use
MEMORY, MEMORY_MAX = 32, 256  # MiB of one session's agent
# What each feature needs beside a target of another user and another network namespace (capabilities(7)).
BESIDE = ("SYS_ADMIN", "SYS_PTRACE")  # setns(2); /proc/PID/root, environ and ns of other users' processes
NEEDS = {
    "files": ("DAC_READ_SEARCH",),
    "write": ("SETUID", "SETGID", "DAC_OVERRIDE", "FOWNER", "CHOWN"),  # to act as the target; the last three if that is root
    "unix": ("DAC_OVERRIDE",),  # to connect is to write, unix(7)
    "mirror": ("NET_RAW",),
    "steal": ("NET_ADMIN",),
}
ANNOTATION = re.compile(r"[^\x20-\x7e]")


def name_of(session: str, number: int) -> str:
    """Of the Job or ephemeral container; `number` counts the agents of a session."""
    return f"sidestage-{session}" + (f"-{number}" if number > 1 else "")


def guard_name(session: str, number: int) -> str:
    return f"{name_of(session, number)}-guard"


def interpreter(agent: Agent) -> str:
    return agent.python or "python3"


def capabilities(agent: Agent, features: Collection[str], beside: bool) -> list[str]:
    wanted = {*(BESIDE if beside else ()), *(name for feature in features for name in NEEDS.get(feature, ()))}
    return sorted(wanted - set(agent.disabled_capabilities))


def job(
    agent: Agent, session: str, number: int, *, namespace: str, node: str, features: Collection[str], target: str, shares: int = 0
) -> dict[str, Any]:
    """`node` is the target's; empty for targetless, whose pod is an ordinary one: no host, no rights, its own service account.

    `shares` is how many sessions are expected in it; 0: it is one's own, and ends with that one's agents.
    """
    name = name_of(session, number)
    labels = {**NO_MESH, **agent.labels, **LABELS, SESSION: session}
    annotations = {**NO_MESH, "cluster-autoscaler.kubernetes.io/safe-to-evict": "true", **agent.annotations}
    about = {"sidestage.dev/target": target, "sidestage.dev/user": owner()}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": {**LABELS, SESSION: session}, "annotations": about},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": agent.ttl,
            "activeDeadlineSeconds": DEADLINE,
            "template": {
                "metadata": {"labels": labels, "annotations": {**annotations, **about}},
                "spec": pod(agent, session, number, node, features, shares),
            },
        },
    }


def pod(agent: Agent, session: str, number: int, node: str, features: Collection[str], shares: int = 0) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "containers": [container(agent, session, number, features, beside=bool(node), shares=shares)],
    }
    tolerations = agent.tolerations
    if node:
        # Not by the scheduler: it must be there, on a cordoned node too.
        spec |= {"nodeName": node, "hostPID": True, "enableServiceLinks": False}
        spec["automountServiceAccountToken"] = False  # whose account it is matters to admission only
        if tolerations is None:
            tolerations = ({"operator": "Exists"},)
    elif agent.node_selector:
        spec["nodeSelector"] = dict(agent.node_selector)
    if tolerations:
        spec["tolerations"] = [dict(each) for each in tolerations]
    if agent.service_account:
        spec["serviceAccountName"] = agent.service_account
    if agent.priority_class:
        spec["priorityClassName"] = agent.priority_class
    if agent.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in agent.image_pull_secrets]
    return spec


def container(
    agent: Agent, session: str, number: int, features: Collection[str], *, beside: bool, shares: int = 0
) -> dict[str, Any]:
    python = interpreter(agent)
    return {
        "name": CONTAINER,
        "image": agent.image or IMAGE,
        "imagePullPolicy": agent.image_pull_policy,
        "command": payload.guard(python, guard_name(session, number), PATIENCE, ANOTHER if shares else 0),
        "resources": merged(_resources(max(1, min(shares, MAX_SHARES))), agent.resources),
        "securityContext": merged(_security(agent, features, beside), agent.security_context),
    }


def _resources(sessions: int) -> dict[str, Any]:
    return {
        "requests": {"cpu": f"{CPU * sessions}m", "memory": f"{MEMORY * sessions}Mi"},
        "limits": {"cpu": CPU_MAX, "memory": f"{MEMORY_MAX * sessions}Mi"},
    }


def _security(agent: Agent, features: Collection[str], beside: bool) -> dict[str, Any]:
    if agent.privileged:
        return {"privileged": True, "runAsUser": 0, "runAsNonRoot": False}
    added = capabilities(agent, features, beside) if beside else []
    context: dict[str, Any] = {
        "capabilities": {"drop": ["ALL"], **({"add": added} if added else {})},
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if beside:
        context |= {"runAsUser": 0, "runAsNonRoot": False}
    if "SYS_ADMIN" not in added:  # the API server refuses the contradiction
        context["allowPrivilegeEscalation"] = False
    return context


def ephemeral(
    agent: Agent, session: str, number: int, *, target: str, features: Collection[str], user: int | None, restricted: bool
) -> dict[str, Any]:
    """A container in the target's pod: its network is the target's, and with `target` (a container) its processes as well.

    Under Pod Security `restricted` it has no rights at all, and is the target's user, so that it may look at the target's process.
    """
    name = name_of(session, number)
    security: dict[str, Any] = {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    security["seccompProfile"] = {"type": "RuntimeDefault"}
    if restricted:
        security["runAsNonRoot"] = True
    else:
        added = [each for each in capabilities(agent, features, beside=True) if each not in ("SYS_ADMIN", "NET_ADMIN")]
        security |= {"runAsUser": 0, "runAsNonRoot": False}
        if added:
            security["capabilities"]["add"] = added
    if user is not None:
        security["runAsUser"] = user
    python = interpreter(agent)
    return {
        "name": name,
        "image": agent.image or IMAGE,
        "imagePullPolicy": agent.image_pull_policy,
        "command": payload.guard(python, guard_name(session, number), PATIENCE),
        "targetContainerName": target,
        "securityContext": merged({"privileged": True} if agent.privileged else security, agent.security_context),
    }


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """`theirs` over `ours`, into nested objects; a null takes ours away."""
    result: dict[str, Any] = dict(ours)
    for key, value in theirs.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def owner() -> str:
    """Whose agents are ours: user@machine."""
    return _text(f"{_user()}@{socket.gethostname()}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "?"


def _text(text: str) -> str:
    return ANNOTATION.sub("?", text)
