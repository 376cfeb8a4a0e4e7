"""The certificate and key that a port shows to its clients: given, or files of the target, which are read again when they change.

A spec is `{certificate, key, alpn}`; the first two are `{pem}` or `{path}`, and `alpn`, if there, the only protocols to be had.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from sidestage.tls.engine import Engine, bare, listen, said

CHECK = 1.0  # seconds between looks at the target's files
MAX_CONTEXTS = 64  # kept for combinations of protocols
MAX_NAMES = 256  # server names whose answer is kept
_PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN of Python 3.10
_STRICT = 0x20  # ssl.VERIFY_X509_STRICT
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64  # X509_V_ERR_*, openssl/x509_vfy.h
_FLIGHTS = 3  # back and forth; a handshake with HelloRetryRequest has two, RFC 8446 2.1
_DATES = {_EXPIRED: "has expired", _NOT_YET: "is not valid yet"}

Read = Callable[[str], bytes]  # a file of the target; raises OSError
Spec = Dict[str, Any]


class IdentityError(ValueError):
    """Cause and cure."""


class Identity:
    """Raises IdentityError."""

    def __init__(self, spec: Spec, read: Read) -> None:
        self._spec, self._read = spec, read
        self.only: Optional[List[str]] = spec.get("alpn")
        self.note = ""  # what is wrong, though it goes on
        self._checked = time.monotonic()
        self._covered: Dict[str, bool] = {}
        self._contexts: Dict[str, ssl.SSLContext] = {}
        self._pems = self._fetch()
        self._adopt(self._pems)

    def _fetch(self) -> Tuple[bytes, bytes]:
        spec, read = self._spec, self._read
        certificate = spec["certificate"]
        if "path" in certificate and not spec.get("key"):
            with contextlib.suppress(IsADirectoryError, NotADirectoryError, FileNotFoundError):
                folder = certificate["path"].rstrip("/")  # as a Secret of type kubernetes.io/tls is mounted
                return read(f"{folder}/tls.crt"), read(f"{folder}/tls.key")
        pem = _source(certificate, "certificate", read)
        return pem, _source(spec["key"], "key", read) if spec.get("key") else pem

    def _adopt(self, pems: Tuple[bytes, bytes]) -> None:
        self.leaf = leaf_of(pems[0])
        context = server(*pems)
        self._pems, self._contexts = pems, {"": context}
        self._covered.clear()
        self.note = _DATES.get(_trial(context, self.leaf, ""), "")

    def refresh(self) -> str:
        """Have the target's files changed? What is wrong with the new ones: then the old are shown on."""
        now = time.monotonic()
        if now - self._checked < CHECK:
            return ""
        self._checked = now
        try:
            pems = self._fetch()
            if pems != self._pems:
                self._adopt(pems)
        except IdentityError as error:
            return f"{error}; the one that was there before is used on"
        return ""

    def plain(self) -> Spec:
        """A spec with the contents in it, for an agent that sees other files."""
        certificate, key = self._pems
        return {**self._spec, "certificate": {"pem": certificate.decode("latin-1")}, "key": {"pem": key.decode("latin-1")}}

    def same(self, other: "Identity") -> bool:
        return self.leaf == other.leaf and self.only == other.only

    def covers(self, name: str) -> bool:
        """Is it a certificate for `name`? As the library itself sees it, in a handshake with ourselves."""
        known = self._covered.get(name) if name else False
        if known is None:
            if len(self._covered) >= MAX_NAMES:
                self._covered.clear()
            known = self._covered[name] = _trial(self._contexts[""], self.leaf, name) not in (_OTHER_NAME, _OTHER_ADDRESS, -1)
        return known

    def engine(self, protocol: str) -> Engine:
        """Towards a client; `protocol` is what ALPN shall come to."""
        context = self._contexts.get(protocol)
        if context is None:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts = {"": self._contexts[""]}
            context = self._contexts[protocol] = server(*self._pems)
            context.set_alpn_protocols([protocol])
        return Engine(context, server=True)


