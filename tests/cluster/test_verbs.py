"""The verbs without a program, in a cluster: port-forward and dump of a pod, diagnose, and clean."""

from __future__ import annotations

import json
import re
import socket

import pytest

from sidestage.cluster import job
from sidestage.config.schema import Agent
from tests.cluster.plug import IMAGE
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.verb import ENV, once, verb

DEAD, OTHERS = "d" * 16, "e" * 16


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


@pytest.fixture(autouse=True)
def kubeconfig(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENV, "KUBECONFIG", str(cluster.kubeconfig))


def jobs(cluster: Cluster, namespace: str) -> set[str]:
    items = cluster.get("jobs", "-n", namespace, "-l", "app.kubernetes.io/managed-by=sidestage")["items"]
    return {item["metadata"]["labels"][job.SESSION] for item in items}


def test_port_forward_and_what_clean_leaves_alone(cluster: Cluster, shop: str) -> None:
    flags = ["-n", shop, "-t", "deployment/orders", "-i", IMAGE]
    with verb(["port-forward", *flags, "-L", "0:kubernetes.default.svc:443"]) as run:
        port = re.search(r"127\.0\.0\.1:(\d+) ->", run.wait("Ready", 90))
        assert port
        with socket.create_connection(("127.0.0.1", int(port[1])), 20) as sock:
            sock.settimeout(20)
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")  # plain, to a port of TLS: it says so
            assert b"400 Bad Request" in sock.recv(999)
        (living,) = jobs(cluster, shop)
        done = once(["clean", "-n", shop])
        assert (done.code, f"nothing is left in namespace {shop}" in done.out) == (0, True), done
        assert jobs(cluster, shop) == {living}
        assert run.end() == 0
    eventually("the end of its Job", lambda: not jobs(cluster, shop))


def test_port_forward_goes_on_with_the_next_pod(cluster: Cluster, shop: str) -> None:
    with verb(["port-forward", "-n", shop, "-t", "statefulset/ledger", "-i", IMAGE, "-L", "0:localhost:7000"]) as run:
        port = re.search(r"127\.0\.0\.1:(\d+) ->", run.wait("Ready", 90))
        assert port

        def echoes() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", int(port[1])), 5) as sock:
                    sock.sendall(b"ping")
                    return sock.recv(9) == b"ping"
            except OSError:
                return False

        assert echoes()
        cluster.kubectl("delete", "pod", "-n", shop, "-l", "app=ledger", "--wait=false")
        run.wait("plugged in again", 90)
        eventually("the next pod's answer", echoes, 30)
        assert run.end() == 0


def test_clean_removes_what_is_ours(cluster: Cluster, shop: str) -> None:
    for session in (DEAD, OTHERS):
        made = job.job(Agent(image=IMAGE), session, 1, namespace=shop, node="node1", features=[], target="shop/orders")
        if session == OTHERS:
            made["metadata"]["annotations"]["sidestage.dev/user"] = "somebody@elsewhere"
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(made))
    done = once(["clean", "-n", shop, "--dry-run"])
    assert f"{shop}/sidestage-{DEAD}" in done.out
    assert "would be removed" in done.out
    assert "1 agent of others" in done.out
    assert jobs(cluster, shop) == {DEAD, OTHERS}
    done = once(["clean", "-n", shop])
    assert (done.code, done.out.count("removed")) == (0, 1), done
    eventually("its removal", lambda: jobs(cluster, shop) == {OTHERS})
    assert once(["clean", "-n", shop, "--all"]).code == 0
    eventually("the other's removal", lambda: not jobs(cluster, shop))
    assert f"nothing is left in namespace {shop}" in once(["clean", "-n", shop]).out


def test_dump_of_all_replicas(cluster: Cluster, shop: str) -> None:
    flags = ["-n", shop, "-t", "deployment/orders", "-i", IMAGE]
    ask = "import urllib.request; print(urllib.request.urlopen('http://orders/dumped', timeout=5).read())"
    with verb(["dump", *flags, "-p", "8080"]) as run:
        run.wait("Ready", 90)
        run.wait("are seen as well", 60)  # the other replica has its agent

        def both() -> bool:
            cluster.kubectl("exec", "-n", shop, "deployment/orders", "--", "python3", "-c", ask)
            return any("GET /dumped  200" in line for line in run.out)

        eventually("an exchange", both, 60)
        assert run.end() == 0


def test_diagnose(shop: str) -> None:
    flags = ["-n", shop, "-t", "deployment/orders", "-i", IMAGE, "--connect", "kubernetes.default.svc:443"]
    done = once(["diagnose", *flags, "--output", "json"], 120)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["links"] > 1
    assert found["up"]["rate"] > 1e6
    assert found["down"]["rate"] > 1e6
    assert all(each["seconds"] for each in found["names"])
    assert all("connect" in each for each in found["connects"][0]["tries"])
    assert found["limits"]
