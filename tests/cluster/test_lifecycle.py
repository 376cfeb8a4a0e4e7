"""What becomes of a session when its target, its agent or the cluster goes: told, and taken up again where there is a successor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import programs
from tests.cluster.plug import Session, session
from tests.testkit.cluster import NODES, Cluster, eventually
from tests.testkit.wire import Wire, wire

LOOKER = ["python3", "-u", "-c", programs.LOOKER]


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


@pytest.fixture
def road(cluster: Cluster, tmp_path: Path) -> Iterator[Wire]:
    with wire(cluster, tmp_path) as made:
        yield made


def looked(one: Session) -> list[str]:
    """The program's lines about its requests."""
    return [line for line in one.lines() if line[:1].isdigit()]


def position(one: Session) -> str:
    """The address that the program's newest answered request left from."""
    lines = [line for line in looked(one) if "error" not in line]
    return lines[-1].split()[1] if lines else ""


def looks(one: Session) -> str:
    """Waits until the program's requests are answered; the address that they leave from."""
    count = len(looked(one))

    def fresh() -> bool:
        assert one.process.poll() is None, one.said()
        new = looked(one)[count:]
        return len(new) >= 2 and all("error" not in line for line in new[-2:])

    eventually(f"answers to the program ({one.said()})", fresh, 60)
    return position(one)


def pod_at(cluster: Cluster, shop: str, address: str, app: str = "orders") -> Any:
    (pod,) = [pod for pod in cluster.pods(shop, f"app={app}") if pod["status"]["podIP"] == address]
    return pod


def no_agents(cluster: Cluster, shop: str, seconds: float = 35) -> None:
    selector = ("-l", "sidestage.dev/session")
    eventually("the end of the agents", lambda: not cluster.get("jobs,pods", "-n", shop, *selector)["items"], seconds)


