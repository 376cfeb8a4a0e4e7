"""Programs of several runtimes, plugged into a deployment, see what the pod has: variables, files, names, dependencies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.plug import plugged
from tests.testkit.cluster import Cluster
from tests.testkit.target import Result


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


def need(*commands: str) -> None:
    for command in commands:
        if not shutil.which(command):
            pytest.skip(f"{command} is not installed")


def sees_the_pod(cluster: Cluster, shop: str, result: Result) -> None:
    """Against what Kubernetes itself says of the pod that the program says it is in."""
    assert result.code == 0, result
    facts = dict(line.split(" ", 1) for line in result.out.splitlines())
    assert tuple(facts) == programs.FACTS, result
    pods = {pod["metadata"]["name"]: pod for pod in cluster.pods(shop, "app=orders")}
    assert facts["hostname"] in pods
    assert facts["hostname"] in result.err, "which of several pods it is must be said"
    (ledger,), (catalog,) = cluster.pods(shop, "app=ledger"), cluster.pods(shop, "app=catalog")
    answer = json.loads(facts.pop("catalog"))
    assert (answer["pod"], answer["path"]) == (catalog["metadata"]["name"], "/x")
    assert answer["peer"].rpartition(":")[0] == pods[facts["hostname"]]["status"]["podIP"], "leaves from the pod"
    token = cluster.kubectl("exec", "-n", shop, facts["hostname"], "--", "cat", programs.TOKEN)
    assert facts == {
        "greeting": "hello from orders",
        "hostname": facts["hostname"],
        "config": "currency = EUR",
        "secret": "correct horse",
        "token": token[-16:],
        "ledger": "ping",
        "headless": ledger["status"]["podIP"],
        "refused": "True",
        "nowhere": "True",
    }


def test_python(cluster: Cluster, shop: str) -> None:
    sees_the_pod(cluster, shop, plugged(cluster, shop, "deployment/orders", ["python3", "-c", programs.PYTHON, shop]))


def test_node(cluster: Cluster, shop: str) -> None:
    need("node")
    sees_the_pod(cluster, shop, plugged(cluster, shop, "deployment/orders", ["node", "-e", programs.NODE, shop]))


def test_static_go(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    source, binary = tmp_path / "main.go", tmp_path / "main"
    source.write_text(programs.GO)
    subprocess.run(["go", "build", "-o", binary, source], check=True, env={**os.environ, "CGO_ENABLED": "0"})
    sees_the_pod(cluster, shop, plugged(cluster, shop, "deployment/orders", [str(binary), shop]))


def test_java(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    need("java", "javac")
    (tmp_path / "Report.java").write_text(programs.JAVA)
    subprocess.run(["javac", "-d", tmp_path, tmp_path / "Report.java"], check=True)
    argv = ["java", "-cp", str(tmp_path), "Report", shop]
    sees_the_pod(cluster, shop, plugged(cluster, shop, "deployment/orders", argv))


def test_shell_and_curl(cluster: Cluster, shop: str) -> None:
    sees_the_pod(cluster, shop, plugged(cluster, shop, "deployment/orders", ["bash", "-c", programs.SHELL, "report", shop]))
