"""Who we are to the API server: a kubeconfig's user as headers and a client certificate, renewed when they grow old.

Precedence as in client-go: a token or password that is written down beats an exec plugin, tokenFile beats token.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

import base64
import time
from typing import Any, Protocol

from sidestage.cluster.errors import ClusterError, UnknownLogin, text_of
from sidestage.cluster.kubeconfig import Access, below, data, items, text
from sidestage.cluster.tls import Certificate

TOKEN_FILE_AGE = 60.0  # seconds between reads of a token file; kubelet rotates them by the hour
# What kubectl removed in 1.26, and what took its place.
PROVIDERS_GONE = {
    "gcp": "install gke-gcloud-auth-plugin, then `gcloud container clusters get-credentials NAME`",
    "azure": "`kubelogin convert-kubeconfig`",
}


class Source(Protocol):
    """Where credentials come from, when they are not just written down."""

    def token(self) -> str: ...
    def certificate(self) -> Certificate | None: ...
    def forget(self) -> bool:
        """Told that the API server refused what we sent; true if the next may differ."""
        ...


class Credentials:
    """Of one user. `headers()` and `certificate()` are asked before each connection or request."""

    def __init__(self, access: Access) -> None:
        user, self._where = access.user, f"user of {access}"
        self._fixed = _impersonation(user)
        self._certificate = _certificate(user, self._where)
        self._source: Source | None = None
        provider, plugin = below(user, "auth-provider"), below(user, "exec")
        if provider and plugin:
            raise ClusterError(f"the {self._where} has both exec and auth-provider", "remove one: kubectl refuses this as well")
        password = text(user, "username") or text(user, "password")
        token = text(user, "tokenFile") or text(user, "token")
        if password and token:
            raise ClusterError(f"the {self._where} has both a password and a token", "remove one: kubectl refuses this as well")
        if text(user, "tokenFile"):
            self._source = TokenFile(text(user, "tokenFile"), text(user, "token"), self._where)
        elif token:
            self._fixed.append(("Authorization", f"Bearer {token}"))
        elif password:
            secret = base64.b64encode(f"{text(user, 'username')}:{text(user, 'password')}".encode()).decode()
            self._fixed.append(("Authorization", f"Basic {secret}"))
        elif plugin:
            from sidestage.cluster.exec_plugin import ExecPlugin

            self._source = ExecPlugin(plugin, access)
        elif provider:
            self._source = _provider(provider, access)

    def headers(self) -> list[tuple[str, str]]:
        """Raises ClusterError."""
        token = self._source.token() if self._source else ""
        return [*self._fixed, ("Authorization", f"Bearer {token}")] if token else self._fixed

    def certificate(self) -> Certificate | None:
        """Raises ClusterError."""
        return (self._source.certificate() if self._source else None) or self._certificate

    def forget(self) -> bool:
        """After a 401: true if it is worth another attempt."""
        return self._source is not None and self._source.forget()


class TokenFile:
    def __init__(self, path: str, fallback: str, where: str) -> None:
        self._path, self._token, self._where, self._read_at = path, fallback, where, float("-inf")

    def token(self) -> str:
        if time.monotonic() - self._read_at < TOKEN_FILE_AGE:
            return self._token
        try:
            with open(self._path, encoding="utf-8") as file:
                self._token = file.read().strip() or self._token
        except (OSError, UnicodeDecodeError) as error:
            if not self._token:  # an older one may still be valid, as client-go has it
                said = text_of(error) if isinstance(error, OSError) else "it is not text"
                cause = f"tokenFile {self._path} ({self._where}) can't be read: {said}"
                raise ClusterError(cause, "write a token there") from error
        if not self._token:
            raise ClusterError(f"tokenFile {self._path} ({self._where}) is empty", "write a token there")
        self._read_at = time.monotonic()
        return self._token

    def certificate(self) -> Certificate | None:
        return None

    def forget(self) -> bool:
        refused, self._read_at = self._token, float("-inf")
        return self.token() != refused


def _provider(provider: dict[str, Any], access: Access) -> Source:
    name = text(provider, "name")
    if name == "oidc":
        from sidestage.cluster.oidc import Oidc

        return Oidc(below(provider, "config"), access)
    raise UnknownLogin(
        f"the user of {access} logs in with auth-provider {name!r}, which kubectl has no longer",
        PROVIDERS_GONE.get(name, "use an exec plugin (see your cloud's documentation)"),
    )


def _certificate(user: Any, where: str) -> Certificate | None:
    parts = []
    for key in ("client-certificate", "client-key"):
        content = data(user, f"{key}-data", where)  # data wins, as in client-go
        path = text(user, key)
        if not content and path:
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise ClusterError(f"{key} {path} ({where}) can't be read: {text_of(error)}", "correct the kubeconfig") from error
        parts.append(content)
    if not any(parts):
        return None
    if not all(parts):
        raise ClusterError(f"the {where} has only one of client-certificate and client-key", "complete the kubeconfig")
    return Certificate(parts[0], parts[1], where)


def _impersonation(user: Any) -> list[tuple[str, str]]:
    """https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/"""
    found = [("Impersonate-User", text(user, "as"))] if text(user, "as") else []
    found += [("Impersonate-Uid", text(user, "as-uid"))] if text(user, "as-uid") else []
    found += [("Impersonate-Group", str(group)) for group in items(user, "as-groups")]
    for key, values in below(user, "as-user-extra").items():
        listed = values if isinstance(values, list) else ()
        found += [(f"Impersonate-Extra-{_escape(str(key))}", str(value)) for value in listed]
    return found


def _escape(key: str) -> str:
    """Header names take few characters; Kubernetes percent-decodes the rest."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "".join(f"%{b:02X}" for b in c.encode()) for c in key)
