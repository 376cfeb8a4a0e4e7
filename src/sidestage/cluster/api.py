"""The client of the Kubernetes API: requests, watches, and connections that become WebSockets. Blocking; nothing but stdlib.

One `Api` keeps one connection for its requests, one at a time; a watch and an upgrade each have their own. Credentials that are
refused (401) are renewed once. Overload (429, 503 with Retry-After) is waited out, as client-go does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from sidestage import __version__
from sidestage.cluster import dial, http, tls
from sidestage.cluster.auth import Credentials
from sidestage.cluster.errors import ApiError, ClusterError, from_status, unreachable
from sidestage.cluster.kubeconfig import Access

if TYPE_CHECKING:
    from sidestage.cluster.channels import Piped
    from sidestage.cluster.kubectl import Proxy

__all__ = ["Api", "ApiError", "ClusterError", "Upgraded", "path_of"]

TIMEOUT = 30.0  # seconds for a whole answer
RETRIES = 3  # of a request that the API server puts off
MAX_DELAY = 5.0  # seconds; a longer Retry-After is not waited for, but tried after this
MAX_ERROR = 1 << 20
MAX_LINE = 16 << 20  # bytes of one event; etcd holds objects of 1.5 MiB
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')  # of the header Warning (RFC 7234 5.5)


@dataclass(slots=True)
class Upgraded:
    """A connection that speaks WebSocket now; blocking, without a time-out."""

    sock: socket.socket  # an ssl.SSLSocket for https: look at pending() before waiting
    protocol: str
    leftover: bytes  # read already, belongs before what `sock` gives


class Api:
    def __init__(self, access: Access) -> None:
        self.access, self.namespace = access, access.namespace
        self.notes: list[str] = []  # what was decided for the user, to be said
        self._server = dial.url(access.cluster.server, ("https", "http"), f"the server of {access}")
        self._proxy = dial.proxy_for(self._server, access.cluster.proxy_url)
        self._credentials = Credentials(access)
        self._tls: tuple[tls.Certificate | None, ssl.SSLContext] | None = None
        self.warnings: list[str] = []  # of the last request's answer: deprecations, and what Pod Security thinks of a Job
        self._lock = threading.RLock()
        self._idle: http.Http | None = None
        self.behind: Proxy | None = None  # what we go through, and end

    def log_in(self) -> None:
        """Have credentials before the first request: a plugin may ask questions. Raises ClusterError."""
        self._credentials.headers()
        self._credentials.certificate()

    def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
        content_type: str = "application/json", accept: str = "application/json", timeout: float = TIMEOUT,
    ) -> Any:  # fmt: skip
        """The answer's JSON (or text, where it is none). Raises ApiError, ClusterError."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = [("Accept", accept)]
        if data or method in ("POST", "PUT", "PATCH"):
            headers += [("Content-Type", content_type), ("Content-Length", str(len(data)))]
        target = self._target(path, urlencode(query or {}))
        with self._lock:
            connection, head = self._send(method, target, headers, data, timeout)
            self.warnings = [_unquoted(text) for text in WARNING.findall(head.headers.get("warning", ""))]
            try:
                answer = http.whole(connection.body(head, method))
            except OSError as error:
                connection.close()
                raise self._unreachable(error) from error
            self._keep(connection)
        try:
            return json.loads(answer) if "json" in head.headers.get("content-type", "") else answer.decode(errors="replace")
        except ValueError as error:
            raise ClusterError(f"{self._server.address} answered with broken JSON", "is it an API server?") from error

    def watch(self, path: str, *, query: Mapping[str, str] | None = None, timeout: float) -> Iterator[dict[str, Any]]:
        """Events {type, object} until `timeout` seconds are over or the server ends it; an ERROR event raises ApiError."""
        ends = time.monotonic() + timeout
        wanted = {**(query or {}), "watch": "true", "timeoutSeconds": str(max(1, int(timeout) + 1))}
        with self._lock:
            connection, head = self._send(
                "GET", self._target(path, urlencode(wanted)), [("Accept", "application/json")], b"", timeout, fresh=True
            )  # fmt: skip
        with closing(connection):
            for line in _lines(connection.body(head), ends):
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise ApiError(int(status.get("code") or 500), str(status.get("reason")), str(status.get("message")))
                yield event

    def upgrade(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str], timeout: float = TIMEOUT
    ) -> Upgraded:
        """A new connection, authenticated and made a WebSocket (RFC 6455 4.1). Raises ApiError, ClusterError."""
        key = base64.b64encode(os.urandom(16))
        headers = [
            ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key.decode()),
            ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", ", ".join(protocols)),
        ]  # fmt: skip
        with self._lock:
            connection, head = self._send("GET", self._target(path, urlencode(query)), headers, b"", timeout, fresh=True)
        proof = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()
        chosen = head.headers.get("sec-websocket-protocol", "")
        if head.status != 101 or head.headers.get("sec-websocket-accept") != proof or chosen not in protocols:
            connection.close()
            why = f"{head.status} {head.phrase}" if head.status != 101 else f"protocol {chosen!r}"
            raise ClusterError(
                f"no WebSocket through {self._server.address} ({why})", "a proxy on the way may forbid it; Kubernetes 1.29 or later"
            )
        connection.sock.settimeout(None)
        return Upgraded(connection.sock, chosen, connection.leftover())

    def upgrade_spdy(
        self, path: str, query: Sequence[tuple[str, str]], protocol: str, timeout: float = TIMEOUT
    ) -> Upgraded:
        """The same for SPDY/3.1, as the kubelet speaks it. Raises ApiError, ClusterError."""
        headers = [
            ("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol), ("Content-Length", "0"),
        ]  # fmt: skip
        with self._lock:
            connection, head = self._send("POST", self._target(path, urlencode(query)), headers, b"", timeout, fresh=True)
        chosen = head.headers.get("x-stream-protocol-version", "")
        if head.status != 101 or chosen != protocol:
            connection.close()
            raise ClusterError(f"no SPDY through {self._server.address} ({head.status} {head.phrase})", "a proxy may forbid it")
        connection.sock.settimeout(None)
        return Upgraded(connection.sock, chosen, connection.leftover())

    def exec(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> tuple[Upgraded, Piped] | None:
        """A command's streams by another way than a connection of ours: commands.py has one."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._idle:
                self._idle.close()
            self._idle = None
            if self.behind:
                self.behind.close()
            self.behind = None

    def _target(self, path: str, query: str) -> str:
        return f"{self._server.path}{path}" + (f"?{query}" if query else "")

    def _send(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, timeout: float, fresh: bool = False
    ) -> tuple[http.Http, http.Head]:
        """One answer below 400, its body unread."""
        retries, renewed = RETRIES, False
        while True:
            connection, head = self._exchange(method, target, headers, body, timeout, fresh)
            if head.status < 400:
                return connection, head
            try:
                said = http.whole(connection.body(head, method), MAX_ERROR)
            except OSError:
                connection.keep, said = False, b""
            if fresh:
                connection.close()
            else:
                self._keep(connection)
            if head.status == 401 and not renewed and self._credentials.forget():
                renewed = True
                self.close()  # a certificate belongs to its connection
            elif head.status in (429, 503) and "retry-after" in head.headers and retries:
                retries -= 1
                wait = head.headers["retry-after"]
                time.sleep(min(float(wait) if wait.isdecimal() else 1.0, MAX_DELAY))
            else:
                raise from_status(head.status, head.phrase, said)

    def _exchange(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, timeout: float, fresh: bool
    ) -> tuple[http.Http, http.Head]:
        common = [("Host", self._server.address), ("User-Agent", f"sidestage/{__version__}")]
        sent = [*common, *self._credentials.headers(), *headers]
        connection = None if fresh else self._reuse()
        if connection is not None:
            try:
                return connection, connection.send(method, target, sent, body, timeout)
            except OSError as error:
                connection.close()
                if isinstance(error, TimeoutError) or method not in ("GET", "HEAD"):
                    raise self._unreachable(error) from error
                # It went stale in that moment; asking twice does no harm.
        try:
            connection = http.Http(self._dial())
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            return connection, connection.send(method, target, sent, body, timeout)
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from error

    def _dial(self) -> Any:
        cluster = self.access.cluster
        if cluster.socket:
            return dial.local(cluster.socket)
        return dial.dial(self._server, self._proxy, self._context(), cluster.tls_server_name)

    def _reuse(self) -> http.Http | None:
        connection, self._idle = self._idle, None
        if connection is None:
            return None
        poll = select.poll()  # select(2) ends at descriptor 1023
        poll.register(connection.sock, select.POLLIN)
        if poll.poll(0):  # nobody asked: it is the end, or nonsense
            connection.close()
            return None
        return connection

    def _keep(self, connection: http.Http) -> None:
        if connection.keep and self._idle is None:
            self._idle = connection
        else:
            connection.close()

    def _context(self) -> ssl.SSLContext | None:
        if self._server.scheme != "https":
            return None
        certificate = self._credentials.certificate()
        if self._tls is None or self._tls[0] != certificate:
            self._tls = certificate, tls.context(self.access.cluster, certificate)
        return self._tls[1]

    def _unreachable(self, error: OSError) -> ClusterError:
        return unreachable(error, f"the API server {self._server.address} ({self.access})")


def path_of(*parts: str) -> str:
    """A path of names, each quoted."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _lines(pieces: Iterator[bytes], ends: float) -> Iterator[bytes]:
    """Whole lines, until the time-out; a line that it cuts is dropped."""
    rest = b""
    try:
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line for line in lines if line.strip())
            if len(rest) > MAX_LINE:
                raise ClusterError(f"an event is longer than {MAX_LINE >> 20} MiB", "watch fewer objects")
            if time.monotonic() >= ends:
                return
    except OSError:  # timed out, or cut: the caller asks again if it wants more
        return
