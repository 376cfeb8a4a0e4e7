"""The kubelet's probes of a port that is taken whole are the target's to answer: by HTTP, by gRPC, and by a mere connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest

from sidestage.http import http2
from tests.testkit.session import laptop
from tests.testkit.target import CLIENT, SERVICE, Target, wait_for

PORT = 50051


class Server(threading.Thread):
    """Answers HTTP/2 with its name. `first`: its SETTINGS don't wait for the client's. `wrong`: acknowledgements of nothing."""

    def __init__(self, listener: socket.socket, name: str, first: bool) -> None:
        super().__init__(daemon=True)
        self._listener, self._name, self._first = listener, name, first
        self.address = listener.getsockname()[:2]
        self.asked: list[bytes] = []
        self.wrong = self.ended = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=False))
        splitter, preface, begun, owed = http2.Splitter(), len(http2.PREFACE), False, 0
        with sock, contextlib.suppress(OSError):
            while True:
                if not begun and (self._first or preface < len(http2.PREFACE)):
                    begun, owed = True, 1
                    conn.initiate_connection()
                    sock.sendall(conn.data_to_send())
                data = sock.recv(65536)
                if not data:
                    break
                skip = min(preface, len(data))
                preface -= skip
                owed -= sum(each.kind == http2.SETTINGS and each.flags & http2.ACK for each in splitter.feed(data[skip:]))
                self.wrong += owed < 0
                for event in conn.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self.asked.append(dict(event.headers)[b"user-agent"])
                        conn.send_headers(event.stream_id, [(b":status", b"200")])
                        conn.send_data(event.stream_id, self._name.encode(), end_stream=True)
                if begun:
                    sock.sendall(conn.data_to_send())
        self.ended += 1


def ask(staging: Target, agent: str, wait: bool) -> str:
    """Who answers; `wait`: for the server's SETTINGS, as gRPC's clients do."""
    conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
    conn.initiate_connection()
    fields = {":method": "POST", ":scheme": "http", ":path": "/grpc.health.v1.Health/Check", ":authority": "x", "user-agent": agent}
    got, asked = b"", False
    with staging.connect((SERVICE, PORT), CLIENT) as sock:
        while True:
            sock.sendall(conn.data_to_send())
            if not (asked or wait):
                asked = True
                conn.send_headers(1, [(k.encode(), v.encode()) for k, v in fields.items()], end_stream=True)
                continue
            for event in conn.receive_data(sock.recv(65536)):
                if isinstance(event, h2.events.RemoteSettingsChanged):
                    wait = False
                elif isinstance(event, h2.events.DataReceived):
                    got += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return got.decode()


@contextlib.contextmanager
def both(staging: Target, first: bool) -> Iterator[tuple[Server, Server]]:
    """The target's server, and the local program."""
    with staging.endpoint() as there, socket.socket() as here:
        there.bind((SERVICE, PORT))
        here.bind(("127.0.0.1", 0))
        servers = Server(there, "staging", first), Server(here, "local", first)
        for server, listener in zip(servers, (there, here), strict=True):
            listener.listen()
            server.start()
        yield servers
        for listener in (there, here):
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("first", [False, True], ids=["they wait for the client", "they speak first"])
def test_probes_by_grpc_are_the_target_s(staging: Target, first: bool) -> None:
    kubelet, other = "kube-probe/1.36 grpc-go/1.80.0", "grpc-go/1.80.0"
    with both(staging, first) as (there, here), laptop(staging, here.address) as session:
        assert session.steal(PORT)[0] == 0
        for _ in range(3):
            for wait in (True, False):
                assert ask(staging, kubelet, wait) == "staging"
                assert ask(staging, other, wait) == "local"
        assert set(there.asked) == {kubelet.encode()}
        assert set(here.asked) == {other.encode()}
        assert not there.wrong + here.wrong, "SETTINGS of ours were acknowledged to them"


def test_the_program_is_told_of_probes_when_it_wants_them(staging: Target) -> None:
    with both(staging, False) as (_, here), laptop(staging, here.address) as session:
        assert session.steal(PORT, probes=True)[0] == 0
        assert ask(staging, "kube-probe/1.36 grpc-go/1.80.0", True) == "local"


def test_a_client_of_http2_that_never_asks_is_the_program_s(staging: Target) -> None:
    with both(staging, False) as (_, here), laptop(staging, here.address) as session:
        assert session.steal(PORT)[0] == 0
        with staging.connect((SERVICE, PORT), CLIENT) as sock:
            sock.sendall(http2.PREFACE + http2.settings({}))
            wait_for("the program's SETTINGS", lambda: sock.recv(999) != http2.settings({}))


@pytest.mark.parametrize("down", ["pass", "502"])
def test_probes_are_answered_while_the_program_is_down(staging: Target, down: str) -> None:
    probe = ["curl", "-sSA", "kube-probe/1.36", f"http://{SERVICE}:8080/healthz"]
    with both(staging, False), laptop(staging, None) as session:
        assert session.steal(8080, down=down)[0] == 0
        assert session.steal(PORT, down=down)[0] == 0
        for _ in range(3):
            assert staging.native(probe).out == "staging /healthz\n"
            assert ask(staging, "kube-probe/1.36 grpc-go/1.80.0", True) == "staging"


def test_a_connection_that_closes_at_once_is_over_for_the_program_too(staging: Target) -> None:
    """So the kubelet's tcpSocket probes do: none of them may stay behind."""
    with both(staging, False) as (_, here), laptop(staging, here.address) as session:
        assert session.steal(PORT)[0] == 0
        for _ in range(5):
            staging.connect((SERVICE, PORT), CLIENT).close()
        wait_for("their ends", lambda: here.ended == 5)
