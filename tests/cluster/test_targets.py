"""Every kind of target on a real cluster: found, its pods, its container; what isn't there or isn't ready; and `ls`."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sidestage.cluster import listing, targets
from sidestage.cluster.api import Api, ClusterError
from sidestage.cluster.connect import connect
from sidestage.cluster.targets import Resolved
from sidestage.targets.spec import parse
from tests.testkit.cluster import WORKLOADS, Cluster, eventually

SLEEP: dict[str, Any] = {
    "terminationGracePeriodSeconds": 0,
    "containers": [
        {"name": "app", "image": "localhost/python:3.11", "imagePullPolicy": "Never", "command": ["sleep", "inf"]},
    ],
}  # fmt: skip


def workload(kind: str, name: str, pod: dict[str, Any] = SLEEP, version: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    selector = {} if version.startswith("batch") else {"selector": {"matchLabels": {"app": name}}}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": {**selector, "template": template, **spec}}


def broken(**container: Any) -> dict[str, Any]:
    return {**SLEEP, "containers": [{**SLEEP["containers"][0], **container}]}


JOB = {**SLEEP, "restartPolicy": "Never"}
OBJECTS = [
    workload("Deployment", "deploy", replicas=3),
    workload("StatefulSet", "stateful", replicas=2, serviceName="stateful", podManagementPolicy="Parallel"),
    workload("DaemonSet", "daemon"),
    workload("ReplicaSet", "replica"),
    workload("Job", "batch", JOB, "batch/v1"),
    {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"},
     "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": JOB}}}}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
     "spec": {"selector": {"app": "deploy"}, "ports": [{"port": 80}]}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"},
     "spec": {"type": "ExternalName", "externalName": "x.y"}},
    workload("Deployment", "none", replicas=0),
    workload("Deployment", "crash", broken(command=["false"])),
    workload("Deployment", "nopull", broken(image="localhost/nothing:1")),
    workload("Deployment", "unready", broken(readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1})),
    workload("Deployment", "huge", broken(resources={"requests": {"cpu": "1000"}})),
]  # fmt: skip


@pytest.fixture(scope="module")
def filled(cluster: Cluster, namespace: str) -> str:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(OBJECTS))
    for name in ("deployment/deploy", "statefulset/stateful", "daemonset/daemon"):
        cluster.kubectl("rollout", "status", "-n", namespace, name, "--timeout=90s", timeout=100)
    for app in ("replica", "batch"):
        cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pods", "-l", f"app={app}", "--timeout=60s", timeout=70)
    return namespace


@pytest.fixture
def client(cluster: Cluster, filled: str) -> Iterator[Api]:
    with connect(str(cluster.kubeconfig), namespace=filled) as api:
        yield api


def find(client: Api, text: str) -> Resolved:
    return targets.resolve(client, parse(text))


@pytest.mark.parametrize(
    "target, app, count",
    [
        ("deployment/deploy", "deploy", 3), ("statefulset/stateful", "stateful", 2), ("daemonset/daemon", "daemon", 2),
        ("replicaset/replica", "replica", 1), ("job/batch", "batch", 1), ("service/front", "deploy", 3),
        ("label/app=deploy", "deploy", 3),
    ],
)  # fmt: skip
def test_a_workload_is_its_ready_pods(target: str, app: str, count: int, cluster: Cluster, client: Api) -> None:
    found = find(client, target)
    theirs = {pod["metadata"]["name"]: pod for pod in cluster.pods(client.namespace, f"app={app}")}
    assert {each.pod for each in found.replicas} == theirs.keys()
    assert len(theirs) == count
    assert found.chosen == found.replicas[0] == find(client, target).chosen, "the same each time"
    for each in found.replicas:
        pod = theirs[each.pod]
        assert (each.node, each.uid) == (pod["spec"]["nodeName"], pod["metadata"]["uid"])
        assert each.container_id == pod["status"]["containerStatuses"][0]["containerID"]
    assert bool(found.notes) is (count > 1)


def test_a_pod_by_name(cluster: Cluster, client: Api) -> None:
    name = cluster.pods(client.namespace, "app=replica")[0]["metadata"]["name"]
    found = find(client, f"pod/{name}/container/app")
    assert (found.chosen.pod, found.chosen.container, found.notes) == (name, "app", [])


def test_a_cronjob_is_the_job_it_started(cluster: Cluster, client: Api) -> None:
    with pytest.raises(ClusterError, match="no job running") as caught:
        find(client, "cronjob/cron")
    words = caught.value.cure.removeprefix("start one: kubectl ").split()
    cluster.kubectl(*words)
    chosen = eventually("the job's pod", lambda: resolved(client, "cronjob/cron"))
    assert chosen.chosen.pod.startswith("cron-now-")


def resolved(client: Api, text: str) -> Resolved | None:
    try:
        return find(client, text)
    except ClusterError:
        return None


def test_containers_of_several(cluster: Cluster, client: Api) -> None:
    cluster.kubectl("apply", "-n", client.namespace, "-f", str(WORKLOADS / "sidecars.yaml"))
    for name in ("meshed", "chosen", "native"):
        cluster.kubectl("wait", "-n", client.namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout=70)
    assert find(client, "pod/meshed").chosen.container == "app"
    assert find(client, "pod/chosen").chosen.container == "second"
    assert find(client, "pod/native").chosen.container == "main"
    assert find(client, "pod/native/container/helper").chosen.container_id.startswith("containerd://")


@pytest.mark.parametrize(
    "target, cause, cure",
    [
        ("deployment/deplo", "there is no deployment 'deplo' in namespace", "deployment/deploy"),
        ("pod/zzz", "there is no pod 'zzz'", "there are"),
        ("rollout/x", "no rollouts", "Argo"),
        ("service/outside", "ExternalName", "-t deployment/NAME"),
        ("deployment/none", "scaled to 0", "--replicas=1"),
        ("deployment/crash", "container app", "describe deployment crash"),
        ("deployment/nopull", "ErrImageNeverPull", "describe"),
        ("deployment/unready", "Readiness probe failed", "-t pod/unready-"),
        ("deployment/huge", "Insufficient cpu", "describe"),
        ("deployment/deploy/container/ap", "no container 'ap'", "'app'"),
        ("label/app=nothing", "app=nothing", "--show-labels"),
    ],
)
def test_no_target_is_said_with_the_clusters_reason(target: str, cause: str, cure: str, client: Api) -> None:
    def told() -> ClusterError | None:  # the reason takes the cluster a moment to find
        with pytest.raises(ClusterError) as caught:
            find(client, target)
        return caught.value if cause in caught.value.cause else None

    assert cure in eventually(cause, told).cure


def test_a_namespace_that_is_not_there(cluster: Cluster) -> None:
    with connect(str(cluster.kubeconfig), namespace="nowhere") as api, pytest.raises(ClusterError, match="no namespace 'nowhere'"):
        find(api, "deployment/x")


def test_a_pod_that_is_not_ready_can_be_named(cluster: Cluster, client: Api) -> None:
    pod = eventually("the pod", lambda: cluster.pods(client.namespace, "app=unready"))[0]["metadata"]["name"]
    found = eventually("its container", lambda: resolved(client, f"pod/{pod}"))
    assert any("not ready" in note for note in found.notes)


# --- ls


def ls(cluster: Cluster, *args: str) -> str:
    command = [sys.executable, "-m", "sidestage", "ls", *args]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_ls_prints_what_exec_takes(cluster: Cluster, client: Api) -> None:
    lines = ls(cluster, "-n", client.namespace).splitlines()
    assert {"deployment/deploy", "statefulset/stateful", "daemonset/daemon", "job/batch", "service/front"} <= set(lines)
    assert not {"deployment/none", "deployment/crash", "service/outside", "replicaset/replica", "cronjob/none"} & set(lines)
    for line in lines:
        assert find(client, line).chosen.pod
    everything = json.loads(ls(cluster, "-n", client.namespace, "-a", "--output", "json"))
    assert {"deployment/none", "deployment/crash", "service/outside"} <= set(everything)
    assert ls(cluster, "-n", client.namespace, "-t", "rs", "-t", "sts").splitlines()[-1] == "statefulset/stateful"
    told = json.loads(ls(cluster, "-n", client.namespace, "-t", "deployment", "--output", "rich"))
    assert {"path": "deployment/deploy", "available": True} in told["targets"]
    assert {"path": "deployment/none", "available": False} in told["targets"]
    assert told["current_namespace"] == client.namespace
    assert {client.namespace, "default"} <= set(told["namespaces"])
    assert f"{client.namespace}\tdeployment/deploy" in ls(cluster, "-A", "-t", "deploy").splitlines()


def test_pages_of_one_are_all_of_the_list(client: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("deployment", "service")
    whole = list(listing.listing(client, kinds, client.namespace))
    monkeypatch.setattr(targets, "PAGE", 1)
    assert list(listing.listing(client, kinds, client.namespace)) == whole
    assert len(whole) > 4


def test_without_a_target_there_is_a_choice_on_the_terminal(cluster: Cluster, client: Api) -> None:
    argv = [sys.executable, "-m", "sidestage", "exec", "-n", client.namespace, "-i", "localhost/python:3.11", "--output", "plain"]
    pid, fd = pty.fork()
    if not pid:
        os.execvpe(argv[0], [*argv, "--", "hostname"], cluster.env)
    seen, keys, ends = "", ["replica", "\r"], time.monotonic() + 90
    name = cluster.pods(client.namespace, "app=replica")[0]["metadata"]["name"]
    try:
        while f"\n{name}\r" not in seen:
            assert time.monotonic() < ends, seen
            if select.select([fd], [], [], 1)[0]:
                seen += os.read(fd, 65536).decode(errors="replace")
            if keys and ("Enter takes" in seen if len(keys) == 2 else "> pod/replica" in seen):
                os.write(fd, keys.pop(0).encode())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(fd)


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rollouts.argoproj.io, annotations: {api-approved.kubernetes.io: unapproved}}
spec:
  group: argoproj.io
  scope: Namespaced
  names: {kind: Rollout, plural: rollouts}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def test_a_rollout_of_argo(cluster: Cluster, client: Api) -> None:
    """Its own selector, or that of the deployment it refers to; without Argo, whose pods would be like those of `deploy`."""
    cluster.kubectl("apply", "-f", "-", stdin=CRD)
    try:
        cluster.kubectl("wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "--timeout=30s")
        selector = {"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["deploy"]}]}}
        reference = {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "deploy"}}
        for name, spec, status in (("own", selector, {"readyReplicas": 3}), ("other", reference, {"selector": "app=deploy"})):
            item = {
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name}, "spec": spec, "status": status,
            }  # fmt: skip
            eventually("the new kind", lambda item=item: applied(cluster, client.namespace, item))  # type: ignore[misc]
            assert len(find(client, f"rollout/{name}").replicas) == 3
        with pytest.raises(ClusterError, match="no rollout 'owm'") as caught:
            find(client, "rollout/owm")
        assert "rollout/own" in caught.value.cure
        assert ls(cluster, "-n", client.namespace, "-t", "rollout") == "rollout/own\n"
    finally:
        cluster.kubectl("delete", "crd", "rollouts.argoproj.io")


def applied(cluster: Cluster, namespace: str, item: dict[str, Any]) -> bool:
    """The API server serves a new kind a moment after it is established."""
    try:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(item))
    except AssertionError:
        return False
    return True
