"""A kubectl that runs elsewhere, as on a bastion: in mounts of its own, so that no socket of its proxy is ever seen here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.cluster import programs
from tests.cluster.plug import IMAGE, environ
from tests.cluster.test_programs import sees_the_pod
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.target import SIDESTAGE, Result, run

# With a folder of the same name there, or with none: kubectl proxy starts, or fails.
WRAPPER = """#!/bin/sh
folder=; for word; do case $word in --unix-socket=*) folder=$(dirname "${word#*=}") ;; esac; done
export folder KUBECONFIG=%(kubeconfig)s
exec unshare --mount sh -c 'mount -t tmpfs elsewhere %(run)s; %(there)s exec %(kubectl)s "$@"' sh "$@"
"""


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


class Bastion:
    """Its kubectl knows the cluster; here is no kubeconfig at all."""

    def __init__(self, cluster: Cluster, folder: Path, there: str = "") -> None:
        self._run = folder / "run"
        self._run.mkdir()
        (folder / "bin").mkdir()
        program = folder / "bin" / "kubectl"
        values = {"kubeconfig": cluster.kubeconfig, "run": self._run, "kubectl": cluster.program, "there": there}
        program.write_text(WRAPPER % values)
        program.chmod(0o755)
        self._config = folder / "sidestage.yaml"
        self._config.write_text(yaml.safe_dump({"use_kubectl": True, "agent": {"image": IMAGE}}))
        env = {**environ(cluster), "XDG_RUNTIME_DIR": str(self._run), "KUBECONFIG": "/nowhere/config"}
        self.env = {**env, "PATH": f"{folder}/bin:{env['PATH']}"}

    def exec(self, shop: str, target: str, argv: Sequence[str], *flags: str) -> list[str]:
        return [*SIDESTAGE, "exec", "-f", str(self._config), "-n", shop, "-t", target, *flags, "--", *argv]

    def plugged(self, shop: str, target: str, argv: Sequence[str], *flags: str) -> Result:
        return run(self.exec(shop, target, argv, *flags), 120, self.env)

    def gone(self) -> bool:
        """No process has a mount of ours any more, and no file is left."""
        mounts = (Path(f"/proc/{pid}/mountinfo") for pid in filter(str.isdecimal, os.listdir("/proc")))
        return not any(str(self._run) in text(each) for each in mounts) and not list(self._run.iterdir())


def text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("there", ["", "mkdir -p $folder;"])
def test_a_program_sees_the_pod_by_commands(there: str, cluster: Cluster, shop: str, tmp_path: Path) -> None:
    bastion = Bastion(cluster, tmp_path, there)
    found = bastion.plugged(shop, "deployment/orders", ["python3", "-c", programs.PYTHON, shop])
    sees_the_pod(cluster, shop, found)
    assert "each request is a `kubectl` of its own" in found.err
    assert ("serves on another machine" in found.err) is bool(there), found.err
    eventually("the end of it all", lambda: bastion.gone() and not cluster.get("jobs", "-n", shop)["items"])


def test_in_the_targets_own_container(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    found = Bastion(cluster, tmp_path).plugged(shop, "pod/client", ["uname", "-n"], "--in-container")
    assert found.out == "client\n", found


@pytest.mark.parametrize(
    "target, flags, said",
    [
        ("deployment/odrers", (), ["there is no deployment 'odrers'", "deployment/orders"]),
        ("deployment/orders", ("--agent-namespace", "nowhere"), ["nowhere"]),
        ("deployment/catalog", ("--in-container",), ["the target's container has no Python"]),
        ("deployment/orders", ("-e",), ["kubectl has no command that passes this request on"]),
    ],
)
def test_what_is_refused_is_said(
    target: str, flags: tuple[str, ...], said: list[str], cluster: Cluster, shop: str, tmp_path: Path
) -> None:
    bastion = Bastion(cluster, tmp_path)
    found = bastion.plugged(shop, target, ["true"], *flags)
    assert found.code == 1
    assert all(word in found.err for word in said), found.err
    eventually("the end of it all", bastion.gone)


def test_nothing_is_left_of_one_that_was_killed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    bastion = Bastion(cluster, tmp_path)
    argv = bastion.exec(shop, "pod/client", ["sh", "-c", "uname -n; exec sleep 100"])
    with subprocess.Popen(
        argv, env=bastion.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "client\n"
        process.send_signal(signal.SIGKILL)
    eventually("the end of it all", lambda: bastion.gone() and not cluster.get("jobs", "-n", shop)["items"], 60)
