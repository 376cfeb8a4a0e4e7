"""`exec` by users who may do no more than they must: the Role that sidestage prints suffices in each mode; log-ins that ask."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidestage.cluster import permissions
from sidestage.cluster.api import connect
from tests.cluster.plug import command, environ, plugged
from tests.testkit.cluster import Cluster, eventually

PRINT = ("sh", "-c", "echo $GREETING")


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> Iterator[str]:
    cluster.apply(namespace, "shop", "locked")
    yield namespace
    assert cluster.get("jobs", "-n", namespace)["items"] == []


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
