"""Kubeconfigs as they are met: in several files, through a proxy, with tokens that are changed or renewed; on the real API server.

kubectl is asked the same wherever it can be.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidestage.cluster import auth, permissions
from sidestage.cluster.api import Api, ApiError
from sidestage.cluster.connect import connect
from tests.cluster.plug import IMAGE, environ, plugged
from tests.cluster.test_access import written
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.target import SIDESTAGE, run
from tests.testkit.toxic import Relay

PRINT = ["sh", "-c", "echo $GREETING"]
HELLO = "hello from orders\n"


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    cluster.kubectl("create", "serviceaccount", "-n", namespace, "robot")
    cluster.kubectl("create", "rolebinding", "-n", namespace, "robot", "--clusterrole=admin", f"--serviceaccount={namespace}:robot")
    return namespace


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> dict[str, Any]:
    return dict(yaml.safe_load(cluster.kubeconfig.read_text()))


def fresh(cluster: Cluster, shop: str) -> str:
    return cluster.kubectl("create", "token", "-n", shop, "robot").strip()


def robot(api: Api, shop: str) -> bool:
    return permissions.who(api) == {"kind": "ServiceAccount", "name": "robot", "namespace": shop}


def kubectl_is_robot(cluster: Cluster, shop: str, kubeconfig: str) -> bool:
    done = subprocess.run(
        [cluster.program, "auth", "whoami", "-o", "json"], env={**os.environ, "KUBECONFIG": kubeconfig}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    return f"system:serviceaccount:{shop}:robot" in done.stdout + done.stderr


def test_a_list_of_files_is_merged(cluster: Cluster, admin: dict[str, Any], shop: str, tmp_path: Path) -> None:
    """Cluster, user and context in a file each, a file that isn't there, and a context and namespace that are chosen."""
    (tmp_path / "token").write_text(fresh(cluster, shop))
    parts: dict[str, dict[str, Any]] = {
        "users": {"users": [{"name": "r", "user": {"tokenFile": "token"}}], "current-context": "wrong"},
        "clusters": {"clusters": [{"name": "c", "cluster": admin["clusters"][0]["cluster"]}], "current-context": "late"},
        "contexts": {"contexts": [
            {"name": "wrong", "context": {"cluster": "nowhere", "user": "r"}},
            {"name": "right", "context": {"cluster": "c", "user": "r", "namespace": shop}},
        ]},
    }  # fmt: skip
    for name, part in parts.items():
        (tmp_path / name).write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **part}))
    files = os.pathsep.join(str(tmp_path / name) for name in ("users", "absent", "clusters", "contexts"))
    env = {**environ(cluster), "KUBECONFIG": files}
    command = [*SIDESTAGE, "exec", "--context", "right", "-t", "deployment/orders", "-i", IMAGE, "--", *PRINT]
    assert run(command, 90, env).out == HELLO
    theirs = [str(cluster.program), "--context", "right", "get", "deployment", "orders", "-o", "name"]
    assert subprocess.run(theirs, env=env, capture_output=True, text=True, check=True).stdout == "deployment.apps/orders\n"


class Proxy:
    """An HTTP proxy that knows CONNECT; `asked` has what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                head = b""
                while b"\r\n\r\n" not in head and (part := near.recv(1)):
                    head += part
                target = head.split()[1].decode() if head.startswith(b"CONNECT ") else ""
                self.asked.append(target)
                host, _, port = target.rpartition(":")
                far = socket.create_connection((host, int(port)), 10)
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                Relay(near, far)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


def test_all_of_a_session_goes_through_a_proxy(
    cluster: Cluster, admin: dict[str, Any], shop: str, proxy: Proxy, tmp_path: Path
) -> None:
    """Requests, watches, exec and port-forward; a whole file comes over the latter."""
    tree = json.loads(json.dumps(admin))
    server = tree["clusters"][0]["cluster"]
    server["proxy-url"] = proxy.url
    file = written(tmp_path, tree, tree["users"][0]["user"], shop)
    shell = ["sh", "-c", "echo $GREETING; sleep 1; curl -sS -m 9 http://catalog/x"]
    done = plugged(cluster, shop, "deployment/orders", shell, "--kubeconfig", file)
    assert done.out.startswith(HELLO), done
    assert '"path":"/x"' in done.out.replace(" ", ""), done
    assert "bulk data goes over" not in done.err
    ours, address = len(proxy.asked), server["server"].removeprefix("https://")
    assert ours >= 4
    assert set(proxy.asked) == {address}
    done_too = subprocess.run([cluster.program, "--kubeconfig", file, "get", "--raw", "/version"], capture_output=True, check=True)
    assert b"gitVersion" in done_too.stdout
    assert len(proxy.asked) > ours, "kubectl goes through it as well"


def test_a_token_file_that_is_changed_is_read_again(
    cluster: Cluster, admin: dict[str, Any], shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kubelet does with a pod's own: nobody is told, and what was in it before is refused."""
    file = written(tmp_path, admin, {"tokenFile": "token"})
    (tmp_path / "token").write_text("stale")
    with connect(file) as api:
        with pytest.raises(ApiError) as caught:
            api.request("GET", f"/api/v1/namespaces/{shop}/pods")
        assert caught.value.status == 401
        (tmp_path / "token").write_text(fresh(cluster, shop))
        monkeypatch.setattr(auth, "TOKEN_FILE_AGE", 0)
        assert robot(api, shop)
    assert kubectl_is_robot(cluster, shop, file)


