"""How far the agent's pod has come, and when it is clear that it will come no further. Pure: read off the pod and its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidestage.cluster import pods
from sidestage.cluster.errors import ClusterError
from sidestage.cluster.pods import Pod
from sidestage.cluster.ready import no_program
from sidestage.cluster.refusals import cure, shorter

# Reasons of a waiting container that waiting does not cure (k8s.io/kubernetes/pkg/kubelet/images, .../kuberuntime).
HOPELESS = (
    "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff", "StartError",
)  # fmt: skip
# Events after which no pod comes (job controller), or no container in it (scheduler, kubelet).
FATAL_EVENTS = (
    "FailedCreate", "FailedScheduling", "OutOfcpu", "OutOfmemory", "OutOfpods", "NodeAffinity", "UnexpectedAdmissionError",
)  # fmt: skip
ANYWAY = "see `kubectl -n {namespace} describe pod {pod}`; `sidestage doctor` checks what the cluster allows"


def started(pod: Pod, container: str) -> bool:
    """Can exec reach the container? Raises ClusterError when it never will."""
    status = pods.status_of(pod, container)
    state = status.get("state", {})
    if "running" in state:
        return True
    meta = pod["metadata"]
    advice = ANYWAY.format(namespace=meta.get("namespace", "?"), pod=meta["name"])
    ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    missing = no_program(f"{waiting.get('message')} {ended.get('message')}")
    if missing:
        raise ClusterError(f"the agent's image has no Python ({missing})", "name it in agent.python, or another agent.image")
    phase = pod.get("status", {}).get("phase", "")
    if ended or phase in ("Failed", "Succeeded"):
        raise _failed(_why_ended(pod, ended), advice)
    if waiting.get("reason") in HOPELESS:
        raise _failed(f"{waiting['reason']}: {waiting.get('message') or 'no more is told'}", advice)
    scheduled = pods.condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        raise _failed(f"no node takes it: {scheduled.get('message')}", advice)
    if pods.leaving(pod):
        raise _failed("its pod was deleted by somebody", advice)
    return False


def told(events: Sequence[dict[str, Any]]) -> None:
    """What the events of the Job and its pod say; raises ClusterError."""
    for event in sorted(events, key=pods.moment, reverse=True):
        if event.get("type") == "Warning" and event.get("reason") in FATAL_EVENTS:
            raise _failed(f"{event['reason']}: {event.get('message', '')}", "`sidestage doctor` checks what the cluster allows")


def doing(pod: Pod | None, events: Sequence[dict[str, Any]] = ()) -> str:
    """What is going on, for the user who waits."""
    if pod is None:
        return "waiting for the agent's pod to be made"
    normal = [event for event in events if event.get("reason") in ("Pulling", "Pulled", "Scheduled", "Created", "Started")]
    if normal:
        newest = max(normal, key=pods.moment)
        if newest["reason"] == "Pulling":
            return shorter(str(newest.get("message", "")), 120)
    warning = pods.last_warning(events)
    return f"the agent's pod starts: {shorter(warning, 200)}" if warning else "the agent's pod starts"


def node_trouble(node: dict[str, Any]) -> str:
    """Why a node starts no pods; empty if it seems well."""
    ready = pods.condition(node, "Ready")
    if ready.get("status") == "True":
        return ""
    return f"{ready.get('reason') or 'it is not ready'}: {shorter(str(ready.get('message') or ''), 200)}"


def _why_ended(pod: Pod, ended: dict[str, Any]) -> str:
    status = pod.get("status", {})
    if ended.get("message") or ended.get("reason") not in (None, "Error", "Completed"):
        return f"{ended.get('reason')}: {ended.get('message') or ended.get('exitCode')}"
    if status.get("reason") or status.get("message"):
        return f"{status.get('reason')}: {status.get('message')}"
    return f"its container ended with {ended.get('exitCode', 'nothing')} before the agent came"


def _failed(why: str, advice: str) -> ClusterError:
    return ClusterError(f"the agent can't start: {shorter(why)}", cure(why) or advice)
