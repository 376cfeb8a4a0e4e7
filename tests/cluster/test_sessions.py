"""Which container of which pod a session is in, whatever the pod is made of."""

from __future__ import annotations

import json

import pytest

from tests.cluster.plug import plugged
from tests.testkit.cluster import Cluster


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop", "sidecars", "locked")
    return namespace


@pytest.mark.parametrize(
    ("target", "who"),
    [
        ("pod/meshed", "app"),  # a mesh's proxy is passed over, though it comes first
        ("pod/chosen", "second"),  # by annotation
        ("pod/native", "main"),  # a sidecar of the init containers
        ("pod/chosen/container/first", "first"),
        ("pod/meshed/container/istio-proxy", "proxy"),
        ("pod/native/container/helper", "helper"),
        ("label/app=chosen", "second"),
    ],
)
def test_the_container(cluster: Cluster, shop: str, target: str, who: str) -> None:
    found = plugged(cluster, shop, target, ["sh", "-c", 'echo "$WHO"; uname -n'])
    pod = target.split("/")[1].removeprefix("app=")
    assert found.out.split() == [who, pod], found


def test_an_image_with_nothing_in_it(cluster: Cluster, shop: str) -> None:
    """The target has no shell, no Python, no libc: none is needed there."""
    shell = 'echo "$GREETING"; uname -n; curl -sS -m 9 http://orders/x'
    found = plugged(cluster, shop, "deployment/catalog", ["sh", "-c", shell])
    greeting, name, answer = found.out.splitlines()
    (catalog,) = cluster.pods(shop, "app=catalog")
    assert (greeting, name) == ("hello from catalog", catalog["metadata"]["name"]), found
    assert json.loads(answer)["peer"] == catalog["status"]["podIP"]


def test_not_root_and_a_read_only_root(cluster: Cluster, shop: str) -> None:
    shell = 'echo "$GREETING"; cat /app/config/app.conf; curl -sS -m 9 http://sealed/x | grep -c catalog'
    found = plugged(cluster, shop, "deployment/locked", ["sh", "-c", shell])
    assert found.out.splitlines() == ["hello from locked", "mode = locked", "1"], found
    found = plugged(cluster, shop, "deployment/sealed", ["sh", "-c", 'echo "$GREETING"; curl -sS -m 9 http://orders/x'])
    greeting, answer = found.out.splitlines()
    (sealed,) = cluster.pods(shop, "app=sealed")
    assert greeting == "hello from sealed"
    assert json.loads(answer)["peer"] == sealed["status"]["podIP"]


@pytest.mark.parametrize("target", ["pod", "replicaset", "service", "statefulset"])
def test_kinds(cluster: Cluster, shop: str, target: str) -> None:
    pods = cluster.pods(shop, "app=ledger" if target == "statefulset" else "app=orders")
    name = {
        "pod": pods[0]["metadata"]["name"],
        "replicaset": pods[0]["metadata"].get("ownerReferences", [{}])[0].get("name"),
        "service": "orders",
        "statefulset": "ledger",
    }[target]
    found = plugged(cluster, shop, f"{target}/{name}", ["uname", "-n"])
    assert found.out.strip() in {pod["metadata"]["name"] for pod in pods}, found
