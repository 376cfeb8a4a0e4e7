"""From a target's name to pods: the one whose environment, files and network the program gets, and all that are mirrored.

A name that is not there is answered with the nearest that is; a workload without a ready pod with the cluster's reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidestage.cluster import pods
from sidestage.cluster.api import Api, ApiError, ClusterError
from sidestage.cluster.errors import ScaledToNothing
from sidestage.cluster.kinds import KINDS, OWNS_ITS_PODS, selector
from sidestage.cluster.pods import Pod, PodTarget
from sidestage.targets.spec import TargetSpec

PAGE = 250  # objects in one answer of a list
MAX_PAGES = 400  # of a list of names to suggest from, or of pods of one workload
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Resolved:
    spec: TargetSpec
    chosen: PodTarget
    replicas: tuple[PodTarget, ...]  # all that are ready, `chosen` first; one for a pod
    notes: list[str] = field(default_factory=list)  # what was decided for the user, to be said

    @property
    def nodes(self) -> dict[str, list[PodTarget]]:
        """Replicas by node, the node of `chosen` first."""
        found: dict[str, list[PodTarget]] = {}
        for each in self.replicas:
            found.setdefault(each.node, []).append(each)
        return found


def resolve(api: Api, spec: TargetSpec) -> Resolved:
    """Raises ClusterError."""
    namespace = spec.namespace or api.namespace
    if spec.kind == "pod":
        return _pod(api, spec, namespace)
    found = _pods(api, spec, namespace)
    ready = pods.in_order([pod for pod in found if pods.ready(pod)])
    if not ready:
        raise _none_ready(api, spec, namespace, found)
    notes: list[str] = []
    container, note = pods.choose_container(ready[0], spec.container)
    notes += [note] if note else []
    replicas = tuple(pods.target(pod, container) for pod in ready if pods.running(pod, container))
    if not replicas:
        raise ClusterError(
            f"container {container!r} does not run in pod {pods.name(ready[0])}: {pods.why_not(ready[0], container)}",
            "name another with /container/NAME",
        )
    chosen = replicas[0]
    if len(replicas) > 1:
        notes.append(f"{spec} has {len(replicas)} ready pods; environment, files and network are those of {chosen.pod}")
    return Resolved(spec, chosen, replicas, notes)


def _pod(api: Api, spec: TargetSpec, namespace: str) -> Resolved:
    pod = _get(api, spec, namespace)
    container, note = pods.choose_container(pod, spec.container)
    if not pods.running(pod, container):
        why = pods.why_not(pod, container, _events(api, namespace, spec.name))
        raise ClusterError(f"pod {spec.name} can't be a target: {why}", f"see `kubectl -n {namespace} describe pod {spec.name}`")
    notes = [note] if note else []
    if not pods.ready(pod):
        notes.append(f"pod {spec.name} is not ready: {pods.why_not(pod, container)}")
    chosen = pods.target(pod, container)
    return Resolved(spec, chosen, (chosen,), notes)


def _pods(api: Api, spec: TargetSpec, namespace: str) -> list[Pod]:
    """All pods of a target that is no pod, ready or not."""
    if spec.kind == "label":
        chosen, owner = spec.name, ""
    else:
        item = _get(api, spec, namespace)
        kind = spec.kind
        if kind == "cronjob":
            kind, item = "job", _latest_job(api, item, namespace)
        chosen, owner = selector(kind, item), item["metadata"]["uid"] if kind in OWNS_ITS_PODS else ""
    found = listed(api, KINDS["pod"].path(namespace), {"labelSelector": chosen})
    return [pod for pod in found if not owner or _owned(pod, owner)]


def _latest_job(api: Api, cronjob: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    name, uid = cronjob["metadata"]["name"], cronjob["metadata"]["uid"]
    jobs = [job for job in listed(api, KINDS["job"].path(namespace)) if _owned(job, uid) and job.get("status", {}).get("active")]
    if not jobs:
        spec = cronjob.get("spec", {})
        when = "is suspended" if spec.get("suspend") else f"has no job running now (schedule {spec.get('schedule')!r})"
        raise ClusterError(
            f"cronjob {name} {when}", f"start one: kubectl -n {namespace} create job {name}-now --from=cronjob/{name}"
        )
    return max(jobs, key=lambda job: (str(job["metadata"].get("creationTimestamp")), str(job["metadata"]["name"])))


def _owned(item: Mapping[str, Any], uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or ())


def _get(api: Api, spec: TargetSpec, namespace: str) -> dict[str, Any]:
    try:
        return dict(api.request("GET", KINDS[spec.kind].path(namespace, spec.name)))
    except ApiError as error:
        if error.status == 404:
            raise _not_found(api, spec, namespace) from error
        raise


def _not_found(api: Api, spec: TargetSpec, namespace: str) -> ClusterError:
    cause = f"there is no {spec.kind} {spec.name!r} in namespace {namespace!r}"
    try:
        names = [str(item["metadata"]["name"]) for item in pages(api, KINDS[spec.kind].path(namespace), metadata=True)]
    except ApiError as error:
        if error.status == 404:
            return ClusterError(f"this cluster has no {spec.kind}s", "rollouts come with Argo Rollouts; use another kind")
        return ClusterError(cause, "check the name and the namespace (-n)")
    import difflib  # only for a message

    near = difflib.get_close_matches(spec.name, names, 3, 0.5) or [each for each in names if spec.name in each][:3]
    if near:
        return ClusterError(cause, f"did you mean {' or '.join(f'{spec.kind}/{each}' for each in near)}?")
    if not names and not _namespace_exists(api, namespace):
        return ClusterError(f"there is no namespace {namespace!r}", "choose another with -n; `kubectl get namespaces` lists them")
    if not names:
        return ClusterError(cause, f"it has no {spec.kind}s at all: choose another namespace with -n")
    return ClusterError(cause, f"there are {', '.join(sorted(names)[:8])}")


def _namespace_exists(api: Api, namespace: str) -> bool:
    """Only a clear no is a no: many may not look at namespaces."""
    try:
        api.request("GET", f"/api/v1/namespaces/{namespace}")
    except ApiError as error:
        return error.status != 404
    return True


def _none_ready(api: Api, spec: TargetSpec, namespace: str, found: list[Pod]) -> ClusterError:
    describe = f"see `kubectl -n {namespace} describe {spec.kind} {spec.name}`"
    alive = pods.in_order([pod for pod in found if not pods.leaving(pod)])
    if not alive and spec.kind not in ("label", "service") and _get(api, spec, namespace).get("spec", {}).get("replicas") == 0:
        return ScaledToNothing(f"{spec} is scaled to 0", f"kubectl -n {namespace} scale {spec.kind} {spec.name} --replicas=1")
    if alive or found:
        pod = (alive or found)[0]
        container, _ = pods.choose_container(pod, spec.container)
        why = pods.why_not(pod, container, _events(api, namespace, pods.name(pod)))
        cure = f"-t pod/{pods.name(pod)} plugs into it nevertheless" if pods.running(pod, container) else describe
        return ClusterError(f"{spec} has no ready pod; {pods.name(pod)}: {why}", cure)
    if spec.kind == "label":
        return ClusterError(f"no pod in namespace {namespace!r} has the label {spec.name}", "see `kubectl get pods --show-labels`")
    # Quotas, admission and Pod Security refuse pods of a workload in its events, or its ReplicaSet's.
    events = [
        event for event in _events(api, namespace)
        if str(event.get("involvedObject", {}).get("name", "")).startswith(spec.name)
    ]  # fmt: skip
    return ClusterError(f"{spec} has no pods: {pods.last_warning(events) or 'none was made'}", describe)


def _events(api: Api, namespace: str, pod: str = "") -> list[dict[str, Any]]:
    """Warnings; none if we may not look: they only explain."""
    chosen = f"type=Warning,involvedObject.name={pod}" if pod else "type=Warning"
    try:
        return listed(api, f"/api/v1/namespaces/{namespace}/events", {"fieldSelector": chosen})
    except ApiError:
        return []


def listed(api: Api, path: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    return list(pages(api, path, query))


def pages(api: Api, path: str, query: Mapping[str, str] | None = None, metadata: bool = False) -> Iterator[dict[str, Any]]:
    """The items of a list, asked for page by page; `metadata` leaves all else out, which is a tenth of the bytes."""
    wanted = {**(query or {}), "limit": str(PAGE)}
    for _ in range(MAX_PAGES):
        answer = api.request("GET", path, query=wanted, accept=METADATA if metadata else "application/json")
        yield from answer.get("items") or ()
        more = (answer.get("metadata") or {}).get("continue")
        if not more:
            return
        wanted["continue"] = more
    raise ClusterError(f"a list has more than {PAGE * MAX_PAGES} objects", "name the target with -t")
