"""From a plan to an agent, against an API that answers as told: what is created, in which order, what is said, what is removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sidestage.cluster import launch
from sidestage.cluster.api import Upgraded
from sidestage.cluster.channels import Exec
from sidestage.cluster.errors import ApiError, ClusterError
from sidestage.cluster.launch import Cancelled, Created, Over
from sidestage.cluster.plan import Plan
from sidestage.cluster.pods import PodTarget
from sidestage.cluster.spdy import Forward, SpdyExec, Tunnel
from sidestage.config.schema import Agent
from sidestage.targets.spec import TargetSpec

PODS = "/api/v1/namespaces/shop/pods"
JOBS = "/apis/batch/v1/namespaces/shop/jobs"
ORDERS = TargetSpec("pod", "orders")
FORBIDDEN = 'User "dev" cannot {} resource "{}" in API group "{}" in the namespace "shop"'


def pod(name: str = "orders", owner: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    own = {"containers": [{"name": "app", "env": [{"name": "A", "value": "b"}], **container}], "nodeName": "node1"}
    meta: dict[str, Any] = {"name": name, "namespace": "shop", "uid": "u1"}
    if owner:
        meta["ownerReferences"] = [{"controller": True, **owner}]
    status = {"name": "app", "state": {"running": {}}, "containerID": "containerd://" + "a" * 64, "ready": True}
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": meta, "spec": own, "status": {"phase": "Running", "containerStatuses": [status], "conditions": conditions}}


def agent_pod(container: str = "agent", **state: Any) -> dict[str, Any]:
    status = [{"name": container, "state": state}]
    return {"metadata": {"name": "agent-x", "namespace": "shop"}, "spec": {}, "status": {"containerStatuses": status}}


RUNNING = {"type": "ADDED", "object": agent_pod(running={})}


class Api:
    """Answers by (method, path); an exception is raised; what isn't there is 404. A list is used up, but for its last."""

    namespace = "shop"

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[tuple[str, str], Any] = {("GET", f"{PODS}/orders"): pod(), ("POST", JOBS): {}}
        self.events: list[Any] = [[RUNNING]]
        self.upgrades: list[Any] = [Upgraded(None, "v5.channel.k8s.io", b"")]  # type: ignore[arg-type]
        self.asked: list[tuple[str, str, Any]] = []
        self.warnings: list[str] = []
        self.protocols: list[str] = []
        self.query: list[tuple[str, str]] = []
        for key, value in answers.items():
            setattr(self, key, value)

    def request(self, method: str, path: str, *, query: Any = None, body: Any = None, **_: Any) -> Any:
        self.asked.append((method, path, body))
        found = self.answers.get((method, path), ApiError(404, "NotFound", f"{path} not found"))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return found

    def watch(self, _path: str, *, query: Any, timeout: float) -> Iterator[dict[str, Any]]:
        del query, timeout
        yield from (self.events.pop(0) if self.events else [])

    def upgrade(self, _path: str, query: Any, protocols: Any) -> Upgraded:
        self.protocols.append(protocols[0])
        self.query = list(query)
        return self._upgraded()

    def upgrade_spdy(self, _path: str, query: Any, protocol: str) -> Upgraded:
        self.protocols.append(f"SPDY {protocol}")
        self.query = list(query)
        return self._upgraded()

    def exec(self, *_: Any) -> None:
        return None

    def _upgraded(self) -> Upgraded:
        found = self.upgrades.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Upgraded)
        return found

    def made(self, method: str) -> list[str]:
        return [path for each, path, _ in self.asked if each == method]


def start(api: Api, agent: Agent | None = None, spec: TargetSpec = ORDERS, gone: str = "") -> tuple[Any, list[str], Created]:
    said: list[str] = []
    created = Created(1)
    plan = Plan(spec, "abc", agent or Agent(), frozenset({"files"}))
    result = launch.start(api, plan, created, spec, lambda _kind, text: said.append(text), gone)  # type: ignore[arg-type]
    return result, said, created


def test_a_job_is_created_on_the_targets_node_and_entered() -> None:
    api = Api()
    (_upgraded, channels, notes), said, created = start(api)
    assert isinstance(channels, Exec)
    ((_, _, job),) = [each for each in api.asked if each[0] == "POST"]
    assert job["spec"]["template"]["spec"]["nodeName"] == "node1"
    assert (created.job, created.pod, created.container) == (f"{JOBS}/sidestage-abc", "agent-x", "agent")
    assert said == ["creating the agent on node1", "starting the agent"]
    assert notes == []
    assert ("container", "agent") in api.query
    assert '"container": "' + "a" * 64 in api.query[-1][1], "the agent is told whom to find"


def test_in_the_container_nothing_is_created() -> None:
    api = Api()
    _result, said, created = start(api, Agent(mode="in-container", python="/usr/bin/python3"))
    assert api.made("POST") == api.made("PATCH") == []
    assert (created.pod, created.container, created.job) == ("orders", "app", "")
    assert ("command", "/usr/bin/python3") in api.query
    assert said == ["starting the agent"]