def test_a_plugin_is_asked_again_for_what_the_server_refuses(
    cluster: Cluster, admin: dict[str, Any], shop: str, tmp_path: Path
) -> None:
    """Its first token is one that was valid once."""
    good, counter = tmp_path / "good", tmp_path / "counter"
    good.write_text(fresh(cluster, shop))
    program = tmp_path / "plugin"
    program.write_text(f"""#!/bin/sh
echo x >>{counter}
[ $(wc -l <{counter}) -gt 1 ] && token=$(cat {good}) || token=revoked
echo '{{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {{"token": "'$token'"}}}}'
""")
    program.chmod(0o755)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    file = written(tmp_path, admin, {"exec": plugin})
    with connect(file) as api:
        assert robot(api, shop)
    assert counter.read_text() == "x\nx\n"


def test_an_id_token_of_oidc_is_shown(cluster: Cluster, admin: dict[str, Any], shop: str, tmp_path: Path) -> None:
    """A valid one, of which its issuer isn't asked; the server takes it for what it is, a token of a service account."""
    provider = {"id-token": fresh(cluster, shop), "idp-issuer-url": "https://127.0.0.1:1", "client-id": "x"}
    file = written(tmp_path, admin, {"auth-provider": {"name": "oidc", "config": provider}}, shop)
    with connect(file) as api:
        assert robot(api, shop)
    assert kubectl_is_robot(cluster, shop, file)
    assert plugged(cluster, shop, "deployment/orders", PRINT, "--kubeconfig", file).out == HELLO


@pytest.mark.parametrize(
    "target, who",
    [
        ({"deployment": "orders"}, "orders-"),
        ({"pod": "client"}, "client"),
        ({"statefulset": "ledger", "container": "ledger"}, "ledger-0"),
        ({"service": "orders"}, "orders-"),
        ("deployment/catalog", "catalog-"),
        ({"label": "app=client"}, "client"),
    ],
)
def test_a_target_of_the_configuration(target: object, who: str, cluster: Cluster, shop: str, tmp_path: Path) -> None:
    config = tmp_path / "sidestage.yaml"
    config.write_text(yaml.safe_dump({"target": {"path": target, "namespace": shop}, "agent": {"image": IMAGE}}))
    done = run([*SIDESTAGE, "exec", "-f", str(config), "--", "uname", "-n"], 90, environ(cluster))
    assert re.fullmatch(rf"{who}.*\n", done.out), done


def test_a_shell_is_offered_what_is_there(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    env = {**environ(cluster), "XDG_CACHE_HOME": str(tmp_path)}

    def offered(text: str) -> set[str]:
        command = [sys.executable, "-m", "sidestage", "__complete", text]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}

    eventually("names", lambda: {"deployment/orders", "deployment/catalog"} <= offered(f"sidestage exec -n {shop} -t deployment/"))
    eventually("pods", lambda: "pod/client" in offered(f"sidestage exec -n {shop} -t pod/cl"))
    eventually("namespaces", lambda: shop in offered(f"sidestage exec -n {shop[:-2]}"))
    assert yaml.safe_load(cluster.kubeconfig.read_text())["current-context"] in offered("sidestage exec --context ")
