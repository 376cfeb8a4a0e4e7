"""The configuration's incoming.tls: for the agent (tls/identity.py), for the laptop (tls/local.py), and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidestage.config.schema import Config, Tls

WHERE = "feature.network.incoming.tls"
TARGET = "target:"  # before a path: a file of the target's container
_VERIFIES = ("trust_roots", "server_cert", "server_name", "client_cert", "client_key")


def spec(config: Config) -> dict[str, Any] | None:
    """What is sent to the agent, with the contents of files of this machine; None: TLS is passed on as it is. Raises OSError."""
    given = config.feature.network.incoming.tls
    if not given.certificate:
        return None
    certificate, key = given.certificate, given.key
    if not key and not certificate.startswith(TARGET) and os.path.isdir(os.path.expanduser(certificate)):
        certificate, key = f"{certificate}/tls.crt", f"{certificate}/tls.key"
    found: dict[str, Any] = {"certificate": _source(certificate)}
    if key:
        found["key"] = _source(key)
    if given.alpn:
        found["alpn"] = list(given.alpn)
    return found


def local(config: Config) -> dict[str, Any] | None:
    """How the program is met over TLS (tls/local.py's Delivery); None: in plain."""
    given = config.feature.network.incoming.tls
    return None if given.delivery == "plain" else {key: getattr(given, key) for key in _VERIFIES}


def needs_files(config: Config) -> bool:
    """Does the agent read files of the target for it?"""
    given = config.feature.network.incoming.tls
    return given.certificate.startswith(TARGET) or given.key.startswith(TARGET)


def problems(config: Config) -> list[str]:
    """Each with the key it is about."""
    given, mode = config.feature.network.incoming.tls, config.feature.network.incoming.mode
    if not given.certificate:
        from sidestage.config.schema import Tls

        others = [name for name in Tls.__slots__ if getattr(given, name) != getattr(Tls(), name)]
        if not others:
            return []
        cure = f"name a file, or target:/path for one of the target's container, in {WHERE}.certificate"
        return [f"{WHERE}.{others[0]}: has no effect without a certificate; {cure}"]
    if mode != "steal":
        why = f"while feature.network.incoming.mode is {mode}: TLS ends only where a connection passes through; set it to steal"
        return [f"{WHERE}: has no effect {why}"]
    return _sources(given, config) or _delivery(given, config)


def _sources(given: Tls, config: Config) -> list[str]:
    for key in ("certificate", "key"):
        path = getattr(given, key)
        if path.startswith(TARGET) and not path.startswith(f"{TARGET}/"):
            return [f"{WHERE}.{key}: write the whole path, as target:/etc/tls/tls.crt"]
    if any(not text.isascii() or not 0 < len(text) < 256 for text in given.alpn):
        return [f"{WHERE}.alpn: names of protocols, such as h2 and http/1.1"]
    try:
        found = spec(config) or {}
    except OSError as error:
        return [f"{WHERE}.certificate: {error.filename} can't be read: {error.strerror}; target:/path names a file of the target"]
    pems = [found[key]["pem"].encode("latin-1") for key in ("certificate", "key") if "pem" in found.get(key, {})]
    if pems and len(pems) == len(found.keys() - {"alpn"}):
        from sidestage.tls.identity import IdentityError, server

        try:
            server(pems[0], pems[-1])
        except IdentityError as error:
            return [f"{WHERE}.{'key' if 'key' in str(error).split(';')[0] else 'certificate'}: {error}"]
    return []


def _delivery(given: Tls, config: Config) -> list[str]:
    without = [key for key in _VERIFIES if getattr(given, key)]
    if given.delivery == "plain":
        return [f"{WHERE}.{without[0]}: has no effect with delivery plain; remove one of the two"] if without else []
    if given.trust_roots and given.server_cert:
        return [f"{WHERE}: trust_roots and server_cert exclude each other; keep one"]
    if given.client_key and not given.client_cert:
        return [f"{WHERE}.client_key: has no effect without client_cert"]
    from sidestage.tls.local import Delivery, DeliveryError, LocalTls

    try:
        LocalTls(Delivery(**(local(config) or {})))
    except DeliveryError as error:
        return [f"{WHERE}.{error.key}: {error}"]
    return []


def _source(path: str) -> dict[str, str]:
    if path.startswith(TARGET):
        return {"path": path.removeprefix(TARGET)}
    return {"pem": Path(path).expanduser().read_bytes().decode("latin-1")}