def test_a_pod_that_is_deleted_has_a_successor(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    with session(cluster, tmp_path, shop, "deployment/orders", LOOKER) as one:
        one.prints("begun")
        old = looks(one)
        name = pod_at(cluster, shop, old)["metadata"]["name"]
        cluster.kubectl("delete", "pod", "-n", shop, name)
        eventually("another position", lambda: position(one) != old, 60)
        new = looks(one)
        successor = pod_at(cluster, shop, new)["metadata"]["name"]
        assert successor in one.said(), "which pod it is now must be said"
        assert name in one.said()
        one.stop()
    no_agents(cluster, shop)


def test_a_container_that_restarts_is_taken_up_again(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    with session(cluster, tmp_path, shop, "statefulset/ledger", LOOKER) as one:
        one.prints("begun")
        here = looks(one)
        cluster.kill(pod_at(cluster, shop, here, "ledger"), "echo.py")
        one.says("ledger-0")
        cluster.kubectl("wait", "-n", shop, "--for=condition=Ready", "pod/ledger-0", "--timeout=60s")
        assert looks(one) == here
        one.stop()
    no_agents(cluster, shop)


def test_a_workload_that_moves_to_another_node_is_followed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """The program listens as well: what was mirrored in the old place is mirrored in the new."""
    looker = programs.LOOKER.replace("http://catalog/", "http://orders/").replace('.rpartition(":")[0]', "")
    both = f"import threading\nthreading.Thread(target=lambda: exec({programs.SERVER!r})).start()\n{looker}"
    with session(cluster, tmp_path, shop, "deployment/catalog", ["python3", "-c", both]) as one:
        one.prints("begun")
        old = pod_at(cluster, shop, looks(one), "catalog")
        other = next(node for node in NODES if node != old["spec"]["nodeName"])
        move = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": other}}}}}
        cluster.kubectl("patch", "deployment", "-n", shop, "catalog", "-p", json.dumps(move))
        eventually("another position", lambda: position(one) not in ("", old["status"]["podIP"]), 90)
        new = pod_at(cluster, shop, looks(one), "catalog")
        assert new["spec"]["nodeName"] == other
        one.says(f"{new['metadata']['name']}")
        address = cluster.pods(shop, "app=client")[0]["status"]["podIP"]

        def mirrored() -> bool:
            cluster.kubectl("exec", "-n", shop, "client", "--", "curl", "-sS", "-m9", "http://catalog/from-the-client")
            return f"/from-the-client {address}" in one.out.read_text()

        eventually("mirrored requests of the new place", mirrored)
        one.stop()
    no_agents(cluster, shop)


def test_a_workload_that_is_scaled_to_nothing_ends_the_session(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "deployment", "-n", shop, "short", "--image=localhost/static:1")
    cluster.kubectl("rollout", "status", "-n", shop, "deployment/short", "--timeout=55s")
    with session(cluster, tmp_path, shop, "deployment/short", LOOKER) as one:
        one.prints("begun")
        looks(one)
        cluster.kubectl("scale", "deployment", "-n", shop, "short", "--replicas=0")
        assert one.process.wait(40) not in (0, None)  # and not after all the patience there is for a pod that may come back
        assert "deployment/short is scaled to 0" in one.said()
    no_agents(cluster, shop)


def test_a_pod_that_has_no_successor_ends_the_session(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    cluster.kubectl("run", "-n", shop, "lonely", "--image=localhost/static:1", "--image-pull-policy=Never", "--labels=app=lonely")
    cluster.kubectl("wait", "-n", shop, "--for=condition=Ready", "pod/lonely", "--timeout=60s")
    with session(cluster, tmp_path, shop, "pod/lonely", LOOKER) as one:
        one.prints("begun")
        looks(one)
        cluster.kubectl("delete", "pod", "-n", shop, "lonely", "--grace-period=0", "--force", timeout=90)
        assert one.process.wait(90) not in (0, None)
        assert "lonely" in one.said()
    no_agents(cluster, shop)


def test_the_api_server_restarts(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Killed with all its streams; it comes back in a second or two. The session goes on, or ends with a word."""
    with session(cluster, tmp_path, shop, "deployment/orders", LOOKER) as one:
        one.prints("begun")
        looks(one)
        cluster.enter("node1", "bash", "-c", f"kill -9 $(cat {cluster.state}/node1/parts/kube-apiserver)")
        goes_on_or_ends(one)
    eventually("the API server", lambda: "ok" in cluster.kubectl("get", "--raw", "/readyz"))
    no_agents(cluster, shop, 60)


def goes_on_or_ends(one: Session) -> None:
    """Never half-connected: within a minute the program is answered again, or sidestage has ended and said why."""
    deadline = time.monotonic() + 75
    said = one.said()
    count = len(one.lines())
    while time.monotonic() < deadline:
        if (code := one.process.poll()) is not None:
            assert code != 0
            assert len(one.said()) > len(said), "an end must be explained"
            return
        new = one.lines()[count:]
        if any("error" in line for line in new) and all("error" not in line for line in new[-5:]):
            return
        if len(new) > 150 and not any("error" in line for line in new):
            return  # nothing was noticed at all
        time.sleep(0.2)
    raise AssertionError(f"neither goes on nor ends: {one.lines()[count:][-5:]} {one.said()}")


def test_a_minute_of_silence(cluster: Cluster, shop: str, tmp_path: Path, road: Wire) -> None:
    """The network between here and the cluster swallows all, and nothing is closed."""
    with session(cluster, tmp_path, shop, "deployment/orders", LOOKER, kubeconfig=road.kubeconfig) as one:
        one.prints("begun")
        looks(one)
        road.toxic(stalled=True)
        silence = time.monotonic() + 60
        eventually("the end of the agents, on the cluster's side", lambda: not agents(cluster, shop), 45)
        while time.monotonic() < silence and one.process.poll() is None:
            time.sleep(0.2)
        road.toxic(stalled=False)
        goes_on_or_ends(one)
        if one.process.poll() is None:
            one.stop()
    no_agents(cluster, shop)


def agents(cluster: Cluster, shop: str) -> list[Any]:
    found = cluster.get("pods", "-n", shop, "-l", "sidestage.dev/session")["items"]
    return [pod for pod in found if pod["status"].get("phase") == "Running"]


def test_a_cut_network(cluster: Cluster, shop: str, tmp_path: Path, road: Wire) -> None:
    with session(cluster, tmp_path, shop, "deployment/orders", LOOKER, kubeconfig=road.kubeconfig) as one:
        one.prints("begun")
        looks(one)
        road.cut()
        goes_on_or_ends(one)
        if one.process.poll() is None:
            one.stop()
    no_agents(cluster, shop)
