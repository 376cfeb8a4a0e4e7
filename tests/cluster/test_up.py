"""`up` in a cluster: services whose targets are on one node share one agent's Job, and nothing else.

Targets are pinned: a and b on node1, far on node2.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.plug import IMAGE
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.laptop import TOKEN, marked
from tests.testkit.verb import ENV, Verb, once, verb

# A connection to its own target's echo that lasts: it tells of each round trip, and of its end.
TALKS = """
import socket, time
s = socket.create_connection(("{name}", 7000), 20); s.settimeout(20)
n = 0
while True:
    s.sendall(b"x"); assert s.recv(1) == b"x"
    n += 1; print("round", n, flush=True); time.sleep(0.1)
"""
SERVER = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("got", self.path, flush=True); self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
s = http.server.HTTPServer(("", 8080), H); print("listening", flush=True); s.serve_forever()
"""
SLEEPS = "import time; print('begun', flush=True); time.sleep(300)"
ECHO = """
import socketserver, threading
class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536): self.request.sendall(data)
socketserver.ThreadingTCPServer(("", 7000), Stream).serve_forever()
"""


def pod(name: str, node: str) -> dict[str, Any]:
    """Answers on 7000; a Service has its name."""
    container = {"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": ["python3", "-c", ECHO]}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def service(name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 7000}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    made = [each for name, node in PINNED.items() for each in (pod(name, node), service(name))]
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pods", "--all", "--timeout=55s")
    return namespace


PINNED = {"a": "node1", "b": "node1", "far": "node2"}


