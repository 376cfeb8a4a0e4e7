"""The agent without a Job: as an ephemeral container of the target's pod, and in the target's own container."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.plug import plugged, session
from tests.cluster.test_mirror import SERVER, mirrored, orders, subscribed
from tests.cluster.test_programs import sees_the_pod
from tests.testkit.cluster import Cluster, eventually

MODES = ["--ephemeral-container", "--in-container"]


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


@pytest.mark.parametrize("mode", MODES)
def test_a_program_sees_the_pod(cluster: Cluster, shop: str, mode: str) -> None:
    result = plugged(cluster, shop, "deployment/orders", ["python3", "-c", programs.PYTHON, shop], mode)
    sees_the_pod(cluster, shop, result)
    assert cluster.get("jobs", "-n", shop)["items"] == []


@pytest.mark.parametrize("mode", MODES)
def test_requests_are_mirrored(cluster: Cluster, shop: str, tmp_path: Path, mode: str) -> None:
    pod = orders(cluster, shop)[0]
    with session(cluster, tmp_path, shop, f"pod/{pod}", SERVER, mode) as one:
        one.prints("listening")
        subscribed(cluster, shop, one, [pod])
        mirrored(cluster, shop, [one], [pod], "mode")
        assert one.stop() == 128 + 15


@pytest.mark.parametrize("mode", MODES)
def test_no_process_of_it_stays(cluster: Cluster, shop: str, mode: str) -> None:
    (ledger,) = cluster.pods(shop, "app=ledger")
    uid, node = ledger["metadata"]["uid"], ledger["spec"]["nodeName"]

    def processes() -> set[str]:
        return set(cluster.enter(node, "sh", "-c", f"grep -l {uid} /proc/[0-9]*/cgroup 2>&- || true").split())

    before = processes()
    assert before
    result = plugged(cluster, shop, "pod/ledger-0", ["uname", "-n"], mode)
    assert result.out == "ledger-0\n", result
    eventually("the end of the agent's processes", lambda: processes() == before)
