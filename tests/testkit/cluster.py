"""The Kubernetes of `./run cluster` for tests: kubectl, objects, and commands inside its nodes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.testkit.target import ROOT

SCRIPTS = ROOT / "tests" / "cluster"
WORKLOADS = SCRIPTS / "workloads"
NODES = ("node1", "node2")
T = TypeVar("T")


def script(name: str, *args: str, capture: bool = True) -> str:
    """A script of tests/cluster. SIDESTAGE_CLUSTER=NUMBER in the environment gives a run of the tests a cluster of its own."""
    command = ["bash", str(SCRIPTS / f"{name}.sh"), *args]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE if capture else None, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"tests/cluster/{name}.sh {' '.join(args)}: exit status {done.returncode}"
    return done.stdout or ""


@dataclass(frozen=True, slots=True)
class Cluster:
    program: Path  # kubectl
    kubeconfig: Path
    state: Path

    @classmethod
    def found(cls) -> Cluster:
        return cls(*map(Path, script("inside", "paths").split()))

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 60) -> str:
        done = subprocess.run(
            [self.program, *args], env=self.env, input=stdin or "", text=True, capture_output=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr or done.stdout}"
        return done.stdout

    def get(self, *args: str) -> Any:
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    @contextlib.contextmanager
    def namespace(self, name: str, *labels: str) -> Iterator[str]:
        self.kubectl("create", "namespace", name)
        try:
            if labels:
                self.kubectl("label", "namespace", name, *labels)
            eventually("the service account", lambda: self.get("serviceaccounts", "-n", name)["items"])
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def apply(self, namespace: str, *workloads: str) -> None:
        """Files of workloads/, by name; waits until their deployments and pods are ready."""
        for name in workloads:
            self.kubectl("apply", "-n", namespace, "-f", str(WORKLOADS / f"{name}.yaml"))
        for deployment in self.get("deployments", "-n", namespace)["items"]:
            self.kubectl("rollout", "status", "-n", namespace, f"deployment/{deployment['metadata']['name']}", "--timeout=55s")
        if self.get("pods", "-n", namespace)["items"]:
            self.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pods", "--all", "--timeout=55s")

    def pods(self, namespace: str, selector: str) -> list[Any]:
        """Running pods that are not on their way out, by name."""
        found = self.get("pods", "-n", namespace, "-l", selector, "--field-selector=status.phase=Running")["items"]
        return sorted(
            (pod for pod in found if "deletionTimestamp" not in pod["metadata"]), key=lambda pod: str(pod["metadata"]["name"])
        )

    def kill(self, pod: Any, pattern: str = "") -> None:
        """SIGKILL from the node to the pod's processes whose command line matches; pid 1 of a container can't be killed inside."""
        code = f"""
            for pid in $(grep -l {pod["metadata"]["uid"]} /proc/[0-9]*/cgroup 2>&- | cut -d/ -f3); do
                tr '\\0' ' ' <"/proc/$pid/cmdline" | grep -qe '{pattern}' && kill -9 "$pid"
            done; true"""
        self.enter(pod["spec"]["nodeName"], "bash", "-c", code)

    def enter(self, node: str, *argv: str, timeout: float = 60) -> str:
        """A command in all namespaces of a node but with this machine's files."""
        init = (self.state / node / "init").read_text().strip()
        command = ["nsenter", "--target", init, "--all", "--", *argv]
        return subprocess.run(command, check=True, text=True, capture_output=True, timeout=timeout).stdout


def eventually(what: str, probe: Callable[[], T | None], seconds: float = 30) -> T:
    """The first true answer of `probe`; fails the test when there is none."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return answer
