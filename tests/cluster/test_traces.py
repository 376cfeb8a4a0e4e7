"""Sessions leave the cluster exactly as it was: all objects of all kinds, and on each node processes, rules, sockets and mounts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.plug import plugged, session
from tests.testkit.cluster import NODES, Cluster, eventually
from tests.testkit.traces import as_before, settled


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


def agents(cluster: Cluster, namespace: str) -> list[str]:
    found = cluster.get("jobs,pods", "-n", namespace, "-l", "sidestage.dev/session")["items"]
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


def test_twenty_runs_in_a_row(cluster: Cluster, shop: str) -> None:
    before = settled(cluster, shop)
    for number in range(20):
        found = plugged(cluster, shop, "deployment/orders", ["sh", "-c", f"echo $GREETING {number}; exit 3"])
        assert (found.code, found.out) == (3, f"hello from orders {number}\n"), found
    as_before(cluster, shop, before)


def test_the_end_of_a_session_that_mirrors(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    before = settled(cluster, shop)
    with session(cluster, tmp_path, shop, "deployment/orders", ["python3", "-c", programs.SERVER]) as one:
        one.prints("listening")
        assert agents(cluster, shop)
        assert one.stop() == 128 + signal.SIGTERM
        eventually("the end of the agents", lambda: not agents(cluster, shop), 10)
    as_before(cluster, shop, before)


def test_all_of_sidestage_is_killed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Nobody is left on this machine who could clean up."""
    before = settled(cluster, shop)
    with session(cluster, tmp_path, shop, "deployment/orders", ["python3", "-c", programs.SERVER]) as one:
        one.prints("listening")
        kill_tree(one.process.pid)
        one.process.wait(10)
        eventually("the end of the agents", lambda: not agents(cluster, shop), 35)
    as_before(cluster, shop, before)


def kill_tree(pid: int) -> None:
    """All descendants at once, as far as that goes: stopped first, so that none can act on another's death."""
    tree = [pid]
    for each in tree:
        os.kill(each, signal.SIGSTOP)
        for task in Path(f"/proc/{each}/task").iterdir():
            tree += map(int, (task / "children").read_text().split())
    for each in tree:
        os.kill(each, signal.SIGKILL)


def test_the_agent_is_killed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """All of its pod's processes on the node; the session ends or gets another, and nothing stays of either."""
    before = settled(cluster, shop)
    with session(cluster, tmp_path, shop, "deployment/orders", ["python3", "-c", programs.SERVER]) as one:
        one.prints("listening")
        pods = cluster.get("pods", "-n", shop, "-l", "sidestage.dev/session")["items"]
        said = one.said()
        for pod in pods:
            cluster.kill(pod)
        eventually("a word about it", lambda: one.said() != said)
        if one.process.poll() is None:
            one.stop()
    assert {pod["spec"]["nodeName"] for pod in pods} <= set(NODES)
    as_before(cluster, shop, before, 45)
