"""What is listed of an object of the cluster."""

from __future__ import annotations

from typing import Any

from sidestage.cluster.job import LABELS, SESSION
from sidestage.cluster.listing import Entry, entries


def pod(labels: dict[str, str], *containers: str) -> dict[str, Any]:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": name} for name in containers]}
    return {"metadata": {"name": "a", "namespace": "n", "labels": labels}, "spec": spec, "status": status}


def test_a_pod_and_its_containers_but_for_sidecars() -> None:
    paths = ["pod/a", "pod/a/container/one", "pod/a/container/two"]
    assert list(entries("pod", pod({}, "one", "istio-proxy", "two"))) == [Entry("n", path, True) for path in paths]


def test_our_own_agents_are_nobody_s_targets() -> None:
    assert list(entries("pod", pod({**LABELS, SESSION: "0123456789abcdef"}, "agent"))) == []
