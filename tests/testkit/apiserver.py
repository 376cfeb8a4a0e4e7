"""An API server that is scripted: real sockets, real TLS with certificates of its own authority; answers are a function."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUBJECTS = {"server": "DNS:api.example,DNS:localhost,IP:127.0.0.1", "client": "DNS:client"}


@dataclass(frozen=True)
class Certificates:
    """PEM files: ca.crt; server.crt (for api.example, localhost, 127.0.0.1); client.crt; and the keys."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


def certificates(folder: Path) -> Certificates:
    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=test-ca", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
    for name, alternatives in SUBJECTS.items():
        openssl("req", *key, "-subj", f"/CN={name}/O=devs", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(f"subjectAltName={alternatives}\n")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )  # fmt: skip
    return Certificates(folder)


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]  # in lower case; those that come twice joined by `, `
    body: bytes
    sock: socket.socket
    peer: dict[str, Any] | None  # the client's certificate

    def answer(self, status: int, body: Any = None, *headers: str) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = [] if any(header.startswith("Content-Type") for header in headers) else ["Content-Type: application/json"]
        lines = [f"HTTP/1.1 {status} X", *kind, f"Content-Length: {len(data)}", *headers]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def refuse(self, status: int, message: str, *headers: str) -> None:
        self.answer(status, {"kind": "Status", "reason": "No", "message": message, "code": status}, *headers)


@dataclass
class Server:
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    tls: bool = True

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(handle: Callable[[Request], object], certs: Certificates | None, *, client_ca: bool = False) -> Iterator[Server]:
    """Serve until the end of the block; `handle` answers each request, and may return False to close the connection."""
    context = None
    if certs:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certs["server.crt"], certs["server.key"])
        if client_ca:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(certs["ca.crt"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1], tls=certs is not None)
    open_: list[socket.socket] = []

    def serve(raw: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError), raw:
            sock = context.wrap_socket(raw, server_side=True) if context else raw
            open_.append(sock)
            with sock, sock.makefile("rb") as file:
                while request := _read(sock, file):
                    server.requests.append(request)
                    if handle(request) is False:
                        return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                server.connections += 1
                threading.Thread(target=serve, args=(raw,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for sock in open_:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _read(sock: socket.socket, file: Any) -> Request | None:
    first = file.readline().decode().split()
    if not first:
        return None
    headers: dict[str, str] = {}
    while (line := file.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    body = file.read(int(headers.get("content-length", "0")))
    peer = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    return Request(first[0], first[1], headers, body, sock, peer)
