"""An issuer of OpenID Connect that the test cluster's API server trusts: discovery, keys, and renewal with refresh-tokens.

It is where the API server was told to look for it, on this machine's end of the link to the cluster (tests/cluster/control.sh), and
signs as RFC 7518 3.3 says. A refresh-token is good once, as with the strict ones; each renewal brings the next.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.testkit.cluster import Cluster

PORT = 8444
CLIENT = "sidestage-tests"


class Issuer:
    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.lifetime = 3600  # seconds of the next tokens
        self.renewals = 0
        self.refresh = "refresh-0"  # the one that is good
        self._key = str(folder / "signing.key")
        subprocess.run(["openssl", "genrsa", "-out", self._key, "2048"], check=True, capture_output=True)

    def token(self, user: str, lifetime: int) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "sub": user, "aud": CLIENT, "iat": now, "exp": now + lifetime}
        text = f"{_part({'alg': 'RS256', 'kid': 'one'})}.{_part(claims)}"
        command = ["openssl", "dgst", "-sha256", "-sign", self._key]
        signature = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_base64(signature)}"

    def get(self, path: str) -> Any:
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token",
                "authorization_endpoint": f"{self.url}/none", "response_types_supported": ["code"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
            }  # fmt: skip
        if path == "/keys":
            command = ["openssl", "rsa", "-in", self._key, "-noout", "-modulus"]
            modulus = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]
            key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": _base64(bytes.fromhex(modulus)), "e": "AQAB"}
            return {"keys": [key]}
        return None

    def post(self, form: dict[str, str]) -> Any:
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != self.refresh:
            return None
        self.renewals += 1
        self.refresh = f"refresh-{self.renewals}"
        return {"id_token": self.token("jane", self.lifetime), "refresh_token": self.refresh, "token_type": "Bearer"}


@contextlib.contextmanager
def issuing(cluster: Cluster, folder: Path) -> Iterator[Issuer]:
    pki = cluster.state / "pki"
    address = (pki / "issuer.address").read_text().strip()
    issuer = Issuer(f"https://{address}:{PORT}", folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(issuer.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(issuer.post({name: values[0] for name, values in parse_qs(body).items()}))

        def _answer(self, found: Any) -> None:
            data = json.dumps(found or {"error": "invalid_grant", "error_description": "the refresh-token was used"}).encode()
            self.send_response(200 if found else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "issuer.crt", pki / "issuer.key")
    with ThreadingHTTPServer((address, PORT), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join(10)


def _part(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
