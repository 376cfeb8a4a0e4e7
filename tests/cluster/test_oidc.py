"""The auth-provider `oidc` against an issuer that the API server trusts: tokens are renewed before and during a session.

kubectl reads what we write back, so that nobody is logged out by us.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.plug import plugged, session
from tests.cluster.test_access import written
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.issuer import CLIENT, Issuer, issuing

PRINT = ["sh", "-c", "echo $GREETING"]
SHORT = 14  # seconds that a token lives; it is renewed 10 s before its end


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    cluster.kubectl("create", "rolebinding", "-n", namespace, "jane", "--clusterrole=admin", "--user=oidc:jane")
    return namespace


@pytest.fixture(scope="module")
def issuer(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    with issuing(cluster, tmp_path_factory.mktemp("issuer")) as made:
        token = made.token("jane", 600)
        # The API server looks for its issuer every ten seconds until it finds it.
        eventually("the API server knows its issuer", lambda: whoami(cluster, ["--token", token]) == "oidc:jane", 60)
        yield made


def whoami(cluster: Cluster, flags: list[str], kubeconfig: str = "") -> str:
    """As kubectl asks; empty when it is refused."""
    server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    place = ["--server", server, "--certificate-authority", str(cluster.state / "pki" / "ca.crt")]
    env = {**os.environ, "KUBECONFIG": kubeconfig or os.devnull}
    command = [str(cluster.program), *([] if kubeconfig else place), *flags, "auth", "whoami", "-o", "json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return str(json.loads(done.stdout)["status"]["userInfo"]["username"]) if not done.returncode else ""


def login(cluster: Cluster, issuer: Issuer, shop: str, folder: Path, token: str, refresh: str) -> str:
    """A kubeconfig of somebody who logged in some time ago."""
    config = {
        "idp-issuer-url": issuer.url, "client-id": CLIENT, "id-token": token, "refresh-token": refresh,
        "idp-certificate-authority": str(cluster.state / "pki" / "ca.crt"),
    }  # fmt: skip
    admin: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    return written(folder, admin, {"auth-provider": {"name": "oidc", "config": config}}, shop)


def kept(file: str) -> dict[str, str]:
    return dict(yaml.safe_load(Path(file).read_text())["users"][0]["user"]["auth-provider"]["config"])


def test_a_token_of_yesterday_is_renewed_and_kubectl_goes_on_with_the_new_one(
    cluster: Cluster, issuer: Issuer, shop: str, tmp_path: Path
) -> None:
    issuer.lifetime = 3600
    old = issuer.token("jane", -86400)
    file = login(cluster, issuer, shop, tmp_path, old, issuer.refresh)
    before = issuer.renewals
    done = plugged(cluster, shop, "deployment/orders", PRINT, "--kubeconfig", file)
    assert done.out == "hello from orders\n", done
    assert issuer.renewals == before + 1
    assert kept(file)["id-token"] != old
    assert kept(file)["refresh-token"] == issuer.refresh
    assert whoami(cluster, [], file) == "oidc:jane"
    assert issuer.renewals == before + 1, "kubectl took the token that we were given"


def test_a_session_outlives_its_tokens(cluster: Cluster, issuer: Issuer, shop: str, tmp_path: Path) -> None:
    """All that comes late is done with a later token: the agent's removal above all."""
    issuer.lifetime = SHORT
    file = login(cluster, issuer, shop, tmp_path, issuer.token("jane", SHORT), issuer.refresh)
    before = issuer.renewals
    argv = ["sh", "-c", "echo begun; while sleep 1; do cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; done"]
    with session(cluster, tmp_path, shop, "deployment/orders", argv, "--kubeconfig", file) as one:
        one.prints("begun")
        time.sleep(SHORT + 4)
        count = len(one.lines())
        eventually("files of the target", lambda: one.lines()[count:].count(shop) > 1)
        one.stop()
    jobs = ["jobs,pods", "-n", shop, "-l", "sidestage.dev/session"]
    eventually("the end of the agent", lambda: not cluster.get(*jobs)["items"])
    assert issuer.renewals > before
    assert kept(file)["refresh-token"] == issuer.refresh


def test_a_login_that_is_over_is_said(cluster: Cluster, issuer: Issuer, shop: str, tmp_path: Path) -> None:
    file = login(cluster, issuer, shop, tmp_path, issuer.token("jane", -60), "refresh-of-another-time")
    done = plugged(cluster, shop, "deployment/orders", PRINT, "--kubeconfig", file)
    assert done.code == 1
    assert "login by OpenID Connect failed" in done.err and "the refresh-token was used" in done.err
    assert "log in again" in done.err
    assert "Traceback" not in done.err
