"""The ground that the other tests stand on: two real nodes, DNS, Services, and a Pod Security that refuses."""

from __future__ import annotations

import json
import os

import pytest

from tests.testkit.cluster import NODES, Cluster, eventually


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


def test_replicas_are_on_two_nodes_and_answer_through_one_service(cluster: Cluster, shop: str) -> None:
    pods = cluster.pods(shop, "app=orders")
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == list(NODES)
    (client,) = cluster.pods(shop, "app=client")
    curl = ["exec", "-n", shop, "client", "--", "curl", "-sS", "-m5", "http://orders/x"]
    eventually("the first answer", lambda: "orders" in cluster.kubectl(*curl))
    answers = [json.loads(cluster.kubectl(*curl)) for _ in range(20)]
    assert {answer["pod"] for answer in answers} == {pod["metadata"]["name"] for pod in pods}
    assert {answer["peer"] for answer in answers} == {client["status"]["podIP"]}


def test_a_node_sees_its_own_processes_only(cluster: Cluster, shop: str) -> None:
    for node in NODES:
        assert cluster.enter(node, "hostname").strip() == node
        seen = cluster.enter(node, "sh", "-c", "cat /proc/[0-9]*/cgroup /proc/[0-9]*/cmdline 2>&-; true")
        for pod in cluster.pods(shop, "app=orders"):
            assert (pod["metadata"]["uid"] in seen) == (pod["spec"]["nodeName"] == node)
        assert ("kube-apiserver" in seen) == (node == "node1")


def test_headless_names_are_the_pods(cluster: Cluster, shop: str) -> None:
    (ledger,) = cluster.pods(shop, "app=ledger")
    found = cluster.kubectl("exec", "-n", shop, "client", "--", "getent", "hosts", "ledger-0.ledger")
    assert found.split() == [ledger["status"]["podIP"], f"ledger-0.ledger.{shop}.svc.cluster.local"]


def test_pod_security_restricted_lets_in_the_locked_and_nothing_privileged(cluster: Cluster) -> None:
    with cluster.namespace(f"restricted-{os.getpid()}", "pod-security.kubernetes.io/enforce=restricted") as restricted:
        cluster.apply(restricted, "locked")
        with pytest.raises(AssertionError, match="violates PodSecurity"):
            cluster.kubectl("run", "-n", restricted, "root", "--image=localhost/python:3.11")
