"""How the local program is met over TLS: the laptop's side, which verifies it as far as it was told to."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from sidestage.tls.engine import Engine, bare
from sidestage.tls.identity import IdentityError, leaf_of, present

MAX_CONTEXTS = 16  # kept for different protocols


@dataclass(frozen=True, slots=True)
class Delivery:
    """Paths of this machine; without `trust_roots` and `server_cert` any certificate will do, as nobody else is on the way."""

    trust_roots: tuple[str, ...] = ()  # files, or folders with files, of authorities
    server_cert: str = ""  # the very certificate that the program must show
    server_name: str = ""  # instead of the one that the client asks for
    client_cert: str = ""
    client_key: str = ""


class DeliveryError(ValueError):
    """`key` of the configuration is wrong."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class LocalTls:
    """Raises DeliveryError."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._pinned = _pinned(delivery.server_cert) if delivery.server_cert else b""
        self._contexts = {"": self._context()}

    def _context(self) -> ssl.SSLContext:
        given = self._delivery
        context = bare(ssl.PROTOCOL_TLS_CLIENT)
        if given.trust_roots:
            context.verify_mode, context.check_hostname = ssl.CERT_REQUIRED, True
            for path in given.trust_roots:
                _trust(context, path)
        if given.client_cert:
            certificate, key = _read("client_cert", given.client_cert), _read("client_key", given.client_key or given.client_cert)
            try:
                present(context, certificate, key)
            except IdentityError as error:
                raise DeliveryError("client_cert", str(error)) from None
        return context

    def engine(self, name: str, protocol: str) -> Engine:
        """`name` of the server and `protocol` (ALPN) are the client's. Raises ValueError for a name that is none."""
        context = self._contexts.get(protocol)
        if context is None:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts.clear()
            context = self._contexts[protocol] = self._context()
            context.set_alpn_protocols([protocol])
        return Engine(context, server=False, name=self._delivery.server_name or name or "localhost")

    def refusal(self, engine: Engine, protocol: str) -> str:
        """What is wrong with a program that the handshake was done with; empty: nothing."""
        if self._pinned and engine.certificate != self._pinned:
            return "it shows another certificate than feature.network.incoming.tls.server_cert"
        if protocol == "h2" and engine.protocol != protocol:
            return (
                "it doesn't offer h2, which clients speak with the target; let the program offer it, or take it from the clients "
                "with feature.network.incoming.tls.alpn: [http/1.1]"
            )
        return ""


def _pinned(path: str) -> bytes:
    try:
        return leaf_of(_read("server_cert", path))
    except IdentityError as error:
        raise DeliveryError("server_cert", f"{path}: {error}") from None


def _trust(context: ssl.SSLContext, path: str) -> None:
    place = Path(path).expanduser()
    try:
        files = sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else [place]
    except OSError as error:
        raise DeliveryError("trust_roots", f"{path} can't be read: {error.strerror}") from None
    found = 0
    for file in files:
        pem = _read("trust_roots", str(file))
        if b"-----BEGIN CERTIFICATE-----" in pem:
            try:
                context.load_verify_locations(cadata=pem.decode("latin-1"))
            except (ssl.SSLError, ValueError) as error:
                raise DeliveryError("trust_roots", f"{file}: not a certificate in PEM: {error}") from None
            found += 1
    if not found:
        raise DeliveryError("trust_roots", f"{path} holds no certificate in PEM")


def _read(key: str, path: str) -> bytes:
    try:
        return Path(os.path.expanduser(path)).read_bytes()
    except OSError as error:
        raise DeliveryError(key, f"{path} can't be read: {error.strerror}") from None
