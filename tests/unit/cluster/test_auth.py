"""Each way to log in that a kubeconfig has, against real files, real plugins and a real identity provider."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.testkit.apiserver import Certificates, Request, serving

from sidestage.cluster import auth, oidc
from sidestage.cluster.auth import Credentials
from sidestage.cluster.errors import ClusterError
from sidestage.cluster.kubeconfig import Access, Cluster

PEM = base64.b64encode(b"PEM").decode()


def access(user: dict[str, Any], **cluster: Any) -> Access:
    return Access("dev", "default", Cluster("https://api.example", **cluster), user)


@pytest.mark.parametrize(
    "user, headers",
    [
        ({}, []),
        ({"token": "t"}, [("Authorization", "Bearer t")]),
        ({"username": "u", "password": "p"}, [("Authorization", "Basic dTpw")]),
        ({"username": "", "password": "", "token": ""}, []),
        (
            {"token": "t", "as": "jane", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"Reason/x": ["why"]}},
            [("Impersonate-User", "jane"), ("Impersonate-Uid", "7"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"),
             ("Impersonate-Extra-Reason%2Fx", "why"), ("Authorization", "Bearer t")],
        ),
        ({"token": "t", "exec": {"command": "never-run"}}, [("Authorization", "Bearer t")]),
    ],
)  # fmt: skip
def test_headers(user: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    found = Credentials(access(user))
    assert found.headers() == headers
    assert found.certificate() is None
    assert not found.forget()


def test_a_certificate_from_files_and_from_data(tmp_path: Path) -> None:
    (tmp_path / "crt").write_bytes(b"CHAIN")
    (tmp_path / "key").write_bytes(b"KEY")
    files = {"client-certificate": str(tmp_path / "crt"), "client-key": str(tmp_path / "key")}
    found = Credentials(access(files)).certificate()
    assert found is not None
    assert (found.chain, found.key) == (b"CHAIN", b"KEY")
    found = Credentials(access({**files, "client-key-data": PEM})).certificate()
    assert found is not None
    assert (found.chain, found.key) == (b"CHAIN", b"PEM")


@pytest.mark.parametrize(
    "user, said",
    [
        ({"token": "t", "username": "u"}, "both"),
        ({"exec": {"command": "x"}, "auth-provider": {"name": "oidc"}}, "both"),
        ({"client-certificate-data": PEM}, "only one"),
        ({"client-certificate-data": "%", "client-key-data": PEM}, "base64"),
        ({"client-certificate": "/nowhere/a", "client-key-data": PEM}, "/nowhere/a"),
        ({"tokenFile": "/nowhere/token"}, "/nowhere/token"),
        ({"auth-provider": {"name": "gcp"}}, "gke-gcloud-auth-plugin"),
        ({"auth-provider": {"name": "azure"}}, "kubelogin"),
        ({"auth-provider": {"name": "oidc"}}, "idp-issuer-url"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}, "no command"),
        ({"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1alpha1"}}, "v1alpha1"),
        ({"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1"}}, "interactiveMode"),
    ],
)
def test_what_is_wrong_is_said(user: dict[str, Any], said: str) -> None:
    with pytest.raises(ClusterError) as caught:
        Credentials(access(user)).headers()
    assert said in f"{caught.value.cause} {caught.value.cure}"
    assert caught.value.cure


def test_a_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    found = Credentials(access({"tokenFile": str(file), "token": "fallback"}))
    assert found.headers() == [("Authorization", "Bearer one")]
    file.write_text("two")
    assert found.headers() == [("Authorization", "Bearer one")], "not at each request"
    assert found.forget(), "refused: there is another in the file"
    assert found.headers() == [("Authorization", "Bearer two")]
    assert not found.forget(), "the same as was refused"
    monkeypatch.setattr(auth, "TOKEN_FILE_AGE", 0.0)
    file.write_text("three")
    assert found.headers() == [("Authorization", "Bearer three")]
    file.unlink()
    assert found.headers() == [("Authorization", "Bearer three")], "the last one may still be valid"


# --- exec plugins

PLUGIN = f"""#!{sys.executable}
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps({{"args": sys.argv[1:], "info": info, "x": os.environ.get("X")}}) + "\\n")
status = json.loads(os.environ["STATUS"])
print(json.dumps({{"kind": "ExecCredential", "apiVersion": os.environ.get("VERSION", info["apiVersion"]), "status": status}}))
"""


class Plugin:
    def __init__(self, folder: Path) -> None:
        self.file, self.log = folder / "plugin", folder / "log"
        self.file.write_text(PLUGIN)
        self.file.chmod(0o755)

    def config(self, status: Any, version: str = "v1", **more: Any) -> dict[str, Any]:
        env = [{"name": "STATUS", "value": json.dumps(status)}, {"name": "LOG", "value": str(self.log)}, *more.pop("env", [])]
        found = {"command": str(self.file), "apiVersion": f"client.authentication.k8s.io/{version}", "env": env, **more}
        if version == "v1":
            found.setdefault("interactiveMode", "Never")
        return {"exec": found}

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_plugin_is_run_once_and_its_token_kept(plugin: Plugin, version: str) -> None:
    config = plugin.config({"token": "t"}, version, args=["get", "token"], env=[{"name": "X", "value": "y"}])
    found = Credentials(access(config))
    assert found.headers() == found.headers() == [("Authorization", "Bearer t")]
    (run,) = plugin.runs()
    assert (run["args"], run["x"]) == (["get", "token"], "y")
    assert run["info"]["spec"] == {"interactive": False}
    assert found.forget()
    found.headers()
    assert len(plugin.runs()) == 2


def test_a_plugin_is_run_again_when_its_token_expires(plugin: Plugin) -> None:
    found = Credentials(access(plugin.config({"token": "t", "expirationTimestamp": stamp(3600)})))
    found.headers()
    found.headers()
    assert len(plugin.runs()) == 1
    found = Credentials(access(plugin.config({"token": "t", "expirationTimestamp": stamp(1)})))
    found.headers()
    time.sleep(1.1)
    found.headers()
    assert len(plugin.runs()) == 3


def test_a_plugin_gives_certificates(plugin: Plugin) -> None:
    found = Credentials(access(plugin.config({"clientCertificateData": "CHAIN", "clientKeyData": "KEY"})))
    certificate = found.certificate()
    assert certificate is not None
    assert (certificate.chain, certificate.key) == (b"CHAIN", b"KEY")
    assert found.headers() == []


def test_a_plugin_is_told_of_the_cluster_if_it_asks(plugin: Plugin) -> None:
    raw = {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}]}
    config = plugin.config({"token": "t"}, provideClusterInfo=True)
    Credentials(access(config, ca_data=b"PEM", tls_server_name="n", proxy_url="http://p", raw=raw)).headers()
    assert plugin.runs()[0]["info"]["spec"]["cluster"] == {
        "server": "https://api.example", "insecure-skip-tls-verify": False, "tls-server-name": "n", "proxy-url": "http://p",
        "certificate-authority-data": PEM, "config": {"audience": "a"},
    }  # fmt: skip


def test_a_plugin_with_a_relative_path_lies_beside_the_kubeconfig(plugin: Plugin) -> None:
    config = plugin.config({"token": "t"}, command="./plugin")
    found = replace(access(config), user_file=str(plugin.file.parent / "config"))
    assert Credentials(found).headers() == [("Authorization", "Bearer t")]


@pytest.mark.parametrize(
    "status, more, said",
    [
        ({}, {}, "neither"),
        ({"clientCertificateData": "x"}, {}, "neither"),
        ({"token": "t", "expirationTimestamp": "soon"}, {}, "'soon'"),
        ({"token": "t"}, {"command": "no-such-plugin", "installHint": "get it\nhere"}, "get it here"),
        ({"token": "t"}, {"command": "no-such-plugin"}, "PATH"),
        ({"token": "t"}, {"command": "/bin/false"}, "exit status 1"),
        ({"token": "t"}, {"command": "/bin/sh", "args": ["-c", "echo expired, log in >&2; exit 3"]}, "3 (expired, log in)"),
        ({"token": "t"}, {"command": "/bin/echo"}, "not JSON"),
        ({"token": "t"}, {"command": "/etc/passwd"}, "ermission"),
        ({"token": "t"}, {"env": [{"name": "VERSION", "value": "client.authentication.k8s.io/v1beta1"}]}, "v1beta1"),
        ({"token": "t"}, {"interactiveMode": "Always"}, "no terminal"),
    ],
)
def test_a_plugin_that_fails(plugin: Plugin, status: Any, more: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    config = plugin.config(status)["exec"]
    config["env"] += more.pop("env", [])
    with pytest.raises(ClusterError) as caught:
        Credentials(access({"exec": {**config, **more}})).headers()
    sys.stdin.close()
    assert said in f"{caught.value.cause} {caught.value.cure}"
    assert "'dev'" in caught.value.cause


# --- OpenID Connect


def jwt(seconds: float, mark: str = "") -> str:
    body = json.dumps({"exp": time.time() + seconds, "mark": mark}).encode()
    return "e30." + base64.urlsafe_b64encode(body).decode().rstrip("=") + ".c2ln"


def test_expiry_of_what_is_no_token() -> None:
    for text in ("", "a.b", "a.!.c", "e30.e30.x", "a." + base64.b64encode(b"[]").decode() + ".c"):
        assert oidc.expiry(text) == 0.0


@pytest.mark.parametrize("rotated", [False, True])
def test_an_id_token_is_renewed_and_written_back(rotated: bool, certs: Certificates, tmp_path: Path) -> None:
    old, new = jwt(-10, "old"), jwt(3600, "new")
    refresh = "refresh-2" if rotated else "refresh-1"

    def provider(request: Request) -> None:
        base = f"https://localhost:{server.port}/realm"
        if request.method == "GET":
            assert request.target == "/realm/.well-known/openid-configuration"
            request.answer(200, {"token_endpoint": f"{base}/token"})
        else:
            form = {key: value[0] for key, value in parse_qs(request.body.decode()).items()}
            login = base64.b64encode(b"me:s%20x").decode()
            ok = form == {"grant_type": "refresh_token", "refresh_token": "refresh-1", "client_id": "me"}
            assert ok and request.headers["authorization"] == f"Basic {login}"
            request.answer(200, {"id_token": new, **({"refresh_token": "refresh-2"} if rotated else {})})

    with serving(provider, certs) as server:
        config = {
            "idp-issuer-url": f"https://localhost:{server.port}/realm", "client-id": "me", "client-secret": "s x",
            "id-token": old, "refresh-token": "refresh-1", "idp-certificate-authority": certs["ca.crt"],
        }  # fmt: skip
        file = tmp_path / "config"
        file.write_text(f"# mine\nusers: [{{name: u, user: {json.dumps(config)}}}]\n")
        file.chmod(0o600)
        link = tmp_path / "link"
        link.symlink_to(file)
        user = {"auth-provider": {"name": "oidc", "config": config}}
        found = Credentials(replace(access(user), user_file=str(link)))
        assert found.headers() == [("Authorization", f"Bearer {new}")]
        assert len(server.requests) == 2
        found.headers()
        assert len(server.requests) == 2, "it is valid for an hour"
    text = file.read_text()
    assert text.startswith("# mine\n")
    assert new in text and old not in text and refresh in text
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["config", "link"]


def test_a_valid_id_token_asks_nobody() -> None:
    config = {"idp-issuer-url": "https://nowhere.invalid", "client-id": "me", "id-token": jwt(100)}
    found = Credentials(access({"auth-provider": {"name": "oidc", "config": config}}))
    assert len(found.headers()) == 1
    assert not found.forget(), "there is nothing to renew it with"


def test_a_provider_that_refuses_is_quoted(certs: Certificates) -> None:
    def provider(request: Request) -> None:
        request.answer(400, {"error": "invalid_grant", "error_description": "Session not active"})

    with serving(provider, certs) as server:
        config = {
            "idp-issuer-url": server.url, "client-id": "me", "refresh-token": "r",
            "idp-certificate-authority-data": base64.b64encode(Path(certs["ca.crt"]).read_bytes()).decode(),
        }  # fmt: skip
        with pytest.raises(ClusterError, match="Session not active"):
            Credentials(access({"auth-provider": {"name": "oidc", "config": config}})).headers()


def test_a_file_that_does_not_hold_the_old_token_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("nothing")
    with pytest.raises(ClusterError, match="written back"):
        oidc.save(str(file), [("old", "new")])
    assert file.read_text() == "nothing"
