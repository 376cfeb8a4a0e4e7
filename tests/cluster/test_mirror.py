"""Requests through a Service reach the local programs with their real clients; the pods answer them and notice nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.plug import Session, session
from tests.testkit.cluster import Cluster, eventually

REQUESTS = 20
SERVER = ["python3", "-c", programs.SERVER]


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


def orders(cluster: Cluster, shop: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.pods(shop, "app=orders")]


def ask(cluster: Cluster, shop: str, *paths: str) -> list[dict[str, str]]:
    """A client in another pod asks the Service, with a connection for each path."""
    code = "".join(f"curl -sS -m 9 http://orders{path}; echo;" for path in paths)
    return [json.loads(line) for line in cluster.kubectl("exec", "-n", shop, "client", "--", "sh", "-c", code).splitlines()]


def subscribed(cluster: Cluster, shop: str, one: Session, pods: list[str]) -> None:
    """Waits until a request to each of `pods` is mirrored."""
    left = set(pods)

    def all_are() -> bool:
        path = f"/probe-{os.urandom(4).hex()}"
        (answer,) = ask(cluster, shop, path)
        if answer["pod"] in left and arrives(one, path):
            left.remove(answer["pod"])
        return not left

    eventually(f"a mirrored request to each of {pods} ({one.said()})", all_are, 60)


def arrives(one: Session, path: str) -> bool:
    try:
        eventually("the request", lambda: path in one.out.read_text(), 1)
    except AssertionError:
        return False
    return True


def mirrored(cluster: Cluster, shop: str, sessions: list[Session], pods: list[str], mark: str) -> None:
    """The pods answer, undisturbed; each session sees the requests to `pods` once, from their real client."""
    (client,) = cluster.pods(shop, "app=client")
    address = client["status"]["podIP"]
    paths = [f"/{mark}-{number}" for number in range(REQUESTS)]
    answers = ask(cluster, shop, *paths)
    assert [(answer["path"], answer["peer"]) for answer in answers] == [(path, address) for path in paths]
    want = sorted(f"{answer['path']} {address} {address}" for answer in answers if answer["pod"] in pods)
    assert want
    for one in sessions:

        def seen(one: Session = one) -> list[str]:
            return sorted(line for line in one.lines() if line.startswith(f"/{mark}-"))

        eventually(f"all mirrored requests ({one.said()})", lambda seen=seen: len(seen()) >= len(want))  # type: ignore[misc]
        assert seen() == want


def test_a_static_program(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    source, binary = tmp_path / "main.go", tmp_path / "main"
    source.write_text(programs.GO_SERVER)
    subprocess.run(["go", "build", "-o", binary, source], check=True, env={**os.environ, "CGO_ENABLED": "0"})
    pod = orders(cluster, shop)[0]
    with session(cluster, tmp_path / "one", shop, f"pod/{pod}", [str(binary)]) as one:
        one.prints("listening")
        subscribed(cluster, shop, one, [pod])
        mirrored(cluster, shop, [one], [pod], "go")
        assert one.stop() == 128 + 15


def test_two_sessions_on_one_pod(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    pod = orders(cluster, shop)[0]
    with (
        session(cluster, tmp_path / "one", shop, f"pod/{pod}", SERVER) as one,
        session(cluster, tmp_path / "two", shop, f"pod/{pod}", SERVER) as two,
    ):
        for each in (one, two):
            each.prints("listening")
        for each in (one, two):
            subscribed(cluster, shop, each, [pod])
        mirrored(cluster, shop, [one, two], [pod], "both")
        assert one.stop() == 128 + 15
        mirrored(cluster, shop, [two], [pod], "alone")


def test_all_replicas_of_a_deployment(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """They are on two nodes, so that each has an agent."""
    with session(cluster, tmp_path, shop, "deployment/orders", SERVER) as one:
        one.prints("listening")
        pods = orders(cluster, shop)
        assert len(pods) == 2
        subscribed(cluster, shop, one, pods)
        mirrored(cluster, shop, [one], pods, "all")
        assert one.stop() == 128 + 15