class Peers:
    """Engines towards the target's own server, which may show any certificate: the way there is within its own network."""

    def __init__(self) -> None:
        self._contexts: Dict[Tuple[str, ...], ssl.SSLContext] = {}
        self._quiet = bare(ssl.PROTOCOL_TLS_CLIENT)

    def engine(self, protocols: Sequence[str], name: str) -> Engine:
        """Raises ValueError for a name that is none."""
        key = tuple(protocols)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts.clear()
            context = self._contexts[key] = bare(ssl.PROTOCOL_TLS_CLIENT)
            listen(context)
            if protocols:
                context.set_alpn_protocols(list(protocols))
        return Engine(context, server=False, name=name, quiet=self._quiet)


def server(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """Raises IdentityError."""
    context = bare(ssl.PROTOCOL_TLS_SERVER)
    present(context, certificate, key)
    return context


def present(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Raises IdentityError."""
    if b"PRIVATE KEY-----" not in key:
        raise IdentityError("the key's file holds no private key in PEM; convert it: openssl pkey -in FILE -out key.pem")
    leaf_of(certificate)
    try:
        with in_memory(certificate, key) as (chain, secret):
            context.load_cert_chain(chain, secret, _no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise IdentityError("the key is not the certificate's; name the two that belong together") from None
        if error.reason in (None, "PEM_LIB", "ASN1_LIB"):
            raise IdentityError("certificate or key is damaged; see what is said by: openssl pkey -in FILE -check") from None
        raise IdentityError(f"certificate or key can't be used: {said(error)}") from None
    except ValueError as error:
        raise IdentityError(str(error)) from None


@contextlib.contextmanager
def in_memory(*contents: bytes) -> Iterator[List[str]]:
    """Paths for a library that takes files only: a key stays off the disk."""
    fds: List[int] = []
    try:
        for content in contents:
            fds.append(os.memfd_create("sidestage-tls", os.MFD_CLOEXEC))
            os.write(fds[-1], content)
        yield [f"/proc/self/fd/{fd}" for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def leaf_of(pem: bytes) -> bytes:
    """The first certificate of a chain, DER. Raises IdentityError."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    _, found, rest = pem.partition(begin)
    try:
        if not found:
            raise ValueError
        return ssl.PEM_cert_to_DER_cert((begin + rest.partition(end)[0] + end).decode("ascii"))
    except ValueError:
        raise IdentityError(
            "the certificate's file holds no certificate in PEM; convert it: openssl x509 -in FILE -out tls.crt"
        ) from None


def _trial(context: ssl.SSLContext, leaf: bytes, name: str) -> int:
    """What a client that trusts this certificate, and nothing else, says of it: a code of OpenSSL, 0, or -1 for no name at all."""
    client = bare(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=leaf)
    client.verify_mode = ssl.CERT_REQUIRED
    client.verify_flags = ssl.VerifyFlags((client.verify_flags | _PARTIAL_CHAIN) & ~_STRICT)
    client.check_hostname = bool(name)
    try:
        one, other = Engine(client, server=False, name=name), Engine(context, server=True)
    except ValueError:
        return -1
    one.start()
    for _ in range(_FLIGHTS):
        other.feed(one.take())
        one.feed(other.take())
    return int(getattr(one.broken, "verify_code", 0) or 0)


def _source(source: Dict[str, str], what: str, read: Read) -> bytes:
    if "pem" in source:
        return source["pem"].encode("latin-1")
    path = source["path"]
    try:
        return read(path)
    except OSError as error:
        raise IdentityError(
            f"the {what} {path} can't be read in the target: {(error.strerror or str(error)).lower()}; "
            f"name another with feature.network.incoming.tls.{what}"
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; write a plain one: openssl pkey -in FILE -out key.pem")  # else a terminal is asked
