"""From a target's name to pods, on objects as the API gives them; the real API server is asked in tests/cluster."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sidestage.cluster import kinds, pods, targets
from sidestage.cluster.api import Api
from sidestage.cluster.errors import ApiError, ClusterError
from sidestage.targets.spec import parse


def pod(
    name: str, *, ready: bool = True, node: str = "node1", made: str = "2026-01-01", labels: dict[str, str] | None = None,
    containers: tuple[str, ...] = ("app",), owner: str = "", **more: Any,
) -> pods.Pod:  # fmt: skip
    state = {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    return {
        "metadata": {
            "name": name, "namespace": "shop", "uid": f"uid-{name}", "creationTimestamp": made, "labels": labels or {},
            "ownerReferences": [{"uid": owner}], **more.pop("metadata", {}),
        },
        "spec": {"nodeName": node, "containers": [{"name": each} for each in containers], **more.pop("spec", {})},
        "status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [
                {"name": each, "containerID": f"containerd://{each}", "state": state, "ready": ready} for each in containers
            ], **more.pop("status", {}),
        },
    }  # fmt: skip


# --- containers


@pytest.mark.parametrize(
    "containers, annotations, asked, chosen, guessed",
    [
        (("app",), {}, "", "app", False),
        (("istio-proxy", "app"), {}, "", "app", False),
        (("app", "worker"), {}, "", "app", True),
        (("app", "worker"), {"kubectl.kubernetes.io/default-container": "worker"}, "", "worker", False),
        (("app", "worker"), {"kubectl.kubernetes.io/default-container": "gone"}, "", "app", True),
        (("app", "worker"), {"kubectl.kubernetes.io/default-container": "worker"}, "app", "app", False),
        (("istio-proxy", "vault-agent"), {}, "", "istio-proxy", True),
        (("istio-proxy", "app"), {}, "istio-proxy", "istio-proxy", False),
    ],
)
def test_the_container(
    containers: tuple[str, ...], annotations: dict[str, str], asked: str, chosen: str, guessed: bool
) -> None:
    found, note = pods.choose_container(pod("a", containers=containers, metadata={"annotations": annotations}), asked)
    assert found == chosen
    assert bool(note) is guessed
    assert not note or "/container/NAME" in note


def test_a_container_that_is_not_there() -> None:
    with pytest.raises(ClusterError, match="no container 'ap'") as caught:
        pods.choose_container(pod("a"), "ap")
    assert "'app'" in caught.value.cure
    early = pod("a", spec={"initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}]})
    assert pods.choose_container(early, "side") == ("side", "")
    with pytest.raises(ClusterError, match="no container 'init'"):
        pods.choose_container(early, "init")


# --- order


def test_the_oldest_of_the_newest_revision_comes_first() -> None:
    old, new = {"pod-template-hash": "1"}, {"pod-template-hash": "2"}
    some = [
        pod("old", made="01", labels=old), pod("new-2", made="06", labels=new), pod("new-1", made="05", labels=new),
        pod("old-late", made="09", labels=old), pod("new-0", made="05", labels=new),
    ]  # fmt: skip
    want = ["new-0", "new-1", "new-2", "old", "old-late"]
    assert [pods.name(each) for each in pods.in_order(some)] == want
    assert [pods.name(each) for each in pods.in_order(some[::-1])] == want


# --- why not


@pytest.mark.parametrize(
    "broken, events, said",
    [
        (pod("a", metadata={"deletionTimestamp": "now"}), [], "being deleted"),
        (pod("a", status={"phase": "Succeeded"}), [], "ended (Succeeded)"),
        (pod("a", status={"phase": "Failed", "reason": "Evicted", "message": "low on\nmemory"}), [], "Evicted: low on memory"),
        (pod("a", ready=False), [], "app waits: CrashLoopBackOff (back-off 10s)"),
        (
            pod("a", status={"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]}),
            [], "0/2 nodes",
        ),
        (
            pod("a", status={"conditions": [{"type": "Ready", "status": "False", "message": "containers with unready status"}]}),
            [{"type": "Warning", "reason": "Old", "message": "x", "lastTimestamp": "2026-01-01"},
             {"type": "Warning", "reason": "Unhealthy", "message": "Readiness probe failed", "lastTimestamp": "2026-01-02"},
             {"type": "Normal", "reason": "Pulled", "lastTimestamp": "2026-01-03"}],
            "Unhealthy: Readiness probe failed",
        ),
        (
            pod("a", status={"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "PodInitializing"}}}],
                             "initContainerStatuses": [{"name": "init", "state": {"running": {}}, "ready": False}]}),
            [], "init container init still runs",
        ),
        (
            pod("a", status={"initContainerStatuses": [
                {"name": "init", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 3}}}
            ]}), [], "init waits: CrashLoopBackOff; it ended with 3",
        ),
        (
            pod("a", status={"containerStatuses": [
                {"name": "app", "state": {"running": {}}, "restartCount": 4,
                 "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            ]}), [], "ended with 137 (OOMKilled), 4 restarts",
        ),
    ],
)  # fmt: skip
def test_why_a_pod_is_no_target(broken: pods.Pod, events: list[dict[str, Any]], said: str) -> None:
    assert said in pods.why_not(broken, "app", events)


# --- selectors


def test_selectors_as_text() -> None:
    expressions = [
        {"key": "tier", "operator": "In", "values": ["web", "api"]}, {"key": "x", "operator": "NotIn", "values": ["1"]},
        {"key": "y", "operator": "Exists"}, {"key": "z", "operator": "DoesNotExist"},
    ]  # fmt: skip
    item = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": expressions}}}
    assert kinds.selector("deployment", item) == "a=1,b=2,tier in (web,api),x notin (1),y,!z"
    service = {"metadata": {"name": "s"}, "spec": {"selector": {"app": "x"}}}
    assert kinds.selector("service", service) == "app=x"
    rollout = {"metadata": {"name": "r"}, "spec": {"workloadRef": {}}, "status": {"selector": "app=r"}}
    assert kinds.selector("rollout", rollout) == "app=r"
    for kind in ("service", "rollout", "deployment"):
        with pytest.raises(ClusterError, match="selects no pods"):
            kinds.selector(kind, {"metadata": {"name": "n"}, "spec": {}})


# --- resolving


class Fake:
    """Of Api only what targets.py uses."""

    namespace = "shop"

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects, self.asked = objects, list[str]()

    def request(self, method: str, path: str, *, query: dict[str, str] | None = None, accept: str = "") -> Any:
        assert method == "GET"
        self.asked.append(path)
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        found = self.objects[path]
        if isinstance(found, ApiError):
            raise found
        if isinstance(found, list):
            at = int((query or {}).get("continue", "0"))
            size = 2  # small pages, so that all lists have several
            more = {"continue": str(at + size)} if at + size < len(found) else {}
            return {"items": found[at : at + size], "metadata": more}
        return found


def resolve(objects: dict[str, Any], text: str) -> targets.Resolved:
    return targets.resolve(cast(Api, Fake(objects)), parse(text))


PODS = "/api/v1/namespaces/shop/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
ORDERS: dict[str, Any] = {
    "metadata": {"name": "orders", "uid": "d"},
    "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "orders"}}},
}


def test_a_deployment_is_all_its_ready_replicas_and_one_of_them() -> None:
    some = [pod("c", node="node2"), pod("a", made="0"), pod("b", ready=False), pod("d", metadata={"deletionTimestamp": "x"})]
    found = resolve({f"{DEPLOYMENTS}/orders": ORDERS, PODS: some}, "deployment/orders")
    assert found.chosen.pod == "a"
    assert [each.pod for each in found.replicas] == ["a", "c"]
    assert {node: [each.pod for each in there] for node, there in found.nodes.items()} == {"node1": ["a"], "node2": ["c"]}
    assert found.chosen.container_id == "containerd://app"
    assert any("2 ready pods" in note and "those of a" in note for note in found.notes)


def test_a_statefulset_takes_only_its_own() -> None:
    path = "/apis/apps/v1/namespaces/shop/statefulsets/orders"
    found = resolve({path: ORDERS, PODS: [pod("a", owner="other"), pod("b", owner="d")]}, "statefulset/orders")
    assert [each.pod for each in found.replicas] == ["b"]
    assert found.notes == []


def test_a_cronjob_is_its_latest_running_job() -> None:
    cron = {"metadata": {"name": "n", "uid": "cron"}, "spec": {"schedule": "@daily"}}

    def job(name: str, made: str, active: int) -> dict[str, Any]:
        meta = {"name": name, "uid": name, "creationTimestamp": made, "ownerReferences": [{"uid": "cron"}]}
        return {"metadata": meta, "spec": {"selector": {"matchLabels": {"job": name}}}, "status": {"active": active}}

    base = "/apis/batch/v1/namespaces/shop"
    objects = {f"{base}/cronjobs/n": cron, f"{base}/jobs": [job("n-1", "1", 1), job("n-2", "2", 1), job("n-3", "3", 0)]}
    objects[PODS] = [pod("a", owner="n-1"), pod("b", owner="n-2")]
    assert resolve(objects, "cronjob/n").chosen.pod == "b"
    objects[f"{base}/jobs"] = [job("n-3", "3", 0)]
    with pytest.raises(ClusterError, match="no job running") as caught:
        resolve(objects, "cronjob/n")
    assert "create job n-now --from=cronjob/n" in caught.value.cure


@pytest.mark.parametrize("text", ["service/orders", "label/app=orders"])
def test_services_and_labels(text: str) -> None:
    service = {"metadata": {"name": "orders"}, "spec": {"selector": {"app": "orders"}}}
    objects = {"/api/v1/namespaces/shop/services/orders": service, PODS: [pod("a")]}
    assert resolve(objects, text).chosen.pod == "a"


def test_a_pod_that_is_not_ready_is_taken_when_named() -> None:
    unready = pod("a", status={"conditions": [{"type": "Ready", "status": "False", "message": "unready"}]})
    found = resolve({f"{PODS}/a": unready, "/api/v1/namespaces/shop/events": []}, "pod/a")
    assert found.replicas == (found.chosen,)
    assert any("not ready: unready" in note for note in found.notes)


def test_another_namespace() -> None:
    fake = Fake({"/api/v1/namespaces/bar/pods/a": pod("a")})
    targets.resolve(cast(Api, fake), parse("pod/a", "bar"))
    assert fake.asked == ["/api/v1/namespaces/bar/pods/a"]


@pytest.mark.parametrize(
    "objects, text, cause, cure",
    [
        ({DEPLOYMENTS: [ORDERS]}, "deployment/oders", "no deployment 'oders'", "deployment/orders"),
        ({DEPLOYMENTS: [ORDERS]}, "deployment/der", "no deployment 'der'", "deployment/orders"),
        ({DEPLOYMENTS: [ORDERS]}, "deployment/zzz", "no deployment 'zzz'", "there are orders"),
        ({DEPLOYMENTS: [], "/api/v1/namespaces/shop": {}}, "deployment/x", "no deployment 'x'", "-n"),
        ({DEPLOYMENTS: []}, "deployment/x", "no namespace 'shop'", "kubectl get namespaces"),
        ({DEPLOYMENTS: ApiError(403, "Forbidden", "no")}, "deployment/x", "no deployment 'x'", "-n"),
        ({}, "rollout/x", "no rollouts", "Argo"),
        ({f"{PODS}/a": pod("a", ready=False)}, "pod/a", "CrashLoopBackOff", "describe pod a"),
        ({f"{DEPLOYMENTS}/orders": {**ORDERS, "spec": {**ORDERS["spec"], "replicas": 0}}, PODS: []}, "deployment/orders",
         "scaled to 0", "--replicas=1"),
        ({f"{DEPLOYMENTS}/orders": ORDERS, PODS: [pod("a", ready=False)]}, "deployment/orders", "a: container app w", "describe"),
        ({f"{DEPLOYMENTS}/orders": ORDERS, PODS: [], "/api/v1/namespaces/shop/events": [
            {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota", "involvedObject": {"name": "orders-5d"}},
            {"type": "Warning", "reason": "Other", "message": "x", "involvedObject": {"name": "cart"}, "lastTimestamp": "9"},
        ]}, "deployment/orders", "exceeded quota", "describe"),
        ({PODS: []}, "label/app=x", "has the label app=x", "--show-labels"),
        ({f"{DEPLOYMENTS}/orders": ORDERS, PODS: [pod("a")]}, "deployment/orders/container/db", "no container 'db'", "app"),
    ],
)  # fmt: skip
def test_no_target_is_said_with_its_reason(objects: dict[str, Any], text: str, cause: str, cure: str) -> None:
    with pytest.raises(ClusterError) as caught:
        resolve(objects, text)
    assert cause in caught.value.cause
    assert cure in caught.value.cure


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MAX_PAGES", 3)
    with pytest.raises(ClusterError, match="more than"):
        targets.listed(cast(Api, Fake({PODS: [pod(str(n)) for n in range(10)]})), PODS)
