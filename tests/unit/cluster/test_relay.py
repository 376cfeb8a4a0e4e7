"""A relay between a session's socket and a server that speaks exec over a WebSocket: a real one, in a thread, on a socket pair."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable

import pytest
from tests.testkit.websocket import server_frame, unmasked

from sidestage.cluster import websocket as ws
from sidestage.cluster.channels import EXEC_PROTOCOLS, Exec
from sidestage.cluster.relay import Relay
from sidestage.stream.loop import Loop


class Server(threading.Thread):
    """Gives every message to `serve(channel, data) -> bytes to send`; None ends it."""

    def __init__(self, sock: socket.socket, serve: Callable[[int, bytes], bytes | None]) -> None:
        super().__init__(daemon=True)
        self.sock, self.serve, self.seen = sock, serve, list[tuple[int, bytes]]()
        self.start()

    def run(self) -> None:
        with self.sock, self.sock.makefile("rb") as stream:
            while head := stream.read(2):
                size, more = head[1] & 0x7F, b""
                if size >= 126:
                    more = stream.read(2 if size == 126 else 8)
                    (size,) = struct.unpack(">H" if size == 126 else ">Q", more)
                opcode, payload = unmasked(head + more + stream.read(4 + size))
                self.seen.append((opcode, payload))
                if opcode == ws.CLOSE:
                    break
                answer = self.serve(payload[0], payload[1:])
                if answer is None:
                    break
                self.sock.sendall(answer)


def start(
    serve: Callable[[int, bytes], bytes | None], leftover: bytes = b""
) -> tuple[Server, socket.socket, list[str], threading.Thread]:
    near, far = socket.socketpair()
    ours, theirs = socket.socketpair()
    reasons: list[str] = []
    server = Server(far, serve)

    def run() -> None:
        loop = Loop()

        def ended(reason: str) -> None:
            reasons.append(reason)
            loop.stop()

        Relay(loop, near, leftover, Exec(EXEC_PROTOCOLS[0]), ours, ended)
        loop.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return server, theirs, reasons, thread


def echo(channel: int, data: bytes) -> bytes | None:
    return None if channel == 255 else server_frame(ws.BINARY, b"\x01" + data)


def test_bytes_come_back_whole_while_neither_side_waits_for_the_other() -> None:
    _server, session, reasons, thread = start(echo, server_frame(ws.BINARY, b"\x01early"))
    sent = os.urandom(5 << 20)
    writer = threading.Thread(target=session.sendall, args=(sent,))
    writer.start()
    got = b""
    while len(got) < len(sent) + 5:
        got += session.recv(1 << 16)
    writer.join(20)
    assert got == b"early" + sent
    session.close()
    thread.join(20)
    assert reasons


def test_the_sessions_end_closes_standard_input() -> None:
    server, session, reasons, thread = start(echo)
    session.sendall(b"last words")
    session.close()
    thread.join(20)
    assert [payload for _, payload in server.seen] == [b"\0last words", b"\xff\0"]
    assert len(reasons) == 1


def test_a_slow_session_holds_the_server_back() -> None:
    flood = server_frame(ws.BINARY, b"\x01" + bytes(1 << 20))
    sent = threading.Semaphore(0)

    def serve(_channel: int, data: bytes) -> bytes | None:
        for _ in range(64):
            server.sock.sendall(flood)
            sent.release()
        return b""

    server, session, _reasons, thread = start(serve)
    session.sendall(b"go")
    for _ in range(16):
        if not sent.acquire(timeout=0.5):
            break
    else:
        pytest.fail("what nobody reads is fetched nevertheless")
    got = 0
    while got < 64 << 20:
        got += len(session.recv(1 << 20))
    session.close()
    thread.join(20)


@pytest.mark.parametrize(
    "farewell, why",
    [
        (server_frame(ws.CLOSE, b"\x03\xf3going away"), "going away"),
        (b"\x83\x00", "the API server sent an unknown kind of frame"),
        (server_frame(ws.BINARY, b'\x03{"status":"Failure","message":"gone"}'), "gone"),
    ],
)
def test_the_servers_end_has_its_reason(farewell: bytes, why: str) -> None:
    def serve(_channel: int, _data: bytes) -> bytes | None:
        server.sock.sendall(farewell)
        return None

    server, session, reasons, thread = start(serve)
    session.sendall(b"x")
    thread.join(20)
    assert why in reasons[0]
    assert session.recv(10) == b""
    session.close()
