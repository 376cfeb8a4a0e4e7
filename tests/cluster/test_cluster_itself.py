"""The test cluster leaves nothing on the machine, whatever part of it was killed; and what it claims to be, it is.

The machine is one of namespaces: network, mounts and processes that only this test has, so that all of them can be compared.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.testkit.cluster import NODES, SCRIPTS, eventually

NUMBER = "7"  # its own cluster beside the one that the other tests share
STATE = f"/var/lib/sidestage-cluster{NUMBER}"
PODS = """
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "on-NODE"}, "spec": {"nodeName": "NODE",
"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "localhost/static:1", "imagePullPolicy": "Never"}]}}
"""
SNAPSHOT = """
for p in /proc/[0-9]*; do
    read -r pid name _ parent _ <$p/stat && [ $pid != $$ ] && [ $parent != $$ ] && echo "process $pid $name"
done
cut -d' ' -f3-6,9- /proc/self/mountinfo | sed 's/^/mount /'
ip -o link | cut -d: -f2- | sed 's/^/link /'
ip -o addr | cut -d' ' -f2-7 | sed 's/^/address /'
ip route show table all | sed 's/^/route /'
nft list ruleset | sed 's/^/rule /'
echo "forwarding $(cat /proc/sys/net/ipv4/ip_forward)"
find /sys/fs/cgroup -type d \\( -path '*sidestage-cluster7*' -o -name 'kubepods*' \\) -not -path '*/sidestage-cluster/*' |
    sed 's/^/cgroup /'
ls -d /run/* /run/netns/* /var/lib/* /var/lib/{cni,kubelet}/* /var/log/* /etc/cni /opt/* /usr/libexec/kubernetes 2>&- |
    sed 's/^/file /'
"""


class Machine:
    def __init__(self, pid: int) -> None:
        self.enter = ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--"]

    def start(self, *argv: str) -> subprocess.Popen[str]:
        env = {**os.environ, "SIDESTAGE_CLUSTER": NUMBER}
        return subprocess.Popen([*self.enter, *argv], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def run(self, *argv: str) -> str:
        process = self.start(*argv)
        out, _ = process.communicate(timeout=150)
        assert process.returncode == 0, argv
        return out

    def script(self, name: str, *args: str) -> str:
        return self.run("bash", str(SCRIPTS / f"{name}.sh"), *args)

    def snapshot(self) -> set[str]:
        return set(self.run("bash", "-c", SNAPSHOT).splitlines())


@pytest.fixture
def machine(built: None) -> Iterator[Machine]:
    init = subprocess.Popen(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
         "bash", "-c", "ip link set lo up; sleep inf & echo; while :; do wait; done"], stdout=subprocess.PIPE,
    )  # fmt: skip
    assert init.stdout is not None
    assert init.stdout.readline() == b"\n"
    child = subprocess.run(["pgrep", "-P", str(init.pid)], capture_output=True, text=True, check=True).stdout.strip()
    made = Machine(int(child))
    try:
        yield made
    finally:
        with contextlib.suppress(AssertionError):
            made.script("down")
        init.kill()
        init.wait()
        init.stdout.close()


def start_pods(machine: Machine) -> None:
    for node in NODES:
        pod = PODS.replace("NODE", node)
        machine.run("bash", "-c", f"echo '{pod}' | bash {SCRIPTS}/inside.sh kubectl apply -f -")
    machine.script("inside", "kubectl", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")


@pytest.mark.timeout(420, func_only=True)  # two clusters come up, one after the other
def test_nothing_is_left_after_down_nor_after_any_part_was_killed(machine: Machine) -> None:
    before = machine.snapshot()
    assert {line.split()[0] for line in before} >= {"process", "mount", "link", "route", "forwarding", "file"}
    machine.script("up")
    start_pods(machine)
    during = machine.snapshot()
    assert [line for line in during - before if line.startswith("link")] != []
    assert [line for line in during - before if line.startswith("cgroup")] != []
    assert not [line for line in during - before if line.startswith(("rule", "mount", "forwarding"))], "more than the one link"

    for node, part in (("1", "containerd-shim"), ("1", "containerd"), ("2", "kubelet"), ("2", "kube-proxy"), ("1", "etcd")):
        machine.script("inside", "enter", node, "bash", "-c", f"kill -9 $(pgrep -of {part})")
    machine.script("inside", "enter", "1", "true")  # a node outlives its daemons
    for state in ("node1", "node2"):
        machine.run("bash", "-c", f"kill -9 $(cat {STATE}/{state}/init)")

    def dead() -> bool:
        left = machine.snapshot() - before
        return not [line for line in left if line.startswith(("process", "link", "address", "route", "rule", "mount"))]

    eventually("the end of all processes, and of the link", dead)
    machine.script("up")  # finds a dead cluster's remains, and starts anew
    start_pods(machine)
    machine.script("down")
    assert machine.snapshot() == before


def test_nothing_is_left_of_a_start_that_was_cut_short(machine: Machine) -> None:
    before = machine.snapshot()
    up = machine.start("bash", str(SCRIPTS / "up.sh"))
    eventually("the second node", lambda: machine.run("bash", "-c", f"cat {STATE}/node2/init 2>&- || true"))
    machine.run("bash", "-c", "kill -9 $(pgrep -f 'up.sh$')")
    up.communicate(timeout=10)
    assert machine.snapshot() != before
    machine.script("down")
    assert machine.snapshot() == before
