"""What a cluster refuses is said at once, in its own words and with a cure; never by a time-out, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path

import pytest

from tests.cluster.plug import command, environ, plugged
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.target import Result, run

HELLO = ["sh", "-c", 'echo "$GREETING"']


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "locked")
    return namespace


def config(folder: Path, **agent: object) -> tuple[str, str]:
    path = folder / "sidestage.json"
    path.write_text(json.dumps({"agent": agent}))
    return "-f", str(path)


def refused(cluster: Cluster, namespace: str, result: Result, *words: str) -> None:
    assert result.code != 0 and result.out == "", result
    assert all(re.search(word, result.err) for word in words), result.err
    assert "has not started within" not in result.err
    assert "Traceback" not in result.err
    if namespace in cluster.kubectl("get", "namespaces", "-o", "name"):
        eventually("the end of the Job", lambda: not cluster.get("jobs", "-n", namespace)["items"])


def test_no_such_image(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    flags = config(tmp_path, image="registry.invalid/agent:1")
    argv = [word for word in command(shop, "deployment/locked", HELLO, *flags) if word not in ("-i", "localhost/python:3.11")]
    refused(cluster, shop, run(argv, 60, environ(cluster)), "registry.invalid/agent:1", "agent.image")


def test_an_image_that_is_never_pulled(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    flags = config(tmp_path, image_pull_policy="Never")
    argv = command(shop, "deployment/locked", HELLO, *flags)
    argv[argv.index("-i") + 1] = "localhost/absent:1"
    refused(cluster, shop, run(argv, 60, environ(cluster)), "localhost/absent:1", "agent.image_pull_policy")


def test_no_python_in_the_image(cluster: Cluster, shop: str) -> None:
    argv = command(shop, "deployment/locked", HELLO)
    argv[argv.index("-i") + 1] = "localhost/static:1"
    refused(cluster, shop, run(argv, 60, environ(cluster)), "python3", r"agent\.(image|python)")


def test_no_room_on_the_node(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    flags = config(tmp_path, resources={"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}})
    refused(cluster, shop, plugged(cluster, shop, "deployment/locked", HELLO, *flags), "[Cc]pu", "agent.resources")


def test_a_quota(cluster: Cluster) -> None:
    with cluster.namespace(f"quota-{os.getpid()}") as full:
        cluster.apply(full, "locked")
        cluster.kubectl("create", "quota", "-n", full, "full", "--hard=pods=2")
        eventually("the quota's count", lambda: cluster.get("quota", "-n", full, "full").get("status", {}).get("used"))
        refused(cluster, full, plugged(cluster, full, "deployment/locked", HELLO), "exceeded quota", "--agent-namespace")


def test_names_that_are_not_there(cluster: Cluster, shop: str) -> None:
    refused(cluster, shop, plugged(cluster, shop, "deployment/lokced", HELLO), "lokced", "deployment/locked")
    refused(cluster, shop, plugged(cluster, shop, "deployment/locked/container/app", HELLO), "no container 'app'", "locked")
    refused(cluster, shop, plugged(cluster, "no-such-namespace", "deployment/locked", HELLO), "no namespace 'no-such-namespace'")


def test_a_deployment_that_is_scaled_to_nothing(cluster: Cluster, shop: str) -> None:
    cluster.kubectl("create", "deployment", "-n", shop, "idle", "--image=localhost/static:1", "--replicas=0")
    refused(cluster, shop, plugged(cluster, shop, "deployment/idle", HELLO), "scaled to 0", "scale deployment idle --replicas=1")


@pytest.fixture
def limited(cluster: Cluster, shop: str, tmp_path: Path) -> Path:
    """The kubeconfig of a user who may look, and no more."""
    cluster.kubectl("create", "serviceaccount", "-n", shop, "dev")
    cluster.kubectl(
        "create", "rolebinding", "-n", shop, "dev-view", "--clusterrole=view", f"--serviceaccount={shop}:dev"
    )
    token = cluster.kubectl("create", "token", "-n", shop, "dev").strip()
    admin = cluster.kubeconfig.read_text()
    path = tmp_path / "kubeconfig"
    path.write_text(re.sub(r"user: \{client-certificate-data:.*\}\}\]", f"user: {{token: {token}}}}}]", admin))
    return path


def test_the_role_that_is_offered_cures(cluster: Cluster, shop: str, limited: Path) -> None:
    """What lacks is named with the Role to copy, and that is enough."""
    env = {**environ(cluster), "KUBECONFIG": str(limited)}
    argv = command(shop, "deployment/locked", HELLO)
    result = run(argv, 60, env)
    refused(cluster, shop, result, "create jobs", "pods/exec", "kind: Role")
    role = textwrap.dedent(result.err[re.search(r"^ *apiVersion: rbac", result.err, re.MULTILINE).start() :])  # type: ignore[union-attr]
    cluster.kubectl("apply", "-f", "-", stdin=role)
    result = run(argv, 60, env)
    assert (result.code, result.out) == (0, "hello from locked\n"), result
