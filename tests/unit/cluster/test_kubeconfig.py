"""Kubeconfigs mean what they mean to kubectl: merging, relative paths, contexts; and what is wrong names its file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sidestage.cluster.errors import ClusterError
from sidestage.cluster.kubeconfig import Access, in_cluster, load

ONE = """
apiVersion: v1
kind: Config
current-context: dev
contexts:
- {name: dev, context: {cluster: c1, user: u1, namespace: shop}}
- {name: other, context: {cluster: c2, user: u1}}
- {name: no, context: {cluster: c2, user: ""}}
- {name: lost, context: {cluster: nowhere, user: u1}}
clusters:
- {name: c1, cluster: {server: "https://one.example:6443/", certificate-authority: pki/ca.crt}}
- {name: c2, cluster: {server: two.example, insecure-skip-tls-verify: true, tls-server-name: api, proxy-url: "socks5://p:1"}}
users:
- {name: u1, user: {client-certificate: /abs/a.crt, client-key: a.key, tokenFile: token}}
preferences: {}
"""


@pytest.fixture
def one(tmp_path: Path) -> str:
    (tmp_path / "one").write_text(ONE)
    return str(tmp_path / "one")


def environ(*files: str, **more: str) -> dict[str, str]:
    return {"KUBECONFIG": ":".join(files), **more}


def test_the_current_context(one: str, tmp_path: Path) -> None:
    found = load(environ=environ(one))
    assert (found.context, found.namespace) == ("dev", "shop")
    assert found.cluster.server == "https://one.example:6443"
    assert found.cluster.ca_file == str(tmp_path / "pki/ca.crt")
    assert found.user == {
        "client-certificate": "/abs/a.crt", "client-key": str(tmp_path / "a.key"), "tokenFile": str(tmp_path / "token"),
    }  # fmt: skip
    assert found.user_file == one


def test_another_context(one: str) -> None:
    found = load(context="other", environ=environ(one))
    assert (found.namespace, found.cluster.server) == ("default", "http://two.example")
    assert found.cluster.insecure
    assert (found.cluster.tls_server_name, found.cluster.proxy_url) == ("api", "socks5://p:1")
    assert load(context="other", namespace="mine", environ=environ(one)).namespace == "mine"


def test_a_name_that_yaml_takes_for_a_boolean_is_a_name(one: str) -> None:
    assert load(context="no", environ=environ(one)).user == {}


def test_the_first_file_to_name_a_thing_wins(one: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    two = tmp_path / "sub" / "two"
    two.write_text(json.dumps({
        "current-context": "late",
        "contexts": [
            {"name": "late", "context": {"cluster": "c3", "user": "u1", "namespace": "n"}},
            {"name": "dev", "context": {"cluster": "c3", "user": "u1"}},
        ],
        "clusters": [{"name": "c3", "cluster": {"server": "https://three", "certificate-authority": "ca"}}],
        "users": [{"name": "u1", "user": {"token": "loser"}}],
    }))  # fmt: skip
    both = environ(one, "", str(two), one, str(tmp_path / "missing"))
    assert load(environ=both).namespace == "shop"
    late = load(context="late", environ=both)
    assert late.cluster.ca_file == str(tmp_path / "sub" / "ca"), "relative to the file that it stands in"
    assert "token" not in late.user, "users of the first file serve contexts of the second"
    assert load(environ=environ(str(two), one)).context == "late"


def test_a_flag_replaces_the_variable(one: str, tmp_path: Path) -> None:
    assert load(one, environ=environ(str(tmp_path / "missing"))).context == "dev"


def test_home_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(ONE)
    assert load(environ={}).context == "dev"


def test_data_beats_the_file(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    tree = config({"server": "https://x", "certificate-authority-data": data, "certificate-authority": "ca"})
    assert loaded(tmp_path, tree).cluster.ca_data == b"PEM"
    assert loaded(tmp_path, tree).cluster.ca_file == ""


def config(server: Any, login: Any = None, **context: Any) -> dict[str, Any]:
    return {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **context}}],
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": login or {}}],
    }


def loaded(folder: Path, tree: Any) -> Access:
    (folder / "config").write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return load(str(folder / "config"), environ={})


@pytest.mark.parametrize(
    "tree, said",
    [
        ("a: [", ["config", "not YAML"]),
        ("- a", ["config", "not an object"]),
        ("", ["no Kubernetes context"]),
        ("contexts: null\nclusters: null\nusers: null\n", ["no Kubernetes context"]),
        ({"contexts": [{"name": "a"}, {"name": "b"}]}, ["no current context", "a, b"]),
        ({"current-context": "pord", "contexts": [{"name": "prod"}]}, ["'pord'", "did you mean 'prod'"]),
        (config({"server": ""}), ["no server", "'x'"]),
        (config({"server": "https://x", "certificate-authority-data": "%"}), ["certificate-authority-data", "base64"]),
        (config({"server": "x", "insecure-skip-tls-verify": True, "certificate-authority": "c"}), ["insecure", "remove one"]),
        (config({"server": "https://x"}, cluster=""), ["names no cluster"]),
        (config({"server": "https://x"}, user="nobody"), ["'nobody'", "not in"]),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_cure(tree: Any, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        loaded(tmp_path, tree)
    text = f"{caught.value.cause}\n{caught.value.cure}"
    assert all(part in text for part in said), text
    assert caught.value.cure


def test_only_files_of_the_variable_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no Kubernetes context"):
        load(environ=environ(str(tmp_path / "missing")))
    with pytest.raises(ClusterError, match="No such file"):
        load(str(tmp_path / "missing"), environ={})


def test_in_a_pod(tmp_path: Path) -> None:
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_cluster(inside, folder=str(tmp_path)) is None
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("shop\n")
    found = in_cluster(inside, folder=str(tmp_path))
    assert found is not None
    assert (found.cluster.server, found.namespace) == ("https://10.0.0.1:443", "shop")
    assert found.user == {"tokenFile": str(tmp_path / "token")}
    six = in_cluster({**inside, "KUBERNETES_SERVICE_HOST": "fd00::1"}, "mine", str(tmp_path))
    assert six is not None
    assert (six.cluster.server, six.namespace) == ("https://[fd00::1]:443", "mine")
    assert in_cluster({}, folder=str(tmp_path)) is None
