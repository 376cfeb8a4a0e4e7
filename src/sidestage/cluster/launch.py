"""From a plan to an agent that has said READY, step by step: create, wait, exec. Blocking; raises ClusterError.

Whatever was created is in `Created`, so that it can be removed whenever that becomes necessary, half made or whole.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sidestage.agent import payload
from sidestage.cluster import job, lease, pods, spdy, verdict
from sidestage.cluster.api import Api, ApiError, Upgraded, path_of
from sidestage.cluster.channels import EXEC_PROTOCOLS, Channels, Exec, Piped
from sidestage.cluster.errors import ClusterError
from sidestage.cluster.plan import EXEC_MAX_DATA, Plan
from sidestage.cluster.pods import PodTarget
from sidestage.cluster.refusals import explained, of_warnings
from sidestage.cluster.targets import resolve
from sidestage.config.schema import Agent
from sidestage.targets.spec import CLUSTER_KINDS, TargetSpec

LOOK = 1.0  # seconds without news of the pod after which its events are read
NODE_LOOK = 4.0  # seconds after which the node is looked at as well
REMOVE_SECONDS = 15.0  # for the Job to be deleted, if the API server does not answer

Say = Callable[[str, str], None]  # kind, text
Stream = Exec | spdy.SpdyExec | Piped
Started = tuple[Upgraded, Stream, list[str]]  # exec has begun, and the payload is to be written; notes on what was chosen


class Over(ClusterError):
    """There is to be no other agent."""


class Cancelled(Exception):
    """The session has ended meanwhile."""


@dataclass(slots=True)
class Created:
    """What is there because of us, or may be, and what it is beside."""

    number: int
    mode: str = "job"
    job: str = ""  # path of the Job
    namespace: str = ""
    pod: str = ""
    container: str = ""
    chosen: PodTarget | None = None
    host: int = 0  # number of the agent in whose Job this one runs as well
    guard: str = ""  # of the container's main process; empty in the target's own container
    lease: socket.socket | None = None  # of a Job that is not ours: it may go when nobody has one
    bulk: bool = True  # may the session ask for bulk connections to it?
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def where(self) -> str:
        """For the user."""
        return f"{self.chosen} on {self.chosen.node}" if self.chosen else f"namespace {self.namespace}"

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


def start(api: Api, plan: Plan, created: Created, spec: TargetSpec, say: Say, gone: str = "") -> Started:
    """`spec` is the plan's target or its successor; `gone` is the id of a container that has ended, whatever the API still says.
    """
    try:
        return _start(api, plan, created, spec, say, gone)
    except ApiError as error:
        raise _explained(api, plan, error, "the agent") from error


def _start(api: Api, plan: Plan, created: Created, spec: TargetSpec, say: Say, gone: str) -> Started:
    agent = plan.agent
    notes: list[str] = []
    if spec.kind == "targetless":
        created.namespace = agent.namespace or spec.namespace or api.namespace
        say("phase", f"creating the agent in namespace {created.namespace}")
        _create_job(api, plan, created, "", "targetless")
        _wait_running(api, agent, created, say)
    else:
        resolved = resolve(api, spec)
        chosen, notes = resolved.chosen, resolved.notes
        if chosen.container_id == gone:
            raise ClusterError(f"{chosen} has ended and is not back yet", "see why it ends")
        notes += beside(api, plan, created, chosen, say)
    say("phase", "starting the agent")
    return *run_agent(api, plan, created), notes


def beside(api: Api, plan: Plan, created: Created, chosen: PodTarget, say: Say) -> list[str]:
    """A container for the agent of `chosen`, running; what to tell the user of it."""
    agent, notes = plan.agent, list[str]()
    created.chosen, created.mode, created.namespace = chosen, agent.mode, chosen.namespace
    created.check()
    if agent.mode == "in-container":
        created.pod, created.container = chosen.pod, chosen.container
        return notes
    if agent.mode == "ephemeral":
        say("phase", f"adding the agent to pod {chosen.pod}")
        notes += _add_ephemeral(api, plan, created, chosen)
    else:
        created.namespace = agent.namespace or chosen.namespace
        if plan.pool:
            try:
                lease.take(plan, created, chosen, say)
            except OSError as error:
                notes.append(f"no agent is shared with other services ({error.strerror}): this one has its own")
            else:
                return notes
        say("phase", f"creating the agent on {chosen.node}")
        _create_job(api, plan, created, chosen.node, f"{chosen.namespace}/{chosen}")
    _wait_running(api, agent, created, say)
    return notes


def to_share(api: Api, plan: Plan, created: Created, node: str, targets: str, shares: int, say: Say) -> None:
    """A Job on a node for agents of several sessions, its container running."""
    try:
        created.check()
        say("phase", f"creating the agent on {node}")
        _create_job(api, plan, created, node, targets, shares)
        _wait_running(api, plan.agent, created, say, node)
    except ApiError as error:
        raise _explained(api, plan, error, "the agent") from error


def still_runs(api: Api, created: Created) -> bool:
    """Can an agent be started in a container that ran a while ago?"""
    path = path_of("api", "v1", "namespaces", created.namespace, "pods")
    found = api.request("GET", path, query={"labelSelector": f"job-name={created.job.rpartition('/')[2]}"})
    return any(pods.running(pod, created.container) for pod in found.get("items") or ())


def run_agent(api: Api, plan: Plan, created: Created) -> tuple[Upgraded, Stream]:
    """exec an agent in its container, which runs."""
    created.check()
    args: dict[str, Any] = {"session": plan.session, "agent": created.number, "bulk": created.bulk, **plan.limits}
    args["max_data"] = EXEC_MAX_DATA
    if created.chosen:
        args["container"] = created.chosen.container_id.rpartition("/")[2]
    if created.mode == "in-container":
        args["here"] = "container"
    else:
        args["guard"] = created.guard
        if created.mode == "ephemeral":
            args["here"] = "pod"
    return _exec(api, plan, created, args)


def _create_job(api: Api, plan: Plan, created: Created, node: str, target: str, shares: int = 0) -> None:
    namespace = created.namespace
    wanted = job.job(
        plan.agent, plan.session, created.number,
        namespace=namespace, node=node, features=plan.features, target=target, shares=shares,
    )  # fmt: skip
    created.guard = job.guard_name(plan.session, created.number)
    jobs = path_of("apis", "batch", "v1", "namespaces", namespace, "jobs")
    created.container, created.job = job.CONTAINER, f"{jobs}/{wanted['metadata']['name']}"
    api.request("POST", jobs, body=wanted)
    refusal = of_warnings(api.warnings, f"the agent's Job in namespace {namespace}")
    if refusal:
        raise refusal


def _add_ephemeral(api: Api, plan: Plan, created: Created, chosen: PodTarget) -> list[str]:
    """With rights if the namespace allows them, else as the target's own user; the notes to that."""
    path = path_of("api", "v1", "namespaces", chosen.namespace, "pods", chosen.pod, "ephemeralcontainers")
    created.pod, created.container = chosen.pod, job.name_of(plan.session, created.number)
    created.guard = job.guard_name(plan.session, created.number)
    own = pods.spec_of(chosen.raw, chosen.container)
    for restricted in (False, True):
        wanted = job.ephemeral(
            plan.agent, plan.session, created.number, target=chosen.container, features=plan.features,
            user=pods.user_of(chosen.raw, chosen.container) if restricted else None, restricted=restricted,
        )  # fmt: skip
        wanted |= {key: own[key] for key in ("env", "envFrom") if own.get(key)}
        try:
            body = {"spec": {"ephemeralContainers": [wanted]}}
            api.request("PATCH", path, body=body, content_type="application/strategic-merge-patch+json")
        except ApiError as error:
            if restricted or error.status != 403 or "PodSecurity" not in error.message:
                raise
        else:
            user = wanted["securityContext"].get("runAsUser")
            return [f"namespace {chosen.namespace} allows no rights: the agent is user {user}"] if restricted else []
    raise AssertionError("unreachable")


