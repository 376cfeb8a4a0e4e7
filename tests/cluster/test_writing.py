"""Files that are written belong to whom the target's own would, whoever the agent is; what the target may not write, nobody may."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.cluster.plug import IMAGE, plugged
from tests.testkit.cluster import Cluster

GROUP, USERS = 4321, {"plain": 1234, "root": 0}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace(f"writing-{os.getpid()}") as name:
        for pod, user in USERS.items():
            container = {"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "3600"],
                         "volumeMounts": [{"name": "data", "mountPath": "/data"}]}  # fmt: skip
            spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}],
                    "securityContext": {"fsGroup": GROUP, "runAsUser": user, "runAsGroup": user}}  # fmt: skip
            made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec}
            cluster.kubectl("apply", "-n", name, "-f", "-", stdin=json.dumps(made))
        for pod in USERS:
            cluster.kubectl("wait", "-n", name, "--for=condition=Ready", f"pod/{pod}", "--timeout=55s")
        yield name


@pytest.mark.parametrize("flags", [[], ["--ephemeral-container"], ["--in-container"]], ids=["job", "ephemeral", "in-container"])
@pytest.mark.parametrize("pod", USERS)
def test_what_is_written_is_the_targets(cluster: Cluster, namespace: str, pod: str, flags: list[str]) -> None:
    folder = f"/data/{len(flags)}{''.join(flags)}"
    shell = f"mkdir {folder} && cd {folder} && echo a >f && echo b >>f && cat f; echo x >/of-root && echo may || echo may not"
    found = plugged(cluster, namespace, f"pod/{pod}", ["sh", "-c", shell], "--fs-mode", "write", *flags)
    assert found.out.splitlines() == ["a", "b", "may not" if USERS[pod] else "may"], found
    stat = cluster.kubectl("exec", "-n", namespace, pod, "--", "stat", "-c", "%u %g", folder, f"{folder}/f")
    assert stat.split("\n")[:2] == [f"{USERS[pod]} {GROUP}"] * 2
