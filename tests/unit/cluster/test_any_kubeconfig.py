"""Whatever stands in a kubeconfig, it is a context, or an error with a cure: never a traceback, and nothing is run or sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidestage.cluster import kubeconfig
from sidestage.cluster.api import Api
from sidestage.cluster.errors import ClusterError

KEYS = [
    "current-context", "contexts", "clusters", "users", "name", "context", "cluster", "user", "namespace", "server", "exec",
    "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "proxy-url", "tls-server-name", "extensions",
    "client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile", "username", "password",
    "as", "as-groups", "as-uid", "as-user-extra", "auth-provider", "config", "command", "args", "env", "apiVersion",
    "interactiveMode", "provideClusterInfo", "installHint", "idp-issuer-url", "client-id", "refresh-token", "id-token",
]  # fmt: skip
TEXTS = [
    "", "a", "x", "oidc", "gcp", "/nowhere", "https://h", "http://h:x", "client.authentication.k8s.io/v1", "Never", "YQ==", "true",
]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(TEXTS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)
whole = st.fixed_dictionaries({
    "current-context": st.just("x"),
    "contexts": st.just([{"name": "x", "context": {"cluster": "c", "user": "u"}}]) | values,
    "clusters": st.just([{"name": "c", "cluster": {"server": "https://h"}}])
    | st.dictionaries(st.sampled_from(KEYS), values, max_size=5).map(lambda inner: [{"name": "c", "cluster": inner}]),
    "users": st.dictionaries(st.sampled_from(KEYS), values, max_size=5).map(lambda inner: [{"name": "u", "user": inner}]),
})  # fmt: skip


def used(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        access = kubeconfig.load(str(file), environ={})
        with Api(access):
            pass
    except ClusterError as error:
        said = error.cause and error.cure
    else:
        said = "a context"
    assert said
    try:
        kubeconfig.contexts(str(file), {})
    except ClusterError:
        pass


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole | values)
def test_any_tree(tmp_path: Path, tree: Any) -> None:
    used(tmp_path / "config", json.dumps(tree).encode())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(alphabet="{}[]:,-#&*!|>'\"%@`ab \n\t", max_size=60).map(str.encode))
@example(b"a: *b")
@example(b"\xff\xfe")
@example(b"a: &a [*a]")
@example(b"? [a]\n: b")
@example(b"!!python/object/apply:os.system ['false']")
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    used(tmp_path / "config", content)


def test_what_nests_without_end_is_an_error(tmp_path: Path) -> None:
    for content in (b"[" * 100_000, b"{" * 100_000, b"a:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 1200))):
        (tmp_path / "config").write_bytes(content)
        with pytest.raises(ClusterError):
            kubeconfig.load(str(tmp_path / "config"), environ={})