def _wait_running(api: Api, agent: Agent, created: Created, say: Say, node: str = "") -> None:
    name = created.job.rpartition("/")[2] if created.job else created.pod
    node = node or (created.chosen.node if created.chosen else "")
    path = path_of("api", "v1", "namespaces", created.namespace, "pods")
    query = {"labelSelector": f"job-name={name}"} if created.job else {"fieldSelector": f"metadata.name={name}"}
    began = time.monotonic()
    last, pod = "", None
    while (waited := time.monotonic() - began) < agent.startup_timeout:
        created.check()
        for event in api.watch(path, query=query, timeout=LOOK):
            created.check()
            if event["type"] == "DELETED":
                raise ClusterError("the agent's pod was deleted by somebody", "try again")
            pod = event["object"]
            created.pod = pod["metadata"]["name"]
            if verdict.started(pod, created.container):
                return
        events = _events(api, created, name)
        verdict.told(events)
        if node and waited > NODE_LOOK:
            _look_at_node(api, node)
        doing = verdict.doing(pod, events)
        if doing != last:
            say("phase", doing)
            last = doing
    raise ClusterError(
        f"the agent has not started within {agent.startup_timeout} s: {verdict.doing(pod, _events(api, created, name))}",
        "a slow registry needs a longer agent.startup_timeout",
    )


def _events(api: Api, created: Created, name: str) -> list[dict[str, Any]]:
    """Of the Job and its pod; none if we may not look: they only explain."""
    found: list[dict[str, Any]] = []
    for each in dict.fromkeys(filter(None, (name, created.pod))):
        path = path_of("api", "v1", "namespaces", created.namespace, "events")
        try:
            answer = api.request("GET", path, query={"fieldSelector": f"involvedObject.name={each}", "limit": "50"})
        except ApiError:
            return found
        found += answer.get("items") or ()
    if created.mode == "ephemeral":  # the pod's other containers have events of their own
        found = [event for event in found if created.container in str(event.get("involvedObject", {}).get("fieldPath"))]
    return found


