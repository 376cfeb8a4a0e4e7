"""`exec` by users who may do no more than they must: the Role that sidestage prints suffices in each mode; log-ins that ask."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidestage.cluster import permissions
from sidestage.cluster.connect import connect
from tests.cluster.plug import command, environ, plugged
from tests.testkit.cluster import Cluster, eventually

PRINT = ("sh", "-c", "echo $GREETING")


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> Iterator[str]:
    cluster.apply(namespace, "shop", "locked")
    yield namespace
    eventually("the end of all Jobs", lambda: cluster.get("jobs", "-n", namespace)["items"] == [], 60)


def as_user(cluster: Cluster, folder: Path, name: str, **user: Any) -> str:
    tree = yaml.safe_load(cluster.kubeconfig.read_text())
    for each in tree["users"]:
        each["user"] = user or {**each["user"], "as": name, "as-groups": ["system:authenticated"]}
    file = folder / "config"
    file.write_text(yaml.safe_dump(tree))
    return str(file)


def allow(cluster: Cluster, file: str, namespace: str, name: str, kind: str, mode: str) -> None:
    wanted = permissions.needs(kind, mode, namespace)
    role = permissions.role(wanted, {"kind": "User", "name": name}).replace("name: sidestage", f"name: {name}")
    cluster.kubectl("apply", "-f", "-", stdin=role)
    with connect(file, namespace=namespace) as api:
        eventually("the rights", lambda: permissions.lacking(api, wanted) == [])


@pytest.mark.parametrize(
    "mode, flags, target, greeting",
    [
        ("job", (), "deployment/orders", "hello from orders"),
        ("job", (), "service/orders", "hello from orders"),
        ("ephemeral", ("-e",), "deployment/orders", "hello from orders"),
        ("in-container", ("--in-container",), "deployment/locked", "hello from locked"),
        ("in-container", ("--in-container",), "label/app=locked", "hello from locked"),
    ],
)
def test_the_role_suffices(
    mode: str, flags: tuple[str, ...], target: str, greeting: str, cluster: Cluster, shop: str, tmp_path: Path
) -> None:
    user = f"{mode}-{target.partition('/')[0]}"
    file = as_user(cluster, tmp_path, user)
    allow(cluster, file, shop, user, target.partition("/")[0], mode)
    done = plugged(cluster, shop, target, PRINT, "--kubeconfig", file, *flags)
    assert (done.code, done.out.strip()) == (0, greeting), done.err


def test_without_rights_the_role_is_printed(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    file = as_user(cluster, tmp_path, "nobody")
    done = plugged(cluster, shop, "deployment/orders", PRINT, "--kubeconfig", file)
    assert done.code == 1
    assert f"you may not get deployments in namespace '{shop}'; nor " in done.err
    role = done.err[done.err.index("    apiVersion") :]
    kinds = [each["kind"] for each in yaml.safe_load_all("\n".join(line.removeprefix("    ") for line in role.splitlines()))]
    assert kinds == ["Role", "RoleBinding"]


PLUGIN = """#!/bin/sh
printf 'Password: ' >&2
read -r answer
[ "$answer" = sesame ] || {{ echo 'wrong password' >&2; exit 1; }}
cat {credential}
"""


@pytest.mark.parametrize("answer, said", [("sesame", "hello from orders"), ("wrong", "exit status 1")])
def test_a_plugin_asks_on_the_terminal(answer: str, said: str, cluster: Cluster, shop: str, tmp_path: Path) -> None:
    admin = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]
    pem = {name: base64.b64decode(admin[f"client-{name}-data"]).decode() for name in ("certificate", "key")}
    status = {"clientCertificateData": pem["certificate"], "clientKeyData": pem["key"]}
    credential = {"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status}
    (tmp_path / "credential").write_text(json.dumps(credential))
    plugin = tmp_path / "plugin"
    plugin.write_text(PLUGIN.format(credential=tmp_path / "credential"))
    plugin.chmod(stat.S_IRWXU)
    config = {"command": str(plugin), "apiVersion": credential["apiVersion"], "interactiveMode": "Always"}
    file = as_user(cluster, tmp_path, "", exec=config)
    argv = command(shop, "deployment/orders", PRINT, "--kubeconfig", file, "--output", "plain")
    pid, fd = pty.fork()
    if not pid:
        os.execvpe(argv[0], argv, environ(cluster))
    seen, asked, ends = "", False, time.monotonic() + 90
    try:
        while said not in seen:
            assert time.monotonic() < ends, seen
            if select.select([fd], [], [], 1)[0]:
                try:
                    seen += os.read(fd, 65536).decode(errors="replace")
                except OSError:
                    break
            if "Password: " in seen and not asked:
                asked = True
                os.write(fd, f"{answer}\n".encode())
        assert said in seen
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (0 if answer == "sesame" else 1)
    finally:
        os.close(fd)


# --- kubectl logs in


WRAPPER = """#!/bin/sh
export KUBECONFIG={kubeconfig}
exec {kubectl} "$@"
"""


def oddly(cluster: Cluster, folder: Path, knows: bool) -> tuple[str, dict[str, str]]:
    """A kubeconfig with a log-in that nobody has, but for the `kubectl` of the environment if it `knows`."""
    file = as_user(cluster, folder, "", **{"auth-provider": {"name": "odd"}})
    (folder / "bin").mkdir()
    program = folder / "bin" / "kubectl"
    kubeconfig = cluster.kubeconfig if knows else "$KUBECONFIG"
    program.write_text(WRAPPER.format(kubeconfig=kubeconfig, kubectl=cluster.program))
    program.chmod(stat.S_IRWXU)
    env = environ(cluster)
    return file, {**env, "PATH": f"{folder}/bin:{env['PATH']}", "XDG_RUNTIME_DIR": str(folder)}


def proxies(folder: Path) -> list[str]:
    """Command lines of processes that have to do with `folder`."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"--unix-socket={folder}" in words:
            found.append(words)
    return found


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_where_only_kubectl_can_log_in_all_goes_through_it(end: str, cluster: Cluster, shop: str, tmp_path: Path) -> None:
    file, env = oddly(cluster, tmp_path, knows=True)
    script = "echo $GREETING" if end == "exit" else "echo $GREETING; exec sleep 60"
    argv = command(shop, "deployment/orders", ("sh", "-c", script), "--kubeconfig", file)
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline() == "hello from orders\n"
        if end == "kill":
            assert proxies(tmp_path) != []
            for child in children(process.pid):
                os.kill(child, 9)
            process.wait(30)
        said = process.stderr.read()
        process.wait(30)
    assert "kubectl logs in: " in said
    assert "'odd'" in said
    eventually("the end of kubectl", lambda: not proxies(tmp_path))
    eventually("the end of its socket", lambda: not list(tmp_path.glob("sidestage-*")))


def children(pid: int) -> list[int]:
    """All of sidestage's own below `pid`, itself first."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(sys.executable)
    return [*([pid] if own else []), *(each for child in below for each in children(int(child)))]


def test_where_kubectl_can_not_either_both_are_told(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    file, env = oddly(cluster, tmp_path, knows=False)
    argv = command(shop, "deployment/orders", ("/bin/true",), "--kubeconfig", file)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "auth-provider 'odd'" in done.stderr
    assert "kubectl can't log in either: " in done.stderr
    env["PATH"] = "/nowhere"
    done = subprocess.run([sys.executable, *argv[1:]], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "kubectl is not on PATH" in done.stderr
