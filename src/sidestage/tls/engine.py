"""One end of a TLS connection, without its socket: ciphertext in and out on one side, what is inside on the other."""

from __future__ import annotations

import ssl
from typing import Any, List, Optional

from sidestage.protocol.messages import Buffer

READ = 64 << 10  # bytes a read; a record has 16 KiB
_CERTIFICATE_REQUEST = 13  # RFC 8446 4.3.2


class _Object(ssl.SSLObject):
    asked = False  # has the peer asked for our certificate?


class Engine:
    def __init__(
        self, context: ssl.SSLContext, *, server: bool, name: str = "", quiet: Optional[ssl.SSLContext] = None
    ) -> None:
        """`name` is the server's, for a client; `quiet` a context for when the handshake is done. Raises ValueError for no name."""
        self._quiet = quiet
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: Any = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name or None)
        self.ready = False  # the handshake is done
        self.ended = False  # the peer has said that no more will come
        self.broken: Optional[ssl.SSLError] = None

    def start(self) -> None:
        """A client speaks first."""
        self._shake()

    def feed(self, data: Buffer) -> bytes:
        """What is inside."""
        if self.broken or self.ended:
            return b""
        self._in.write(data)
        if not self.ready and not self._shake():
            return b""
        parts: List[bytes] = []
        try:
            while True:
                part = self._tls.read(READ)
                if not part:
                    self.ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.broken = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _shake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self.broken = error
            return False
        self.ready = True
        if self._quiet is not None:
            self._tls.context = self._quiet
        return True

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        try:
            while view and not self.broken:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            self.broken = error

    def end(self) -> None:
        """Say that no more comes from us; the peer may go on."""
        if self.ready and not self.broken:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # the peer's own word is not there yet

    def take(self) -> bytes:
        """What is to be sent."""
        return self._out.read() if self._out.pending else b""

    @property
    def protocol(self) -> str:
        """As ALPN has settled it; empty: it hasn't."""
        return self._tls.selected_alpn_protocol() or ""

    @property
    def certificate(self) -> bytes:
        """The peer's, DER."""
        return self._tls.getpeercert(True) or b""

    @property
    def asked(self) -> bool:
        """Has the peer asked for a certificate of ours?"""
        return bool(self._tls.asked)

    @property
    def why(self) -> str:
        return said(self.broken) if self.broken else "it hung up"


def said(error: ssl.SSLError) -> str:
    """As a person reads it; the library's words are such as SSLV3_ALERT_BAD_CERTIFICATE."""
    verified = getattr(error, "verify_message", "")
    return str(verified or (error.reason or str(error)).lower().replace("_", " "))


def listen(context: ssl.SSLContext) -> None:
    """Engines of this context know whether they were asked for a certificate. With TLS 1.3 that is encrypted, and no public
    interface tells it; CPython has this one since 3.8. It is called for each record: engines that are ready leave the context."""
    def heard(connection: Any, direction: str, _version: Any, _content: Any, kind: Any, _data: bytes) -> None:
        if kind == _CERTIFICATE_REQUEST and direction == "read":
            connection.asked = True

    setattr(context, "_msg_callback", heard)  # noqa: B010  # typeshed has no such name


def bare(side: int) -> ssl.SSLContext:
    """A context of ssl.PROTOCOL_TLS_SERVER or _CLIENT that verifies nobody."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.sslobject_class = _Object
    return context