def _look_at_node(api: Api, node: str) -> None:
    try:
        trouble = verdict.node_trouble(api.request("GET", path_of("api", "v1", "nodes", node)))
    except ApiError as error:
        if error.status != 404:
            return  # most may not look at nodes
        trouble = "it has left the cluster"
    if trouble:
        raise ClusterError(f"the agent can't start: node {node}: {trouble}", "try again when the pod runs elsewhere")


def _exec(api: Api, plan: Plan, created: Created, args: dict[str, Any]) -> tuple[Upgraded, Stream]:
    command = payload.command(job.interpreter(plan.agent), args)
    query = [("container", created.container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
    query += [("command", word) for word in command]
    path = path_of("api", "v1", "namespaces", created.namespace, "pods", created.pod, "exec")
    own = api.exec(created.namespace, created.pod, created.container, command)
    if own:
        return own
    try:
        upgraded = api.upgrade(path, query, EXEC_PROTOCOLS)
        return upgraded, Exec(upgraded.protocol)
    except ClusterError as error:
        # 403: since Kubernetes 1.35 a WebSocket needs two verbs, and most Roles have one. Others: a proxy that knows no WebSocket.
        if isinstance(error, ApiError) and error.status not in (400, 403, 404, 405) and error.status < 500:
            raise
        try:
            return api.upgrade_spdy(path, query, spdy.EXEC_PROTOCOL), spdy.SpdyExec()
        except ClusterError:
            raise error from None


def forward_path(created: Created) -> str:
    return path_of("api", "v1", "namespaces", created.namespace, "pods", created.pod, "portforward")


def forward(api: Api, path: str, port: int) -> tuple[Upgraded, Channels]:
    """A connection to a port on the loopback of the agent's pod, whose port-forward has `path`."""
    try:
        return api.upgrade_spdy(path, [], spdy.PROTOCOL), spdy.Forward(port)
    except ClusterError as error:
        if isinstance(error, ApiError) and error.status == 403:
            raise
        return api.upgrade(path, [], [spdy.TUNNEL]), spdy.Tunnel(port)


def remove(api: Api, created: Created) -> None:
    """The Job and its pod, if there is one; what can't be reached goes by itself (guard, TTL). One that is lent is given back."""
    if created.lease:
        created.lease.close()
    if not created.job or created.lease:
        return
    ends = time.monotonic() + REMOVE_SECONDS
    pause = 0.2
    while True:
        try:
            api.request("DELETE", created.job, query={"propagationPolicy": "Background"}, timeout=REMOVE_SECONDS)
            return
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                return  # gone already, or not ours to delete
        except ClusterError:
            pass
        if time.monotonic() + pause > ends:
            return
        time.sleep(pause)
        pause *= 2


def next_target(api: Api, spec: TargetSpec, lost: Created, deleted: bool) -> TargetSpec:
    """Where the next agent is to go after `lost`, whose pod was `deleted` or not. Raises Over."""
    if deleted and lost.job and not _stays(api, lost.job):
        raise Over("the agent's Job was deleted, which ends the session", "ask who is in charge of the cluster")
    # A pod that was asked for by name may be gone for good; what made it makes another.
    if lost.chosen is None or spec.kind != "pod":
        return spec
    chosen = lost.chosen
    if _stays(api, path_of("api", "v1", "namespaces", chosen.namespace, "pods", chosen.pod), chosen.uid):
        return spec
    found = successor(api, chosen)
    if found is None:
        raise Over(f"pod {chosen.pod} was deleted, and nothing makes another", "plug into another pod")
    return found


def _stays(api: Api, path: str, uid: str = "") -> bool:
    """Is it there, still the same, and not being deleted? What can't be asked is taken for a yes."""
    try:
        found = api.request("GET", path)
    except ApiError as error:
        return error.status != 404
    except ClusterError:
        return True
    return (not uid or found["metadata"]["uid"] == uid) and not pods.leaving(found)


def successor(api: Api, lost: PodTarget) -> TargetSpec | None:
    """Who has taken the place of a pod that was asked for by its name: what made it makes another. None for a pod of nobody."""
    owner = _controller(lost.raw)
    if owner.get("kind") == "ReplicaSet":
        try:
            item = api.request("GET", path_of("apis", "apps", "v1", "namespaces", lost.namespace, "replicasets", owner["name"]))
            owner = _controller(item) or owner
        except ApiError:
            pass  # gone as well, or not for us to see
    kind = str(owner.get("kind", "")).lower()
    if kind == "statefulset":
        return TargetSpec("pod", lost.pod, lost.container, lost.namespace)  # it comes back by the same name
    return TargetSpec(kind, owner["name"], lost.container, lost.namespace) if kind in CLUSTER_KINDS else None


def _controller(item: dict[str, Any]) -> dict[str, Any]:
    return next((dict(owner) for owner in item["metadata"].get("ownerReferences") or () if owner.get("controller")), {})


def _explained(api: Api, plan: Plan, error: ApiError, doing: str) -> ClusterError:
    from sidestage.cluster.permissions import explain, needs

    namespace = plan.target.namespace or api.namespace
    found = explain(api, error, needs(plan.target.kind, plan.agent.mode, namespace, plan.agent.namespace))
    return explained(error, doing) if found is error else found