@pytest.fixture(autouse=True)
def no_process_left(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    token = f"up-{os.getpid()}-{request.node.name}"
    monkeypatch.setitem(ENV, "KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setitem(ENV, TOKEN, token)
    yield token
    eventually("the end of all processes", lambda: not marked(token), 30)


def write(folder: Path, namespace: str, services: dict[str, dict[str, Any]], **default: Any) -> Path:
    tree = {"default": {"config": {"target": {"namespace": namespace}, "agent": {"image": IMAGE}}, **default}, "services": services}
    file = folder / "sidestage-up.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def plugged(name: str, code: str, **more: Any) -> dict[str, Any]:
    return {"target": f"pod/{name}", "command": ["python3", "-u", "-c", code], **more}


def talks(name: str, **more: Any) -> dict[str, Any]:
    return plugged(name, TALKS.format(name=name), **more)


def jobs(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The agents' Jobs by name."""
    return {item["metadata"]["name"]: item for item in cluster.get("jobs", "-n", namespace, "-l", "sidestage.dev/session")["items"]}


def nothing(cluster: Cluster, namespace: str) -> bool:
    return not cluster.get("jobs,pods", "-n", namespace, "-l", "sidestage.dev/session")["items"]


def rights(job: dict[str, Any]) -> list[str]:
    container = job["spec"]["template"]["spec"]["containers"][0]
    return list(container["securityContext"]["capabilities"]["add"])


def rounds(run: Verb, name: str) -> int:
    return sum(line.startswith(name) and "| round" in line for line in run.out)


def says(run: Verb, name: str, text: str) -> None:
    eventually(f"{text!r} of {name} ({run.err})", lambda: any(line.startswith(name) and text in line for line in run.err), 90)


def goes_on(run: Verb, *names: str) -> None:
    """Each of them talks over the same connection as before."""
    before = {name: rounds(run, name) for name in names}
    eventually(f"{names} go on ({run.err})", lambda: all(rounds(run, name) > before[name] + 3 for name in names))
    for name in names:
        numbers = [int(line.split()[-1]) for line in run.out if line.startswith(name) and "| round" in line]
        assert numbers == list(range(1, len(numbers) + 1)), f"{name} began again"


def test_one_job_a_node_with_the_rights_of_its_services(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    services = {
        "a": talks("a", config={"feature": {"network": {"incoming": "off"}}}),
        "b": plugged("b", SERVER, config={"feature": {"network": {"incoming": "steal"}}}),
        "far": talks("far", config={"feature": {"network": {"incoming": "off"}}}),
    }
    with verb(["up", "-f", str(write(tmp_path, shop, services))]) as run:
        run.wait("listening", 60)
        run.wait("a   | round", 60)
        run.wait("far | round", 60)
        found = {job["spec"]["template"]["spec"]["nodeName"]: job for job in jobs(cluster, shop).values()}
        assert sorted(found) == ["node1", "node2"]
        assert len(jobs(cluster, shop)) == 2
        assert rights(found["node1"]) == ["DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"], "b needs one more"
        assert rights(found["node2"]) == ["DAC_READ_SEARCH", "SYS_ADMIN", "SYS_PTRACE"], "and far does not"
        said = once(["status"]).out
        assert f"one Job for the agents of a, b: {shop}/{found['node1']['metadata']['name']} on node1" in said, said
        assert f"nothing is left in namespace {shop}" in once(["clean", "-n", shop]).out, "it is in use"
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_flags_are_for_all_services(cluster: Cluster, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative kubeconfig is one of where `up` was called, wherever a service runs."""
    (tmp_path / "app").mkdir()
    (tmp_path / "config").write_text(cluster.kubeconfig.read_text())
    monkeypatch.delitem(ENV, "KUBECONFIG")
    services = {name: {"target": f"pod/{name}", "command": ["sh", "-c", "uname -n"], "dir": "app"} for name in "ab"}
    (tmp_path / "sidestage-up.yaml").write_text(yaml.safe_dump({"services": services}))
    with verb(["up", "-n", shop, "-i", IMAGE, "--kubeconfig", "config"], cwd=tmp_path) as run:
        assert run.process.wait(60) == 0, run.err
        assert sorted(run.out) == ["a | a\n", "b | b\n"]
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_a_change_starts_one_again_and_the_others_notice_nothing(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    code = tmp_path / "app" / "main.py"
    code.parent.mkdir()
    code.write_text(SLEEPS)
    app = {"target": "pod/b", "command": ["python3", "-u", "main.py"], "dir": "app", "watch": ["*.py"]}
    with verb(["up", "-f", str(write(tmp_path, shop, {"a": talks("a"), "b": app})), "--watch"]) as run:
        run.wait("b | begun", 60)
        run.wait("a | round", 60)
        (job,) = jobs(cluster, shop)
        for number in range(3):
            code.write_text(f"print('new {number}')\n{SLEEPS}")
            run.wait(f"b | new {number}", 60)
            goes_on(run, "a")
        assert list(jobs(cluster, shop)) == [job], "the Job is the same"
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_the_last_one_to_start_again_finds_the_job(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Between two runs nobody has it."""
    services = {"a": plugged("a", "print('ran')", restart="always"), "b": plugged("b", "print('done')")}
    with verb(["up", "-f", str(write(tmp_path, shop, services))]) as run:
        run.wait("b | sidestage: ended with 0", 60)
        run.wait("starts again in 2 s", 60)
        assert len(jobs(cluster, shop)) == 1
        eventually("a third run", lambda: sum(line == "a | ran\n" for line in run.out) > 2)
        (job,) = jobs(cluster, shop).values()
        assert not job["metadata"]["name"].endswith("-2")
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_one_that_fails_and_a_target_that_goes_disturb_nobody(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    cluster.kubectl("apply", "-n", shop, "-f", "-", stdin=json.dumps(pod("short", "node1")))
    cluster.kubectl("wait", "-n", shop, "--for=condition=Ready", "pod/short", "--timeout=55s")
    services = {
        "a": talks("a"), "crashes": plugged("b", "import time; print('up'); time.sleep(1); 1/0", restart="on-failure"),
        "goes": plugged("short", SLEEPS, restart="on-failure"), "typo": plugged("nobody", SLEEPS, restart="on-failure"),
    }  # fmt: skip
    with verb(["up", "-f", str(write(tmp_path, shop, services))]) as run:
        run.wait("goes    | begun", 60)
        run.wait("a       | round", 60)
        run.wait("typo    | sidestage: there is no pod 'nobody'", 60)
        run.wait("crashes | sidestage: ended with 1, starts again", 60)
        assert len(jobs(cluster, shop)) == 1
        cluster.kubectl("delete", "pod", "-n", shop, "short", "--grace-period=0", "--force", timeout=90)
        eventually("a word of its end", lambda: any("goes" in line and "ended with" in line for line in run.err), 60)
        goes_on(run, "a")
        eventually("the next run", lambda: sum(line == "crashes | up\n" for line in run.out) > 1)
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_the_death_of_one_agent_is_that_services_own(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    with verb(["up", "-f", str(write(tmp_path, shop, {"a": talks("a"), "b": plugged("b", SLEEPS)}))]) as run:
        run.wait("a | round", 60)
        run.wait("b | begun", 60)
        (held,) = cluster.get("pods", "-n", shop, "-l", "sidestage.dev/session")["items"]
        session = next(line for line in once(["status", "--output", "json"]).out.split('"session": "') if "pod/b" in line)
        cluster.kill(held, session.partition('"')[0])
        run.wait("another agent is being started", 60)
        run.wait("plugged in again", 60)
        goes_on(run, "a")
        assert len(jobs(cluster, shop)) == 1
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_the_death_of_the_pod_gives_all_another(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    with verb(["up", "-f", str(write(tmp_path, shop, {"a": plugged("a", SLEEPS), "b": plugged("b", SLEEPS)}))]) as run:
        for name in "ab":
            run.wait(f"{name} | begun", 60)
        (held,) = cluster.get("pods", "-n", shop, "-l", "sidestage.dev/session")["items"]
        cluster.kill(held)
        for name in "ab":
            says(run, name, "plugged in again")
        eventually("one Job", lambda: len(jobs(cluster, shop)) == 1)
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


def test_without_the_pool_services_go_on_and_the_next_has_its_own(
    cluster: Cluster, shop: str, tmp_path: Path, no_process_left: str
) -> None:  # fmt: skip
    code = tmp_path / "app" / "main.py"
    code.parent.mkdir()
    code.write_text(SLEEPS)
    app = {"target": "pod/b", "command": ["python3", "-u", "main.py"], "dir": "app", "watch": ["*.py"]}
    with verb(["up", "-f", str(write(tmp_path, shop, {"a": talks("a"), "b": app})), "--watch"]) as run:
        run.wait("b | begun", 60)
        run.wait("a | round", 60)
        os.kill(pool_of(no_process_left), signal.SIGKILL)
        goes_on(run, "a")
        code.write_text(f"print('new')\n{SLEEPS}")
        run.wait("b | new", 60)
        run.wait("b | sidestage: no agent is shared with other services", 5)
        goes_on(run, "a")
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 45)


def pool_of(token: str) -> int:
    """Whoever of the test's processes listens by the pool's name (proc_pid_net(5))."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    inodes = {f"socket:[{line.split()[6]}]" for line in lines if f"@sidestage-up-{os.getuid()}-" in line}
    (pid,) = [
        pid for pid in marked(token)
        if any(os.path.islink(fd) and os.readlink(fd) in inodes for fd in Path(f"/proc/{pid}/fd").iterdir())
    ]  # fmt: skip
    return pid


def test_a_refusal_is_told_to_each_and_nothing_is_left(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "quota", "none", "-n", shop, "--hard=count/jobs.batch=0")
    try:
        services = {name: plugged(name, SLEEPS, restart="on-failure") for name in "ab"}
        with verb(["up", "-f", str(write(tmp_path, shop, services))]) as run:
            for name in "ab":
                says(run, name, "exceeded quota")
            assert run.end() == 130
    finally:
        cluster.kubectl("delete", "quota", "none", "-n", shop)
    assert nothing(cluster, shop)


def test_agents_beside_replicas_are_in_the_same_jobs(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """Two workloads of two pods on two nodes, four agents, two Jobs."""
    for name in ("twins", "pair"):
        container = {"name": "app", "image": "localhost/static:1", "imagePullPolicy": "Never"}
        spread = {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": name}},
        }  # fmt: skip
        spec = {"terminationGracePeriodSeconds": 0, "topologySpreadConstraints": [spread], "containers": [container]}
        deployment = {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            },
        }  # fmt: skip
        cluster.kubectl("apply", "-n", shop, "-f", "-", stdin=json.dumps(deployment))
        cluster.kubectl("rollout", "status", "-n", shop, f"deployment/{name}", "--timeout=55s")
    services = {name: {"target": f"deployment/{name}", "command": ["python3", "-u", "-c", SERVER]} for name in ("twins", "pair")}
    with verb(["up", "-f", str(write(tmp_path, shop, services))]) as run:
        for name in services:
            says(run, name, "are seen as well")
        assert len(jobs(cluster, shop)) == 2
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)


@pytest.mark.parametrize("whole", [False, True], ids=["up", "all"])
def test_killed_nothing_is_left(cluster: Cluster, shop: str, tmp_path: Path, no_process_left: str, whole: bool) -> None:
    """`up` itself, or every process of it at once, so that nobody is left who could clean up."""
    with verb(["up", "-f", str(write(tmp_path, shop, {"a": talks("a"), "b": plugged("b", SERVER)}))]) as run:
        run.wait("a | round", 60)
        run.wait("b | listening", 60)
        assert len(jobs(cluster, shop)) == 1
        if whole:
            everything = marked(no_process_left)
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in everything:
                    os.kill(pid, number)
        assert run.end(signal.SIGKILL) == -signal.SIGKILL
        eventually("the end of the agents", lambda: nothing(cluster, shop), 45)


def test_ctrl_c_while_it_starts(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    with verb(["up", "-f", str(write(tmp_path, shop, {"a": plugged("a", SLEEPS), "b": plugged("b", SLEEPS)}))]) as run:
        eventually("its Job", lambda: jobs(cluster, shop))
        run.end()
        eventually("the end of the agents", lambda: nothing(cluster, shop), 10)
    time.sleep(1)
    assert nothing(cluster, shop), "nor comes one later"


def test_ways_of_their_own_are_shared_by_nobody(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    """In the target's pod an agent is of that pod alone; both of the others share theirs."""
    inside = {"agent": {"mode": "in-container"}}
    services = {"inside": plugged("a", SLEEPS, config=inside), "a": plugged("a", SLEEPS), "b": plugged("b", SLEEPS)}
    with verb(["up", "-f", str(write(tmp_path, shop, services))]) as run:
        for name in services:
            run.wait(f"{name:6} | begun", 60)
        assert len(jobs(cluster, shop)) == 1
        assert run.end() == 130
    eventually("the end of the agents", lambda: nothing(cluster, shop), 10)
