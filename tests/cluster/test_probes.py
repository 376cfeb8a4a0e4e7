"""The kubelet's own probes of ports that are stolen whole by a program that answers nothing: the pod stays alive and ready."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.plug import session
from tests.testkit.cluster import Cluster, eventually

PROBED = 10.0  # seconds with a probe of each kind a second; two that fail are too many
# As at a breakpoint: it listens on every port that is probed, and counts who comes, but takes nobody.
STOPPED = """
import socket, time
listeners = [socket.create_server(("", port), backlog=64) for port in (8080, 50051, 7000)]
print("listening", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def probed(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "probed")
    return namespace


def test_probes_of_every_kind_are_answered(cluster: Cluster, probed: str, tmp_path: Path) -> None:
    (before,) = cluster.pods(probed, "app=probed")
    address = before["status"]["podIP"]

    def answers() -> str:
        """What a client in the pod is told, within a second."""
        code = f"import urllib.request as u; print(u.urlopen('http://{address}:8080/', timeout=1).read().decode())"
        asked = cluster.kubectl("exec", "-n", probed, before["metadata"]["name"], "-c", "tcp", "--", "sh", "-c",
                                f'python3 -c "{code}" 2>/dev/null || echo nothing')  # fmt: skip
        return asked.strip()

    assert answers() == "pod"
    failed = unhealthy(cluster, probed)
    with session(cluster, tmp_path, probed, "deployment/probed/container/http", ["python3", "-c", STOPPED], "--steal") as one:
        one.prints("listening")
        eventually("the clients' waiting", lambda: answers() == "nothing")
        time.sleep(PROBED)
        (during,) = cluster.pods(probed, "app=probed")
        assert answers() == "nothing"
        assert one.stop() == 128 + 15
    assert during["metadata"]["uid"] == before["metadata"]["uid"]
    assert restarts(during) == restarts(before)
    assert {each["type"]: each["status"] for each in during["status"]["conditions"]}["Ready"] == "True"
    assert unhealthy(cluster, probed) == failed, "the kubelet was told otherwise"
    eventually("the pod's answers", lambda: answers() == "pod")


def restarts(pod: Any) -> list[int]:
    return [each["restartCount"] for each in pod["status"]["containerStatuses"]]


def unhealthy(cluster: Cluster, namespace: str) -> int:
    """Probes that have failed."""
    events = cluster.get("events", "-n", namespace, "--field-selector", "reason=Unhealthy")["items"]
    return sum(each.get("count") or 1 for each in events)
