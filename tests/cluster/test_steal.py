"""Stolen requests are answered by the local program; with its end, or its death, the pod answers again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cluster.plug import session
from tests.cluster.test_mirror import SERVER
from tests.cluster.test_traces import agents, kill_tree
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.traces import as_before, settled

TARGETS = ["deployment/catalog", "deployment/orders"]  # one pod with nothing in its image; two pods on two nodes


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    for target in TARGETS:  # a Service may refuse for a moment after its pods are ready
        eventually(f"the Service of {target}", lambda target=target: set(ask(cluster, namespace, target)) == {"pod"})  # type: ignore[misc]
    return namespace


def ask(cluster: Cluster, shop: str, target: str) -> list[str]:
    """Who answers six requests through the Service."""
    name = target.split("/")[1]
    code = f"for n in 1 2 3 4 5 6; do curl -sS -m 9 http://{name}/from-the-client || echo failed; echo; done"
    answers = cluster.kubectl("exec", "-n", shop, "client", "--", "sh", "-c", code).split("\n")
    return ["local" if answer == "local" else "pod" if f'"{name}"' in answer else answer for answer in answers if answer]


@pytest.mark.parametrize("target", TARGETS)
def test_the_local_program_answers(cluster: Cluster, shop: str, tmp_path: Path, target: str) -> None:
    before = settled(cluster, shop)
    (client,) = cluster.pods(shop, "app=client")
    with session(cluster, tmp_path, shop, target, SERVER, "--steal") as one:
        one.prints("listening")
        eventually(f"the local program's answers ({one.said()})", lambda: set(ask(cluster, shop, target)) == {"local"})
        assert f"/from-the-client {client['status']['podIP']}" in one.out.read_text()
        assert one.stop() == 128 + signal.SIGTERM
    assert set(ask(cluster, shop, target)) == {"pod"}
    as_before(cluster, shop, before)


def test_death_gives_the_port_back(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    target = TARGETS[0]
    before = settled(cluster, shop)
    with session(cluster, tmp_path, shop, target, SERVER, "--steal") as one:
        one.prints("listening")
        eventually(f"the local program's answers ({one.said()})", lambda: set(ask(cluster, shop, target)) == {"local"})
        kill_tree(one.process.pid)
        one.process.wait(10)
        eventually("the pod's answers", lambda: set(ask(cluster, shop, target)) == {"pod"}, 35)
        eventually("the end of the agents", lambda: not agents(cluster, shop), 35)
    as_before(cluster, shop, before)
