"""A deployment's requests, whichever of its pods answers them: once the program listens, those to all ready pods are seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.plug import session
from tests.cluster.test_mirror import mirrored, orders, subscribed
from tests.testkit.cluster import Cluster, eventually

SERVER = ["python3", "-c", programs.SERVER]


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


def jobs(cluster: Cluster, shop: str) -> list[str]:
    """The nodes of the agents' pods."""
    found = cluster.get("pods", "-n", shop, "-l", "sidestage.dev/session")["items"]
    return sorted(str(pod["spec"]["nodeName"]) for pod in found if "deletionTimestamp" not in pod["metadata"])


def scale(cluster: Cluster, shop: str, replicas: int) -> list[str]:
    cluster.kubectl("scale", "-n", shop, "deployment/orders", f"--replicas={replicas}")
    cluster.kubectl("rollout", "status", "-n", shop, "deployment/orders", "--timeout=55s")
    eventually("the pods", lambda: len(orders(cluster, shop)) == replicas)
    return orders(cluster, shop)


def test_all_pods_are_seen_also_those_that_come_later(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    pods = scale(cluster, shop, 3)
    with session(cluster, tmp_path, shop, "deployment/orders", SERVER) as one:
        one.prints("listening")
        subscribed(cluster, shop, one, pods)
        mirrored(cluster, shop, [one], pods, "three")
        assert len(jobs(cluster, shop)) == len(set(jobs(cluster, shop))), "one Job a node, not one a pod"
        pods = scale(cluster, shop, 4)
        subscribed(cluster, shop, one, pods)
        mirrored(cluster, shop, [one], pods, "four")
        assert one.stop() == 128 + 15
    eventually("the end of the agents", lambda: not jobs(cluster, shop), 10)


def test_the_listener_is_there_with_the_successor_too(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    pods = scale(cluster, shop, 2)
    with session(cluster, tmp_path, shop, "deployment/orders", SERVER) as one:
        one.prints("listening")
        subscribed(cluster, shop, one, pods)
        first = next(pod for pod in pods if f"are those of {pod}" in one.said())
        cluster.kubectl("delete", "pod", "-n", shop, first)
        one.says("plugged in again")
        eventually("a second pod", lambda: len(orders(cluster, shop)) == 2 and first not in orders(cluster, shop))
        cluster.kubectl("rollout", "status", "-n", shop, "deployment/orders", "--timeout=55s")
        pods = orders(cluster, shop)
        subscribed(cluster, shop, one, pods)
        mirrored(cluster, shop, [one], pods, "again")
        assert one.stop() == 128 + 15
    eventually("the end of the agents", lambda: not jobs(cluster, shop), 10)


def test_a_program_that_does_not_listen_has_one_agent(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    scale(cluster, shop, 2)
    with session(cluster, tmp_path, shop, "deployment/orders", ["sh", "-c", "echo begun; sleep 60"]) as one:
        one.prints("begun")
        assert len(jobs(cluster, shop)) == 1
        one.stop()
