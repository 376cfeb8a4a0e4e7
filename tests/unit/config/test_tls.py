"""feature.network.incoming.tls: what it comes to for agent and laptop, and what is wrong with it, each with its cure."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.testkit.tls import make

from sidestage.cli.options import parse_exec
from sidestage.config import Config, ConfigError, load, tls
from sidestage.config.schema import Incoming
from sidestage.views.incoming import IncomingRules, TlsRules


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "own")
    make(tmp_path, "other")
    (tmp_path / "both.pem").write_text((tmp_path / "own.crt").read_text() + (tmp_path / "own.key").read_text())
    (tmp_path / "folder").mkdir()
    for name in ("crt", "key"):
        (tmp_path / "folder" / f"tls.{name}").write_bytes((tmp_path / f"own.{name}").read_bytes())
    lock = "openssl pkey -in own.key -aes256 -passout pass:x -out locked.key"
    subprocess.run(lock.split(), check=True, capture_output=True)
    (tmp_path / "damaged.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIF\n-----END PRIVATE KEY-----\n")


def read(mode: str = "steal", **given: Any) -> Config:
    Path("c.json").write_text(json.dumps({"feature": {"network": {"incoming": {"mode": mode, "tls": given}}}}))
    return load("c.json", {}, {})


def pem(name: str) -> dict[str, str]:
    return {"pem": Path(name).read_text()}


@pytest.mark.parametrize("given, spec", [
    ({"certificate": "own.crt", "key": "own.key"}, lambda: {"certificate": pem("own.crt"), "key": pem("own.key")}),
    ({"certificate": "both.pem"}, lambda: {"certificate": pem("both.pem")}),
    ({"certificate": "folder"}, lambda: {"certificate": pem("own.crt"), "key": pem("own.key")}),
    ({"certificate": "target:/etc/tls", "alpn": "http/1.1"}, lambda: {"certificate": {"path": "/etc/tls"}, "alpn": ["http/1.1"]}),
    ({"certificate": "own.crt", "key": "target:/k"}, lambda: {"certificate": pem("own.crt"), "key": {"path": "/k"}}),
])  # fmt: skip
def test_what_the_agent_is_told(given: dict[str, Any], spec: Any) -> None:
    config = read(**given)
    assert tls.spec(config) == spec()
    assert tls.needs_files(config) is ("target:" in str(given))


def test_without_a_certificate_there_is_none() -> None:
    assert tls.spec(read()) is None and tls.spec(Config()) is None


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"delivery": "plain"}, ".delivery", "has no effect without a certificate; name a file, or target:/path"),
    ({"key": "own.key"}, ".key", "has no effect without a certificate"),
    ({"certificate": "own.crt", "key": "other.key"}, ".key", "the key is not the certificate's"),
    ({"certificate": "own.crt", "key": "locked.key"}, ".key", "the key is encrypted; write a plain one: openssl pkey"),
    ({"certificate": "own.crt", "key": "damaged.key"}, ".key", "is damaged; see what is said by: openssl pkey"),
    ({"certificate": "own.crt"}, ".key", "no private key in PEM"),
    ({"certificate": "own.key"}, ".certificate", "no certificate in PEM"),
    ({"certificate": "nowhere.crt"}, ".certificate", "nowhere.crt can't be read: No such file or directory; target:/path names"),
    ({"certificate": "target:tls.crt"}, ".certificate", "write the whole path, as target:/etc/tls/tls.crt"),
    ({"certificate": "target:/c", "alpn": ["ü"]}, ".alpn", "names of protocols"),
    ({"certificate": "target:/c", "delivery": "tcp"}, ".delivery", "'tcp' is none of tls, plain"),
    ({"certificate": "target:/c", "delivery": "plain", "server_name": "x"}, ".server_name", "no effect with delivery plain"),
    ({"certificate": "target:/c", "trust_roots": "own.crt", "server_cert": "own.crt"}, "", "exclude each other; keep one"),
    ({"certificate": "target:/c", "trust_roots": "own.key"}, ".trust_roots", "own.key holds no certificate in PEM"),
    ({"certificate": "target:/c", "server_cert": "nowhere"}, ".server_cert", "nowhere can't be read"),
    ({"certificate": "target:/c", "client_key": "own.key"}, ".client_key", "has no effect without client_cert"),
    ({"certificate": "target:/c", "client_cert": "own.crt"}, ".client_cert", "no private key"),
]


@pytest.mark.parametrize("given, key, said", WRONG)
def test_what_is_wrong_is_named_with_its_cure(given: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(**given)
    (problem,) = raised.value.problems
    assert problem.startswith(f"feature.network.incoming.tls{key}: ") and said in problem
    assert "PRIVATE" not in problem


@pytest.mark.parametrize("mode", ["mirror", "off"])
def test_only_what_is_stolen_passes_through(mode: str) -> None:
    with pytest.raises(ConfigError, match=f"while feature.network.incoming.mode is {mode}.*set it to steal"):
        read(mode, certificate="target:/c")


def test_flags() -> None:
    given = parse_exec("-t process/1 --steal --tls-certificate target:/c --tls-key target:/k --tls-delivery plain -- x".split())
    found = load(None, given.overrides, {}).feature.network.incoming.tls
    assert (found.certificate, found.key, found.delivery) == ("target:/c", "target:/k", "plain")


def test_it_may_be_for_some_ports_only() -> None:
    rules = IncomingRules(mode="steal", tls=TlsRules({"certificate": {"pem": "secret"}}, frozenset({8443})))
    assert rules.tls_of(8443) and not rules.tls_of(8080)
    assert "secret" not in repr(rules)
    assert IncomingRules(mode="mirror", tls=rules.tls).tls_of(8443) is None


@pytest.mark.parametrize("name", ["tls_delivery", "https_delivery"])
def test_mirrord_s_own_keys(name: str, tmp_path: Path) -> None:
    def theirs(value: Any) -> Incoming:
        incoming = {"mode": "steal", "on_concurrent_steal": "override", name: value, "tls": {"certificate": "target:/c"}}
        tree = {"agent": {"flush_connections": True}, "feature": {"network": {"incoming": incoming}}}
        Path("c.json").write_text(json.dumps(tree))
        return load("c.json", {}, {}).feature.network.incoming

    found = theirs({"protocol": "tcp"})
    assert (found.tls.delivery, found.on_conflict, found.flush_connections) == ("plain", "override", True)
    assert theirs(None).tls.delivery == theirs({"protocol": "tls"}).tls.delivery == "tls"
    found = theirs({"trust_roots": ["own.crt"], "server_name": "x"})
    assert (found.tls.trust_roots, found.tls.server_name) == (("own.crt",), "x")
    with pytest.raises(ConfigError, match=r"incoming.tls.frob: unknown key"):
        theirs({"frob": 1})