def ephemeral(api: Api) -> list[dict[str, Any]]:
    return [body["spec"]["ephemeralContainers"][0] for method, _path, body in api.asked if method == "PATCH"]


def test_an_ephemeral_container_has_the_targets_variables() -> None:
    path = f"{PODS}/orders/ephemeralcontainers"
    api = Api(events=[[{"type": "ADDED", "object": agent_pod("sidestage-abc", running={})}]])
    api.answers["PATCH", path] = {}
    _result, _said, created = start(api, Agent(mode="ephemeral"))
    (made,) = ephemeral(api)
    assert made["env"] == [{"name": "A", "value": "b"}]
    assert made["targetContainerName"] == "app"
    assert made["securityContext"]["runAsUser"] == 0
    assert created.job == "", "there is nothing to delete"


@pytest.mark.parametrize("context, user", [({"runAsUser": 1234}, 1234), ({}, 65532)])
def test_where_rights_are_refused_it_is_the_targets_user(context: dict[str, Any], user: int) -> None:
    path = f"{PODS}/orders/ephemeralcontainers"
    refused = ApiError(403, "Forbidden", 'pods "orders" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot')
    api = Api(events=[[{"type": "ADDED", "object": agent_pod("sidestage-abc", running={})}]])
    api.answers |= {("PATCH", path): [refused, {}], ("GET", f"{PODS}/orders"): pod(securityContext=context)}
    (_, _, notes), _said, _created = start(api, Agent(mode="ephemeral"))
    rooted, plain = ephemeral(api)
    assert rooted["securityContext"]["runAsUser"] == 0
    assert plain["securityContext"]["runAsUser"] == user
    assert plain["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert f"user {user}" in notes[0]


def test_what_the_api_server_only_warns_of_is_not_waited_for() -> None:
    api = Api(warnings=['would violate PodSecurity "restricted:latest": host namespaces (hostPID=true)'])
    with pytest.raises(ClusterError, match="will be refused"):
        start(api)


@pytest.mark.parametrize(
    "error, cause, cure",
    [
        (ApiError(403, "Forbidden", 'jobs "x" is forbidden: exceeded quota: small, requested: pods=1'), "exceeded quota", "quota"),
        (ApiError(403, "Forbidden", 'admission webhook "w.example" denied the request: no'), "w.example", "policy"),
        (ApiError(403, "Forbidden", FORBIDDEN.format("create", "jobs", "batch")), "you may not create jobs", "administrator"),
        (ApiError(500, "InternalError", "etcd is away"), "etcd is away", "try again"),
    ],
)
def test_refusals_are_explained(error: ApiError, cause: str, cure: str) -> None:
    api = Api()
    api.answers["POST", JOBS] = error
    with pytest.raises(ClusterError) as caught:
        start(api)
    assert cause in caught.value.cause
    assert cure in caught.value.cure


def test_a_pod_that_does_not_come_is_explained_by_the_jobs_events(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(events=[[], [], []])
    told = {"type": "Warning", "reason": "FailedCreate", "message": "forbidden: exceeded quota: small", "lastTimestamp": "2026"}
    api.answers["GET", "/api/v1/namespaces/shop/events"] = [{"items": []}, {"items": [told]}]
    with pytest.raises(ClusterError, match="exceeded quota"):
        start(api)


def test_a_node_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "NODE_LOOK", -1.0)
    api = Api(events=[[{"type": "ADDED", "object": agent_pod(waiting={"reason": "ContainerCreating"})}], []])
    with pytest.raises(ClusterError, match="node node1: it has left the cluster"):
        start(api)


def test_the_time_limit_is_the_last_resort() -> None:
    with pytest.raises(ClusterError, match="has not started within 0 s"):
        start(Api(events=[]), Agent(startup_timeout=0))


def test_a_session_that_ends_meanwhile_stops_it() -> None:
    created = Created(1)
    created.cancelled.set()
    plan = Plan(ORDERS, "abc", Agent(), frozenset())
    api = Api()
    with pytest.raises(Cancelled):
        launch.start(api, plan, created, ORDERS, lambda *_: None)  # type: ignore[arg-type]
    assert api.made("POST") == []


def test_a_container_that_has_ended_is_not_believed_to_run() -> None:
    with pytest.raises(ClusterError, match="not back yet"):
        start(Api(), gone="containerd://" + "a" * 64)


NO_GET = ApiError(403, "Forbidden", FORBIDDEN.format("get", "pods/exec", ""))
FINE = Upgraded(None, "v4.channel.k8s.io", b"")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "upgrades, protocols, kind",
    [
        ([FINE], ["v5.channel.k8s.io"], Exec),
        ([NO_GET, FINE], ["v5.channel.k8s.io", "SPDY v4.channel.k8s.io"], SpdyExec),
        ([ClusterError("no WebSocket", ""), FINE], ["v5.channel.k8s.io", "SPDY v4.channel.k8s.io"], SpdyExec),
        ([ApiError(502, "Bad Gateway", "proxy"), FINE], ["v5.channel.k8s.io", "SPDY v4.channel.k8s.io"], SpdyExec),
    ],
)
def test_exec_takes_what_it_gets(upgrades: list[Any], protocols: list[str], kind: type) -> None:
    api = Api(upgrades=upgrades)
    (_, channels, _), _said, _created = start(api)
    assert isinstance(channels, kind)
    assert api.protocols == protocols


