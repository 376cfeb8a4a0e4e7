"""The auth-provider `oidc` of kubeconfigs: an id-token, renewed with a refresh-token (OpenID Connect Core 12).

An identity provider may answer with a new refresh-token and void the old one. So what is new is written back to the file,
as kubectl does, or kubectl itself would be logged out; only the two values change, comments and order stay.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
import time
from typing import Any
from urllib.parse import quote, urlencode

from sidestage.cluster.dial import Url, dial, proxy_for, url
from sidestage.cluster.errors import ClusterError, text_of
from sidestage.cluster.http import Http, whole
from sidestage.cluster.kubeconfig import Access, data, text
from sidestage.cluster.tls import Certificate, of_others

EARLY = 10.0  # seconds before it expires that an id-token is renewed, as client-go
TIMEOUT = 30.0
MAX_ANSWER = 1 << 20


class Oidc:
    def __init__(self, config: dict[str, Any], access: Access) -> None:
        self._config, self._access = config, access
        self._id_token, self._refresh_token = text(config, "id-token"), text(config, "refresh-token")
        if not text(config, "idp-issuer-url") or not text(config, "client-id"):
            raise self._failed("idp-issuer-url or client-id is missing")
        self._refused = ""

    def token(self) -> str:
        if not self._id_token or self._id_token == self._refused or expiry(self._id_token) - EARLY < time.time():
            self._refresh()
        return self._id_token

    def certificate(self) -> Certificate | None:
        return None

    def forget(self) -> bool:
        self._refused = self._id_token
        return bool(self._refresh_token)

    def _refresh(self) -> None:
        if not self._refresh_token:
            raise self._failed("the id-token has expired and there is no refresh-token")
        issuer = text(self._config, "idp-issuer-url").rstrip("/")
        told = self._ask("GET", f"{issuer}/.well-known/openid-configuration", [], b"")
        endpoint = str(told.get("token_endpoint") or "")
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh_token, "client_id": text(self._config, "client-id")}
        secret = text(self._config, "client-secret")
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        if secret:  # RFC 6749 2.3.1: in the header, both form-encoded
            login = f"{quote(form['client_id'], safe='')}:{quote(secret, safe='')}"
            headers.append(("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}"))
        told = self._ask("POST", endpoint, headers, urlencode(form).encode())
        fresh = told.get("id_token")
        if not isinstance(fresh, str) or not fresh:
            raise self._failed("the identity provider gave no id_token")
        changes = [(self._id_token, fresh)]
        self._id_token = fresh
        if isinstance(told.get("refresh_token"), str):
            changes.append((self._refresh_token, told["refresh_token"]))
            self._refresh_token = told["refresh_token"]
        save(self._access.user_file, [(old, new) for old, new in changes if old and old != new])

    def _ask(self, method: str, address: str, headers: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
        place = url(address, ("https", "http"), "the identity provider's address")
        path = address.split("://", 1)[1].partition("/")[2]
        try:
            http = Http(dial(place, proxy_for(place, ""), self._tls(place)))
            try:
                sent = [("Host", place.address), ("Accept", "application/json"), *headers, ("Connection", "close")]
                if body:
                    sent.append(("Content-Length", str(len(body))))
                head = http.send(method, f"/{path}", sent, body, TIMEOUT)
                answer = whole(http.body(head, method), MAX_ANSWER)
            finally:
                http.close()
        except OSError as error:
            raise self._failed(f"{place.address}: {text_of(error)}") from error
        try:
            told = json.loads(answer)
        except ValueError:
            told = None
        if head.status != 200 or not isinstance(told, dict):
            why = told.get("error_description") or told.get("error") if isinstance(told, dict) else ""
            raise self._failed(f"{place.address} answered {head.status} {why or head.phrase}")
        return told

    def _tls(self, place: Url) -> ssl.SSLContext | None:
        if place.scheme != "https":
            return None
        pem = data(self._config, "idp-certificate-authority-data", f"user of {self._access}")
        path = text(self._config, "idp-certificate-authority")
        try:
            return of_others(pem.decode("latin-1"), path)
        except OSError as error:
            raise self._failed(f"idp-certificate-authority can't be used: {text_of(error)}") from error

    def _failed(self, why: str) -> ClusterError:
        return ClusterError(f"login by OpenID Connect failed ({self._access}): {why}", "log in again, e.g. with kubelogin")


def expiry(token: str) -> float:
    """The `exp` of a JSON Web Token (RFC 7519), in seconds since 1970; 0 if it has none that can be read."""
    try:
        middle = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))["exp"])
    except (ValueError, LookupError, TypeError):
        return 0.0


def save(file: str, changes: list[tuple[str, str]]) -> None:
    """Replace texts in a kubeconfig, whole or not at all; raises ClusterError if it can't be done."""
    if not file or not changes:
        return
    path = os.path.realpath(file)
    try:
        with open(path, encoding="utf-8") as stream:
            content = stream.read()
        for old, new in changes:
            if old not in content:
                raise OSError(0, "the old token is not in it as one text")
            content = content.replace(old, new)
        fd, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".sidestage-")
        try:
            with open(fd, "w", encoding="utf-8") as stream:
                stream.write(content)
            os.chmod(name, os.stat(path).st_mode & 0o777)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except (OSError, UnicodeDecodeError) as error:
        said = text_of(error) if isinstance(error, OSError) else str(error)
        raise ClusterError(
            f"the renewed login can't be written back to {file}: {said}", "log in again, e.g. with kubelogin"
        ) from error
