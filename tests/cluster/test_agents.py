"""What becomes of agents that somebody else ends, and of those who keep them; what a narrow Role still allows; no target at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import programs
from tests.cluster.plug import command, environ, plugged, session
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.target import run

WAITER = ["sh", "-c", "echo begun; sleep 100"]
NARROW = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: narrow}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
- {apiGroups: [batch], resources: [jobs], verbs: [create, delete]}
- {apiGroups: [""], resources: [pods/exec], verbs: [create]}
"""


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


def agents(cluster: Cluster, shop: str) -> list[Any]:
    return list(cluster.get("jobs,pods", "-n", shop, "-l", "sidestage.dev/session")["items"])


def test_to_delete_the_job_is_to_end_the_session(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    with session(cluster, tmp_path, shop, "pod/client", WAITER) as one:
        one.prints("begun")
        (job,) = [item for item in agents(cluster, shop) if item["kind"] == "Job"]
        cluster.kubectl("delete", "job", "-n", shop, job["metadata"]["name"])
        assert one.process.wait(60) != 0
        assert "the agent's Job was deleted" in one.said()
    eventually("the end of the agents", lambda: not agents(cluster, shop))


def test_a_pod_of_an_agent_that_is_deleted_has_another(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """As when its node is drained and the target's pod is still there."""
    with session(cluster, tmp_path, shop, "pod/client", WAITER) as one:
        one.prints("begun")
        (pod,) = [item for item in agents(cluster, shop) if item["kind"] == "Pod"]
        cluster.kubectl("delete", "pod", "-n", shop, pod["metadata"]["name"])
        one.says("plugged in again")
        assert one.process.poll() is None
        one.stop()
    eventually("the end of the agents", lambda: not agents(cluster, shop))


def test_an_agent_as_the_configuration_wants_it(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """What an admission policy may ask for, as it arrives in the pod; and where that runs."""
    wanted = {
        "labels": {"team": "shop"}, "annotations": {"example.com/why": "a test"}, "service_account": "runner",
        "image_pull_secrets": ["registry"], "tolerations": [{"key": "gpu", "operator": "Exists"}], "ttl": 1,
        "priority_class": "system-node-critical", "resources": {"requests": {"cpu": "20m"}, "limits": {"memory": "200Mi"}},
        "security_context": {"seccompProfile": {"type": "Unconfined"}}, "disabled_capabilities": ["NET_RAW"],
    }  # fmt: skip
    cluster.kubectl("create", "serviceaccount", "-n", shop, "runner")
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps({"agent": wanted}))
    with session(cluster, tmp_path / "run", shop, "pod/client", WAITER, "-f", str(config)) as one:
        one.prints("begun")
        (pod,) = [item for item in agents(cluster, shop) if item["kind"] == "Pod"]
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert pod["metadata"]["labels"]["team"] == "shop"
        assert pod["metadata"]["annotations"]["example.com/why"] == "a test"
        assert spec["nodeName"] == cluster.get("pod", "client", "-n", shop)["spec"]["nodeName"]
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("runner", False)
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert {"key": "gpu", "operator": "Exists"} in spec["tolerations"]
        assert spec["priorityClassName"] == "system-node-critical"
        assert (container["resources"]["requests"]["cpu"], container["resources"]["limits"]["memory"]) == ("20m", "200Mi")
        rights = container["securityContext"]
        assert rights["seccompProfile"] == {"type": "Unconfined"}
        assert rights["capabilities"]["drop"] == ["ALL"]
        assert not {"NET_RAW", "NET_ADMIN"} & set(rights["capabilities"]["add"])
        one.stop()
    eventually("the end of the agents", lambda: not agents(cluster, shop))


def test_the_keeper_is_killed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Nobody is left who would remove anything; the program is ended with a word."""
    with session(cluster, tmp_path, shop, "pod/client", WAITER) as one:
        one.prints("begun")
        os.kill(keeper(one.process.pid), signal.SIGKILL)
        assert one.process.wait(60) != 0
        assert "the process that keeps the agent has ended" in one.said()
        eventually("the end of the agents", lambda: not agents(cluster, shop), 30)


def test_the_carrier_is_killed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Its connections are reset; the session says so and goes on, over the stream that the keeper has."""
    with session(cluster, tmp_path, shop, "pod/client", ["python3", "-u", "-c", programs.LOOKER]) as one:
        one.prints("begun")
        (carrier,) = children(keeper(one.process.pid))
        eventually("its connections", lambda: connected(carrier))
        os.kill(carrier, signal.SIGKILL)
        one.says("bulk data goes over the exec stream")
        count = len(one.lines())
        eventually("answers to the program", lambda: any("error" not in line for line in one.lines()[count:]))
        one.stop()
    eventually("the end of the agents", lambda: not agents(cluster, shop), 30)


def test_the_lane_is_killed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """The connections that it carried are reset; the session says so, and carries the next ones."""
    with session(cluster, tmp_path, shop, "pod/client", ["python3", "-u", "-c", programs.LOOKER]) as one:
        eventually("an answer to the program", lambda: len(one.lines()) > 2)
        os.kill(lane(one.process.pid), signal.SIGKILL)
        one.says("the process that carries the program's connections has ended")
        count = len(one.lines())
        eventually("answers to the program", lambda: any("error" not in line for line in one.lines()[count:]))
        one.stop()
    eventually("the end of the agents", lambda: not agents(cluster, shop), 30)


def keeper(pid: int) -> int:
    """A child of the session, which is a child of `pid`: the one that has a child, the carrier."""
    sessions = children(pid)
    (found,) = [each for session in sessions for each in children(session) if connected(each) and children(each)]
    return found


def lane(pid: int) -> int:
    """The one that has a loop of its own, unlike the guard, and is not the keeper."""
    loops = {each for session in children(pid) for each in children(session) if "anon_inode:[eventpoll]" in opened(each)}
    (found,) = loops - {keeper(pid)}
    return found


def children(pid: int) -> list[int]:
    return [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()]


def connected(pid: int) -> bool:
    inodes = {line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "01"}
    return bool(opened(pid) & {f"socket:[{inode}]" for inode in inodes})


def opened(pid: int) -> set[str]:
    """What its descriptors are; some come and go meanwhile."""
    found = set[str]()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def test_a_role_without_websockets_and_port_forward(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Most Roles grant `create` on pods/exec and no more: it is enough, and what is slower is said."""
    cluster.kubectl("apply", "-n", shop, "-f", "-", stdin=NARROW)
    cluster.kubectl("create", "serviceaccount", "-n", shop, "narrow")
    cluster.kubectl("create", "rolebinding", "-n", shop, "narrow", "--role=narrow", f"--serviceaccount={shop}:narrow")
    token = cluster.kubectl("create", "token", "-n", shop, "narrow").strip()
    kubeconfig = tmp_path / "kubeconfig"
    admin = cluster.kubeconfig.read_text()
    kubeconfig.write_text(re.sub(r"user: \{client-certificate-data:.*\}\}\]", f"user: {{token: {token}}}}}]", admin))
    argv = command(shop, "pod/client", ["sh", "-c", "uname -n; sleep 1; curl -sS -m 9 http://catalog/x"])
    found = run(argv, 90, {**environ(cluster), "KUBECONFIG": str(kubeconfig)})
    name, answer = found.out.splitlines()
    assert (name, json.loads(answer)["path"]) == ("client", "/x"), found
    assert "you may not create pods/portforward" in found.err


def test_no_target_at_all(cluster: Cluster, shop: str) -> None:
    """A place in the cluster: an ordinary pod, without rights on its node, with the service account of the namespace."""
    shell = "uname -n; curl -sS -m 9 http://catalog/x; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"
    found = plugged(cluster, shop, "targetless", ["sh", "-c", shell])
    name, answer, namespace = found.out.splitlines()
    assert name.startswith("sidestage-")
    assert json.loads(answer)["path"] == "/x"
    assert namespace == shop
    eventually("the end of the agents", lambda: not agents(cluster, shop))
