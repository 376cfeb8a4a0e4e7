"""Connects to the API server: directly, or through an HTTP, HTTPS or SOCKS5 proxy; TLS inside. All blocking, all bounded.

Proxies as kubectl takes them: `proxy-url` of the kubeconfig, else HTTPS_PROXY, HTTP_PROXY and NO_PROXY, never for loopback
(golang.org/x/net/http/httpproxy).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidestage.cluster.errors import ClusterError, text_of
from sidestage.cluster.http import Http

CONNECT_TIMEOUT = 15.0  # seconds for TCP, proxy and TLS each
DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
SOCKS_ERRORS = (
    "ok", "general failure", "not allowed by its rules", "network unreachable", "host unreachable", "connection refused",
    "TTL expired", "command not supported", "address type not supported",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Url:
    scheme: str
    host: str
    port: int
    path: str = ""
    user: str = ""
    password: str = ""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def url(text: str, schemes: tuple[str, ...], what: str) -> Url:
    """Raises ClusterError."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ClusterError(f"{what} {text!r} is not a URL: {error}", "correct it in the kubeconfig") from error
    if parts.scheme not in schemes or not host:
        raise ClusterError(f"{what} {text!r} is not a URL of {', '.join(schemes)}", "correct it in the kubeconfig")
    return Url(
        parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/"),
        unquote(parts.username or ""), unquote(parts.password or ""),
    )  # fmt: skip


def proxy_for(server: Url, configured: str, environ: Mapping[str, str] = os.environ) -> Url | None:
    """The proxy on the way to `server`, if any; raises ClusterError."""
    schemes = ("http", "https", "socks5", "socks5h")
    if configured:
        return url(configured, schemes, "proxy-url")
    name = f"{server.scheme}_proxy"
    given = environ.get(name.upper()) or environ.get(name) or ""
    if not given or _excepted(server, environ.get("NO_PROXY") or environ.get("no_proxy") or ""):
        return None
    return url(given if "://" in given else f"http://{given}", schemes, name.upper())


def _excepted(server: Url, listed: str) -> bool:
    """Is `server` reached without the proxy of the environment? Names match with their subdomains, addresses by CIDR."""
    import ipaddress

    try:
        address = ipaddress.ip_address(server.host)
    except ValueError:
        address = None
    if server.host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in (part.strip().lower() for part in listed.split(",")):
        if entry == "*":
            return True
        if not entry:
            continue
        host, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if port and port != str(server.port):
            continue
        if address is not None:
            try:
                if address in ipaddress.ip_network(host.strip("[]"), strict=False):
                    return True
            except ValueError:
                continue
        else:
            name = host.removeprefix("*").removeprefix(".")
            if server.host.lower().endswith("." + name) or (server.host.lower() == name and not host.startswith((".", "*"))):
                return True
    return False


def dial(server: Url, proxy: Url | None, tls: ssl.SSLContext | None, name: str = "", timeout: float = CONNECT_TIMEOUT) -> Any:
    """A connected socket, an SSLSocket with `tls`; `name` is the one in the certificate. Raises OSError, ClusterError."""
    if proxy is None:
        sock = _connect(server, timeout)
    else:
        sock = _through(proxy, server, timeout)
    if tls is None:
        return sock
    try:
        sock.settimeout(timeout)
        return tls.wrap_socket(sock, server_hostname=name or server.host)
    except BaseException:
        sock.close()
        raise


def local(path: str, timeout: float = CONNECT_TIMEOUT) -> socket.socket:
    """To a unix socket. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(to: Url, timeout: float) -> socket.socket:
    sock = socket.create_connection((to.host, to.port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _through(proxy: Url, server: Url, timeout: float) -> socket.socket:
    try:
        sock = _connect(proxy, timeout)
    except OSError as error:
        raise ClusterError(
            f"can't reach the proxy {proxy.address}: {text_of(error)}", "check proxy-url in the kubeconfig, or HTTPS_PROXY"
        ) from error
    try:
        if proxy.scheme.startswith("socks5"):
            _socks5(sock, proxy, server)
            return sock
        if proxy.scheme == "https":
            from sidestage.cluster.bridge import bridge

            return bridge(sock, proxy.host, lambda inner: _tunnel(inner, proxy, server, timeout))
        _tunnel(sock, proxy, server, timeout)
        return sock
    except OSError as error:
        sock.close()
        raise ClusterError(
            f"the proxy {proxy.address} failed: {text_of(error)}", "check proxy-url in the kubeconfig, or HTTPS_PROXY"
        ) from error
    except BaseException:
        sock.close()
        raise


def _tunnel(sock: socket.socket, proxy: Url, server: Url, timeout: float) -> None:
    """HTTP CONNECT (RFC 9110 9.3.6)."""
    headers = [("Host", server.address)]
    if proxy.user:
        import base64

        secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {secret}"))
    http = Http(sock)
    head = http.send("CONNECT", server.address, headers, b"", timeout)
    if head.status != 200:
        cure = "put user:password@ into proxy-url" if head.status == 407 else "it must allow CONNECT to the API server"
        raise ClusterError(f"the proxy {proxy.address} refused: {head.status} {head.phrase}", cure)
    if http.leftover():
        raise OSError("it sent data before the tunnel was used")


def _socks5(sock: socket.socket, proxy: Url, server: Url) -> None:
    """RFC 1928, with the password of RFC 1929; the proxy looks the name up."""
    sock.sendall(b"\x05\x02\x00\x02" if proxy.user else b"\x05\x01\x00")
    version, method = _exactly(sock, 2)
    if version != 5 or method not in (0, 2) or (method == 2 and not proxy.user):
        raise OSError("it takes no login that we have" if version == 5 else "it is no SOCKS5 proxy")
    if method == 2:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if _exactly(sock, 2)[1]:
            raise OSError("it refused the password")
    host = server.host.encode("idna")
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + server.port.to_bytes(2, "big"))
    _version, answer, _reserved, kind = _exactly(sock, 4)
    if answer:
        raise OSError(SOCKS_ERRORS[answer] if answer < len(SOCKS_ERRORS) else f"error {answer}")
    _exactly(sock, {1: 4, 4: 16}.get(kind) or _exactly(sock, 1)[0])
    _exactly(sock, 2)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise OSError("it closed the connection")
        data += piece
    return data
