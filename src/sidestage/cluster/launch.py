"""From a plan to an agent that has said READY, step by step: create, wait, exec. Blocking; raises ClusterError.

Whatever was created is in `Created`, so that it can be removed whenever that becomes necessary, half made or whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sidestage.agent import payload
from sidestage.cluster import job, spdy, verdict
from sidestage.cluster.api import Api, ApiError, Upgraded, path_of
from sidestage.cluster.channels import EXEC_PROTOCOLS, Channels
from sidestage.cluster.errors import ClusterError
from sidestage.cluster.permissions import explain, needs
from sidestage.cluster.plan import EXEC_MAX_DATA, Plan
from sidestage.cluster.refusals import explained, of_warnings
from sidestage.cluster.targets import resolve
from sidestage.config.schema import Agent

LOOK = 1.0  # seconds without news of the pod after which its events are read
NODE_LOOK = 4.0  # seconds after which the node is looked at as well
REMOVE_TRIES = 5

Say = Callable[[str, str], None]  # kind, text


class Cancelled(Exception):
    """The session has ended meanwhile."""


@dataclass(slots=True)
class Created:
    """What is there because of us, or may be."""

    number: int
    job: str = ""  # path of the Job
    namespace: str = ""
    pod: str = ""
    container: str = ""
    where: str = ""  # for the user
    bulk: bool = True
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


def start(api: Api, plan: Plan, created: Created, say: Say) -> tuple[Upgraded, list[str]]:
    """The agent's stream: exec has begun, and the payload is to be written. With it the notes on what was chosen."""
    try:
        return _start(api, plan, created, say)
    except ApiError as error:
        raise _explained(api, plan, error, "the agent") from error


def _start(api: Api, plan: Plan, created: Created, say: Say) -> tuple[Upgraded, list[str]]:
    if plan.target.kind == "targetless":
        namespace, node, target, notes = plan.agent.namespace or plan.target.namespace or api.namespace, "", "targetless", []
        args: dict[str, Any] = {}
    else:
        resolved = resolve(api, plan.target)
        chosen, notes = resolved.chosen, resolved.notes
        namespace, node, target = plan.agent.namespace or chosen.namespace, chosen.node, f"{chosen.namespace}/{chosen}"
        args = {"container": chosen.container_id.rpartition("/")[2]}
        created.where = f"{chosen} on {node}"
    created.check()
    say("phase", f"creating the agent on {node}" if node else f"creating the agent in namespace {namespace}")
    _create_job(api, plan, created, namespace, node, target)
    _wait_running(api, plan.agent, created, node, say)
    say("phase", "starting the agent")
    args |= {
        "session": plan.session, "guard": job.guard_name(plan.session, created.number), "bulk": True, "max_data": EXEC_MAX_DATA,
        **plan.limits,
    }  # fmt: skip
    return _exec(api, plan, created, args), notes


def _create_job(api: Api, plan: Plan, created: Created, namespace: str, node: str, target: str) -> None:
    wanted = job.job(
        plan.agent, plan.session, created.number, namespace=namespace, node=node, features=plan.features, target=target
    )
    jobs = path_of("apis", "batch", "v1", "namespaces", namespace, "jobs")
    created.namespace, created.container = namespace, job.CONTAINER
    created.job = f"{jobs}/{wanted['metadata']['name']}"
    doing = f"the agent's Job in namespace {namespace}"
    api.request("POST", jobs, body=wanted)
    refusal = of_warnings(api.warnings, doing)
    if refusal:
        raise refusal


def _wait_running(api: Api, agent: Agent, created: Created, node: str, say: Say) -> None:
    name = created.job.rpartition("/")[2]
    pods_path = path_of("api", "v1", "namespaces", created.namespace, "pods")
    query = {"labelSelector": f"job-name={name}"}
    began = time.monotonic()
    last, pod = "", None
    while (waited := time.monotonic() - began) < agent.startup_timeout:
        created.check()
        for event in api.watch(pods_path, query=query, timeout=LOOK):
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
    for each in filter(None, (name, created.pod)):
        path = path_of("api", "v1", "namespaces", created.namespace, "events")
        try:
            answer = api.request("GET", path, query={"fieldSelector": f"involvedObject.name={each}", "limit": "50"})
        except ApiError:
            return found
        found += answer.get("items") or ()
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


def _exec(api: Api, plan: Plan, created: Created, args: dict[str, Any]) -> Upgraded:
    command = payload.command(job.interpreter(plan.agent), args)
    query = [("container", created.container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
    query += [("command", word) for word in command]
    path = path_of("api", "v1", "namespaces", created.namespace, "pods", created.pod, "exec")
    return api.upgrade(path, query, EXEC_PROTOCOLS)


def forward(api: Api, created: Created, port: int) -> tuple[Upgraded, Channels]:
    """A connection to a port on the loopback of the agent's pod."""
    path = path_of("api", "v1", "namespaces", created.namespace, "pods", created.pod, "portforward")
    try:
        return api.upgrade_spdy(path, spdy.PROTOCOL), spdy.Forward(port)
    except ClusterError as error:
        if isinstance(error, ApiError) and error.status == 403:
            raise
        return api.upgrade(path, [], [spdy.TUNNEL]), spdy.Tunnel(port)


def remove(api: Api, created: Created) -> None:
    """The Job and its pod; what can't be reached goes by itself (guard, TTL)."""
    if not created.job:
        return
    for attempt in range(REMOVE_TRIES):
        try:
            api.request("DELETE", created.job, query={"propagationPolicy": "Background"})
            return
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                return  # gone already, or not ours to delete
        except ClusterError:
            pass
        time.sleep(0.2 * 2**attempt)


def _explained(api: Api, plan: Plan, error: ApiError, doing: str) -> ClusterError:
    namespace = plan.target.namespace or api.namespace
    found = explain(api, error, needs(plan.target.kind, plan.agent.mode, namespace, plan.agent.namespace))
    return explained(error, doing) if found is error else found
