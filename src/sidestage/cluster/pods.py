"""What a pod says of itself: which container is meant, whether it can be a target, and if not, why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sidestage.cluster.errors import ClusterError

Pod = dict[str, Any]  # as the API gives it

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
# Put there by meshes and other tools, not by the pod's author.
SIDECARS = frozenset({
    "istio-proxy", "istio-init", "linkerd-proxy", "linkerd-init", "kuma-sidecar", "kuma-init", "envoy-sidecar", "consul-dataplane",
    "vault-agent", "vault-agent-init", "queue-proxy", "traffic-agent", "cloud-sql-proxy", "cloudsql-proxy", "daprd",
    "datadog-agent", "fluent-bit", "filebeat", "oauth2-proxy",
})  # fmt: skip


NONROOT = 65532  # as in distroless


@dataclass(frozen=True, slots=True)
class PodTarget:
    """One container of one pod."""

    namespace: str
    pod: str
    uid: str
    node: str
    container: str
    container_id: str  # as the runtime names it, `containerd://...`; empty: not started
    raw: Pod

    def __str__(self) -> str:
        return f"pod/{self.pod}/container/{self.container}"


def name(pod: Pod) -> str:
    return str(pod["metadata"]["name"])


def choose_container(pod: Pod, asked: str) -> tuple[str, str]:
    """The container's name, and what to tell the user if it was guessed. Raises ClusterError."""
    spec = pod.get("spec", {})
    names = [item["name"] for item in spec.get("containers") or ()]
    if asked:
        # Sidecars that start before the others are init containers that are restarted always (Kubernetes 1.28).
        more = [item["name"] for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"]
        more += [item["name"] for item in spec.get("ephemeralContainers") or ()]
        if asked not in names + more:
            import difflib  # only for a message

            near = difflib.get_close_matches(asked, names + more, 1, 0.5)
            raise ClusterError(
                f"pod {name(pod)} has no container {asked!r}",
                f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}",
            )
        return asked, ""
    default = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if default and default in names:
        return str(default), ""
    if len(names) == 1:
        return names[0], ""
    own = [each for each in names if each not in SIDECARS] or names
    if len(own) == 1:
        return own[0], ""
    return own[0], f"{name(pod)} has containers {', '.join(own)}: {own[0]} is taken; name another with /container/NAME"


def spec_of(pod: Pod, container: str) -> dict[str, Any]:
    """The specification of a container; empty if there is none of that name."""
    spec = pod.get("spec", {})
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for item in spec.get(key) or ():
            if item.get("name") == container:
                return dict(item)
    return {}


def user_of(pod: Pod, container: str) -> int:
    """The user that a container runs as, if the pod says so; else the one that images without a root often have."""
    for context in (spec_of(pod, container).get("securityContext"), pod.get("spec", {}).get("securityContext")):
        if context and context.get("runAsUser") is not None:
            return int(context["runAsUser"])
    return NONROOT


def status_of(pod: Pod, container: str) -> dict[str, Any]:
    status = pod.get("status", {})
    for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for item in status.get(key) or ():
            if item.get("name") == container:
                return dict(item)
    return {}


def condition(pod: Pod, kind: str) -> dict[str, Any]:
    return next((dict(item) for item in pod.get("status", {}).get("conditions") or () if item.get("type") == kind), {})


def ready(pod: Pod) -> bool:
    return leaving(pod) is False and condition(pod, "Ready").get("status") == "True"


def leaving(pod: Pod) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def running(pod: Pod, container: str) -> bool:
    return not leaving(pod) and "running" in status_of(pod, container).get("state", {})


def target(pod: Pod, container: str) -> PodTarget:
    meta = pod["metadata"]
    return PodTarget(
        meta["namespace"], meta["name"], meta["uid"], pod.get("spec", {}).get("nodeName", ""), container,
        status_of(pod, container).get("containerID", ""), pod,
    )  # fmt: skip


def in_order(pods: Sequence[Pod]) -> list[Pod]:
    """Those that will live longest first: of the newest revision, since a roll-out ends the others; of those the oldest, since
    scaling down ends the newest (kubernetes pkg/controller/controller_utils.go, ActivePodsWithRanks)."""
    born: dict[str, str] = {}
    for pod in pods:
        made, revision = str(pod["metadata"].get("creationTimestamp", "")), _revision(pod)
        born[revision] = min(made, born.get(revision, made))
    by_age = sorted(pods, key=lambda pod: (str(pod["metadata"].get("creationTimestamp", "")), name(pod)))
    return sorted(by_age, key=lambda pod: (born[_revision(pod)], _revision(pod)), reverse=True) if len(born) > 1 else by_age


def _revision(pod: Pod) -> str:
    labels = pod["metadata"].get("labels") or {}
    for label in ("pod-template-hash", "rollouts-pod-template-hash", "controller-revision-hash"):
        if label in labels:
            return str(labels[label])
    return ""


def why_not(pod: Pod, container: str, events: Sequence[dict[str, Any]] = ()) -> str:
    """Why a pod can't be a target, in the cluster's own words where it has some."""
    if leaving(pod):
        return "it is being deleted"
    phase = pod.get("status", {}).get("phase", "")
    if phase in ("Succeeded", "Failed"):
        return f"it has ended ({phase}{_detail(pod.get('status', {}))})"
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"it is not scheduled: {scheduled.get('message') or scheduled.get('reason')}"
    status = status_of(pod, container)
    for each in (status, *(pod.get("status", {}).get("initContainerStatuses") or ()),
                 *(pod.get("status", {}).get("containerStatuses") or ())):  # fmt: skip
        waiting = each.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating", None):
            last = each.get("lastState", {}).get("terminated", {})
            ended = f"; it ended with {last['exitCode']}{_detail(last)}" if "exitCode" in last else ""
            return f"container {each.get('name')} waits: {waiting['reason']}{_detail(waiting, reason=False)}{ended}"
    last = status.get("lastState", {}).get("terminated", {})
    if last and not status.get("ready"):
        times = status.get("restartCount", 0)
        return f"container {container} ended with {last.get('exitCode')}{_detail(last)}, {times} restarts until now"
    warning = last_warning(events)
    if warning:
        return warning
    for each in pod.get("status", {}).get("initContainerStatuses") or ():
        if "running" in each.get("state", {}) and not each.get("ready"):
            return f"its init container {each.get('name')} still runs"
    ended = status.get("state", {}).get("terminated")
    if ended:
        return f"container {container} ended with {ended.get('exitCode')}{_detail(ended)}"
    unready = condition(pod, "Ready")
    return str(unready.get("message") or unready.get("reason") or f"its phase is {phase or 'unknown'}")


def last_warning(events: Sequence[dict[str, Any]]) -> str:
    """The newest warning among events, in a line."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    if not warnings:
        return ""
    newest = max(warnings, key=moment)
    return f"{newest.get('reason')}: {' '.join(str(newest.get('message', '')).split())}"


def moment(event: dict[str, Any]) -> str:
    """When an event last happened; old and new clients of the API write different fields."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")


def _detail(told: dict[str, Any], reason: bool = True) -> str:
    words = [str(told[key]) for key in (("reason", "message") if reason else ("message",)) if told.get(key)]
    return f" ({': '.join(' '.join(word.split()) for word in words)})" if words else ""
