"""The port for bulk connections: only a fresh token opens it, once; whoever guesses is cut off for good."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sidestage.agent import bulk
from sidestage.agent.bulk import Bulk
from sidestage.stream.loop import Loop


class Port:
    def __init__(self) -> None:
        self.loop = Loop()
        self.served: list[int] = []
        listener = bulk.listen()
        assert listener
        self.address = listener.getsockname()
        self.bulk = Bulk(self.loop, listener)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def serve(self, fd: int) -> None:
        self.served.append(fd)
        os.write(fd, b"welcome")

    def ask(self, *parts: bytes) -> bytes:
        """What a connection that sends `parts` is answered; empty when it is closed."""
        with socket.create_connection(self.address[:2], timeout=20) as sock:
            for part in parts:
                sock.sendall(part)
                time.sleep(0.01)
            try:
                return sock.recv(100)
            except ConnectionResetError:
                return b""

    def ticket(self) -> bytes:
        return str(self.bulk.ticket(self.serve)["token"]).encode()


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.loop.soon(made.loop.stop)
    made.loop.offload(lambda: None, lambda *_: None)  # wakes it up
    made.thread.join(20)
    for fd in made.served:
        os.close(fd)
    if made.bulk._listener:
        made.bulk._listener.close()


def test_it_listens_on_loopback_only(port: Port) -> None:
    assert port.address[0] in ("127.0.0.1", "::1")
    assert port.bulk.ticket(port.serve)["port"] == port.address[1]


def test_a_token_opens_once(port: Port) -> None:
    token = port.ticket()
    assert len(token) == bulk.TOKEN_BYTES
    assert port.ask(token) == b"welcome"
    assert port.ask(token) == b""


def test_a_token_in_pieces(port: Port) -> None:
    token = port.ticket()
    assert port.ask(token[:5], token[5:31], token[31:]) == b"welcome"


@pytest.mark.parametrize("shown", [b"x" * 32, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"0" * 31 + b"\n"])
def test_anything_else_does_not(port: Port, shown: bytes) -> None:
    port.ticket()
    assert port.ask(shown) == b""
    assert port.served == []


def test_a_token_expires(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    token = port.ticket()
    monkeypatch.setattr(bulk, "TOKEN_SECONDS", 0.0)
    late = port.ticket()
    assert port.ask(late) == b""
    assert port.ask(token) == b"welcome"


def test_the_silent_are_closed_and_do_not_shut_others_out(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "GREETING_SECONDS", 0.5)
    idle = [socket.create_connection(port.address[:2], timeout=20) for _ in range(bulk.MAX_WAITING)]
    for sock in idle:
        assert sock.recv(1) == b""
        sock.close()
    assert port.ask(port.ticket()) == b"welcome"


def test_after_many_guesses_the_port_is_closed(port: Port) -> None:
    token = port.ticket()
    for _ in range(bulk.MAX_REFUSED):
        assert port.ask(b"x" * 32) == b""
    with pytest.raises(OSError):
        port.ask(token)
    with pytest.raises(OSError, match="no port"):
        port.bulk.ticket(port.serve)


def test_tokens_are_bounded(port: Port) -> None:
    for _ in range(bulk.MAX_TOKENS):
        port.ticket()
    with pytest.raises(OSError, match="too many"):
        port.ticket()
