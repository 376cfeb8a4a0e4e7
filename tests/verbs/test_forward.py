"""`port-forward`: connections made from the target's network, and its clients brought here."""

from __future__ import annotations

import http.server
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sidestage.cli.errors import UserError
from sidestage.cli.forward import forward, reverse
from tests.testkit.target import SERVICE, Target, wait_for
from tests.testkit.verb import once, verb


def port_of(line: str) -> int:
    match = re.search(r"127\.0\.0\.1:(\d+) ->", line)
    assert match, line
    return int(match[1])


def send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def received(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 18), b""))


@contextmanager
def local_service() -> Iterator[tuple[int, list[str]]]:
    paths: list[str] = []

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"local")

        def log_message(self, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port, paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host", ["db.staging.internal", "db", "10.77.0.20", "[fd77::20]"])
def test_a_port_here_leads_to_a_host_there(staging: Target, host: str) -> None:
    with verb(["port-forward", "-t", f"process/{staging.pid}", "-L", f"0:{host}:7000"]) as run:
        port = port_of(run.wait("Ready"))
        for size in (4, 3 << 20):  # one that has to wait for room on its way, too
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sent = bytes(range(256)) * (size // 256) or b"ping"
                sender = threading.Thread(target=send, args=(sock, sent))
                sender.start()
                assert received(sock) == sent
                sender.join()
        assert run.end() == 0


def test_what_can_not_be_reached_is_said_and_refused_and_the_rest_goes_on(staging: Target) -> None:
    names = ["-L", "0:10.77.0.20:7999", "-L", "0:nobody.staging.internal:1", "-L", "0:db:7000"]
    with verb(["port-forward", "-t", f"process/{staging.pid}", *names]) as run:
        closed, unknown, good = (port_of(part) for part in run.wait("Ready").split(";"))
        for port in (closed, unknown):
            with socket.create_connection(("127.0.0.1", port), 10) as sock, pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert "10.77.0.20:7999: connection refused" in run.wait(":7999: ")
        assert "name not known there" in run.wait("nobody.staging.internal:1: ")
        with socket.create_connection(("127.0.0.1", good), 10) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert run.end() == 0


def test_targetless_connects_from_the_agents_own_place() -> None:
    with local_service() as (port, paths), verb(["port-forward", "-t", "targetless", "-L", f"0:localhost:{port}"]) as run:
        with socket.create_connection(("127.0.0.1", port_of(run.wait("Ready"))), 10) as sock:
            sock.sendall(b"GET /here HTTP/1.0\r\n\r\n")
            assert b"local" in received(sock)
        assert paths == ["/here"]
        assert run.end() == 0


@pytest.mark.parametrize("steal", [False, True], ids=["mirror", "steal"])
def test_what_comes_to_the_target_comes_here(staging: Target, steal: bool) -> None:
    with local_service() as (port, paths):
        flags = ["-R", f"8080:{port}", *(["--steal"] if steal else [])]
        with verb(["port-forward", "-t", f"process/{staging.pid}", *flags]) as run:
            run.wait("Ready")
            answers = []

            def asked() -> bool:  # the claim is on its way when it is ready
                answers.append(staging.client(f"http://{SERVICE}:8080/asked").out)
                return bool(paths)

            wait_for("a request here", asked)
            assert paths[0] == "/asked"
            assert answers[-1] == ("local" if steal else "staging /asked\n")
            assert run.end() == 0
        assert staging.client(f"http://{SERVICE}:8080/after").out == "staging /after\n"


def test_it_is_a_session_that_status_shows_and_stops(staging: Target) -> None:
    with verb(["port-forward", "-t", f"process/{staging.pid}", "-L", "0:db:7000", "-k", "forwarded"]) as run:
        run.wait("Ready")
        assert "port-forward" in once(["status", "forwarded"]).out
        assert once(["status", "--stop", "forwarded"]).code == 0
        assert run.process.wait(20) == 1
        run.wait("stopped from outside")


def test_a_port_that_is_in_use_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = once(["port-forward", "-t", "targetless", "-L", f"{port}:db:1"])
        assert (done.code, f"port {port} of 127.0.0.1 can't be had: address already in use" in done.err) == (1, True)


@pytest.mark.parametrize("text, means", [
    ("db:5432", "127.0.0.1:5432 -> db:5432"), ("1:db:2", "127.0.0.1:1 -> db:2"), ("0.0.0.0:1:db:2", "0.0.0.0:1 -> db:2"),
    ("[::1]:1:[fd00::7]:2", "[::1]:1 -> [fd00::7]:2"), ("[fd00::7]:2", "127.0.0.1:2 -> [fd00::7]:2"),
])  # fmt: skip
def test_the_grammar_of_l(text: str, means: str) -> None:
    assert str(forward(text)) == means


@pytest.mark.parametrize("text", ["", "5432", "db:", "db:0", "db:70000", "70000:db:1", "a:b:c:d", "fd00::7:2", "1:2:3:4:5"])
def test_what_l_can_not_be(text: str) -> None:
    with pytest.raises(UserError):
        forward(text)


def test_the_grammar_of_r() -> None:
    assert [reverse("80"), reverse("80:3000")] == [(80, 80), (80, 3000)]
    for text in ("", "a", "80:0", "80:", "1:2:3", "66000"):
        with pytest.raises(UserError):
            reverse(text)


@pytest.mark.parametrize("argv, said", [
    ([], "nothing to forward"), (["-L", "db:1", "--steal"], "--steal is about -R"),
    (["-R", "1:2", "-R", "1:3"], "stands in two -R"),
    (["-t", "targetless", "-R", "1:2"], "-R needs a target"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(argv: list[str], said: str) -> None:
    done = once(["port-forward", *argv])
    assert (done.code != 0, said in done.err) == (True, True), done.err
