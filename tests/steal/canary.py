"""A client of the target that asks again and again, one request at a time, and keeps account of every answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tests.testkit.target import CLIENT, SERVICE, Target
from tests.testkit.tls import NAME

PAUSE = 0.002  # seconds between requests
RETRY = 0.05  # seconds after a loss, as clients wait before they try again
PATIENCE = 10.0  # seconds for an answer


class Canary(threading.Thread):
    """`keep`: one connection for all requests, made anew when it ends; `header`: a line that filters match; `secure`: by TLS."""

    def __init__(
        self, target: Target, port: int = 8080, *, keep: bool, header: str = "", secure: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(daemon=True)
        self._secure = secure
        self._target, self._port, self._keep, self._header = target, port, keep, header
        self.staging = self.local = self.closed = 0  # closed: an idle kept connection that ended in order
        self.lost: list[str] = []
        self.longest = 0.0
        self._stop_asking = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asking.is_set():
            try:
                sock = self._target.connect((SERVICE, self._port), CLIENT)
            except OSError as error:
                self.lost.append(f"{number}: connect: {error!r}")
                continue
            if self._secure is not None:
                sock = self._secure.wrap_socket(sock, server_hostname=NAME, do_handshake_on_connect=False)
            sock.settimeout(PATIENCE)
            with sock:
                while not self._stop_asking.is_set():
                    number += 1
                    began = time.monotonic()
                    try:
                        answer = self._ask(sock, number)
                    except OSError as error:
                        self.lost.append(f"{number}: {error!r}")
                        time.sleep(RETRY)
                        break
                    self.longest = max(self.longest, time.monotonic() - began)
                    if answer == f"staging /{number}\n":
                        self.staging += 1
                    elif answer == f"local /{number}\n":
                        self.local += 1
                    else:
                        self.lost.append(f"{number}: {answer!r}")
                        break
                    time.sleep(PAUSE)
                    if not self._keep:
                        break

    def _ask(self, sock: socket.socket, number: int) -> str:
        connection = "keep-alive" if self._keep else "close"
        sock.sendall(f"GET /{number} HTTP/1.1\r\nHost: x\r\n{self._header}Connection: {connection}\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            if not part:
                raise ConnectionError(f"the connection ended after {data!r}")
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            part = sock.recv(65536)
            if not part:
                raise ConnectionError("the connection ended within an answer")
            body += part
        return body.decode()

    @property
    def answered(self) -> int:
        return self.staging + self.local

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_asking.set()
        self.join(PATIENCE + 5)
        assert not self.is_alive()


@contextlib.contextmanager
def canaries(
    target: Target, header: str, port: int = 8080, secure: ssl.SSLContext | None = None
) -> Iterator[tuple[list[Canary], list[Canary]]]:
    """Those whom no filter matches, and those with `header`; of both one with new connections and one that keeps its own."""
    others = [Canary(target, port, keep=keep, secure=secure) for keep in (False, True)]
    mine = [Canary(target, port, keep=keep, header=header, secure=secure) for keep in (False, True)]
    with contextlib.ExitStack() as stack:
        for canary in others + mine:
            stack.enter_context(canary)
        yield others, mine