def test_exec_that_is_not_allowed_at_all_is_said_of_the_first_try() -> None:
    api = Api(upgrades=[NO_GET, ApiError(403, "Forbidden", FORBIDDEN.format("create", "pods/exec", ""))])
    with pytest.raises(ClusterError, match="you may not get pods/exec"):
        start(api)


@pytest.mark.parametrize(
    "upgrades, kind", [([FINE], Forward), ([ClusterError("no SPDY", ""), FINE], Tunnel), ([NO_GET], None)]
)
def test_forward_takes_what_it_gets(upgrades: list[Any], kind: type | None) -> None:
    api, path = Api(upgrades=upgrades), launch.forward_path(Created(1, namespace="shop", pod="agent-x"))
    if kind is None:
        with pytest.raises(ApiError):
            launch.forward(api, path, 1)  # type: ignore[arg-type]
    else:
        assert isinstance(launch.forward(api, path, 1)[1], kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answers, tries",
    [
        ([{}], 1),
        ([ApiError(404, "NotFound", "")], 1),
        ([ApiError(403, "Forbidden", "")], 1),
        ([ApiError(503, "Unavailable", ""), ClusterError("no answer", ""), {}], 3),
    ],
)
def test_removal_is_tried_while_there_is_hope(answers: list[Any], tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    api = Api()
    api.answers["DELETE", f"{JOBS}/x"] = answers
    launch.remove(api, Created(1, job=f"{JOBS}/x"))  # type: ignore[arg-type]
    assert len(api.made("DELETE")) == tries


def test_what_was_not_created_is_not_removed() -> None:
    api = Api()
    launch.remove(api, Created(1))  # type: ignore[arg-type]
    assert api.asked == []


def lost(owner: dict[str, Any] | None = None, job: str = "") -> Created:
    raw = pod(owner=owner)
    return Created(1, job=job, chosen=PodTarget("shop", "orders", "u1", "node1", "app", "containerd://a", raw))


RS = {"kind": "ReplicaSet", "name": "orders-1"}
RS_PATH = "/apis/apps/v1/namespaces/shop/replicasets/orders-1"
DEPLOYMENT = {"metadata": {"ownerReferences": [{"controller": True, "kind": "Deployment", "name": "orders"}]}}


@pytest.mark.parametrize(
    "owner, answers, expected",
    [
        (RS, {RS_PATH: DEPLOYMENT}, TargetSpec("deployment", "orders", "app", "shop")),
        (RS, {}, TargetSpec("replicaset", "orders-1", "app", "shop")),
        ({"kind": "StatefulSet", "name": "db"}, {}, TargetSpec("pod", "orders", "app", "shop")),
        ({"kind": "DaemonSet", "name": "log"}, {}, TargetSpec("daemonset", "log", "app", "shop")),
        ({"kind": "Job", "name": "once"}, {}, TargetSpec("job", "once", "app", "shop")),
    ],
)
def test_the_successor_of_a_pod(owner: dict[str, Any], answers: dict[str, Any], expected: TargetSpec) -> None:
    api = Api()
    api.answers = {("GET", path): answer for path, answer in answers.items()}
    assert launch.next_target(api, ORDERS, lost(owner), deleted=False) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("owner", [None, {"kind": "Widget", "name": "w"}])
def test_a_pod_of_nobody_has_no_successor(owner: dict[str, Any] | None) -> None:
    api = Api(answers={})
    with pytest.raises(Over, match="pod orders was deleted"):
        launch.next_target(api, ORDERS, lost(owner), deleted=False)  # type: ignore[arg-type]


def test_a_pod_that_is_still_there_is_its_own_successor() -> None:
    assert launch.next_target(Api(), ORDERS, lost(RS), deleted=False) == ORDERS  # type: ignore[arg-type]
    assert launch.next_target(Api(), TargetSpec("deployment", "x"), lost(RS), False).kind == "deployment"  # type: ignore[arg-type]


def test_another_pod_of_the_same_name_is_not_the_same() -> None:
    api, other = Api(), pod()
    other["metadata"]["uid"] = "u2"
    api.answers["GET", f"{PODS}/orders"] = other
    found = launch.next_target(api, ORDERS, lost({"kind": "StatefulSet", "name": "db"}), deleted=False)  # type: ignore[arg-type]
    assert found == TargetSpec("pod", "orders", "app", "shop")


def test_a_job_that_somebody_deleted_is_the_end() -> None:
    with pytest.raises(Over, match="Job was deleted"):
        launch.next_target(Api(), ORDERS, lost(job=f"{JOBS}/x"), deleted=True)  # type: ignore[arg-type]
    api = Api()
    api.answers["GET", f"{JOBS}/x"] = {"metadata": {"name": "x"}}
    assert launch.next_target(api, ORDERS, lost(job=f"{JOBS}/x"), deleted=True) == ORDERS  # type: ignore[arg-type]
