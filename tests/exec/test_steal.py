"""A stolen port is the local program's: for every kind of client, from its first connection to its last, and no longer."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.target import CLIENT, CLIENT6, DEPENDENCY, ROOT, SERVICE, SERVICE6, Target, wait_for

HTTP = """
import http.server, socket
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"local {self.path} {self.client_address[0]} {self.connection.getpeername()[0]}\\n".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer): address_family = socket.AF_INET6
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
S(("", 8080), H).serve_forever()
"""
# Greets first, then sends back what comes in upper case; after EOF it says goodbye. R resets.
TALK = """
import os, socket, struct, threading
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("0.0.0.0", 7000)); s.listen(9)
def talk(c):
    c.sendall(b"220 hello\\n")
    while d := c.recv(1 << 16):
        if d[:1] == b"R": c.setsockopt(1, 13, struct.pack("ii", 1, 0)); c.close(); return
        c.sendall(d.upper())
    c.sendall(b"bye\\n"); c.close()
while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
"""
# Listens, and stops, as it is told on its standard input.
SWITCH = """
import http.server, socketserver, sys, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"local")
    def log_message(self, *a): pass
class S(socketserver.ThreadingTCPServer): allow_reuse_address = True
for line in sys.stdin:
    if line == "up\\n":
        s = S(("0.0.0.0", 8080), H); threading.Thread(target=s.serve_forever, daemon=True).start()
    else:
        s.shutdown(); s.server_close()
    print("done", flush=True)
"""


@contextlib.contextmanager
def stealing(staging: Target, code: str, *flags: str, port: int = 8080, rules: bool = True) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        staging.command(["python3", "-c", code], ["--steal", *flags]), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    try:
        if rules:
            wait_for("the redirect", lambda: f"tcp dport {port}" in staging.rules())
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)
        wait_for("the end of the rules", lambda: "sidestage" not in staging.rules())


def body(staging: Target, url: str, source: str = CLIENT) -> str:
    result = staging.client(url, source)
    assert result.code == 0, result.err
    return result.out


def test_every_client_reaches_the_program_with_its_address(staging: Target) -> None:
    with stealing(staging, HTTP):
        assert "flags owner" in staging.rules()
        for n in range(3):
            assert body(staging, f"http://{SERVICE}:8080/{n}") == f"local /{n} ::ffff:{CLIENT} ::ffff:{CLIENT}\n"
        assert body(staging, f"http://[{SERVICE6}]:8080/six", CLIENT6) == f"local /six {CLIENT6} {CLIENT6}\n"
        assert body(staging, "http://127.0.0.1:8080/lo", "127.0.0.1").startswith("local /lo")
        assert body(staging, "http://[::1]:8080/lo6", "::1").startswith("local /lo6")
        assert staging.native(["curl", "-sSA", "kube-probe/1.29", f"http://{SERVICE}:8080/healthz"]).out == "staging /healthz\n"
    assert body(staging, f"http://{SERVICE}:8080/after") == "staging /after\n"


def test_a_server_that_speaks_first_isn_t_waited_for(staging: Target) -> None:
    with stealing(staging, TALK, port=7000), staging.connect((DEPENDENCY, 7000)) as client:
        assert client.recv(99) == b"220 hello\n"
        client.sendall(b"some words")
        assert client.recv(99) == b"SOME WORDS"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(99, socket.MSG_WAITALL) == b"bye\n"


def test_resets_pass_in_both_directions(staging: Target) -> None:
    with stealing(staging, TALK, port=7000), staging.connect((DEPENDENCY, 7000)) as client:
        assert client.recv(99) == b"220 hello\n"
        client.sendall(b"R")
        with pytest.raises(ConnectionResetError):
            client.recv(99)


def test_much_goes_through_in_both_directions(staging: Target) -> None:
    data = os.urandom(1 << 20).hex().encode()
    with stealing(staging, TALK, port=7000), staging.connect((DEPENDENCY, 7000)) as client:
        got = bytearray()
        client.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 30
        while len(got) < len(data) + 10 and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                sent += client.send(data[sent : sent + (1 << 16)]) if sent < len(data) else 0
            with contextlib.suppress(BlockingIOError):
                got += client.recv(1 << 18)
        assert bytes(got) == b"220 hello\n" + data.upper()


def test_what_was_there_before_goes_on_unless_flushed(staging: Target) -> None:
    with staging.connect((DEPENDENCY, 7000)) as old:
        old.sendall(b"before")
        assert old.recv(99) == b"before"
        with stealing(staging, TALK, port=7000):
            old.sendall(b"during")
            assert old.recv(99) == b"during"
            with staging.connect((DEPENDENCY, 7000)) as new:
                assert new.recv(99) == b"220 hello\n"
        old.sendall(b"after")
        assert old.recv(99) == b"after"
        with stealing(staging, TALK, "--flush-connections", port=7000), pytest.raises(ConnectionResetError):
            old.recv(99)


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_the_target_answers_until_the_program_listens_and_when_it_stops(staging: Target) -> None:
    with stealing(staging, SWITCH, rules=False) as process:
        for _ in range(3):
            assert body(staging, f"http://{SERVICE}:8080/").startswith("staging")
            tell(process, "up")
            wait_for("the redirect", lambda: "tcp dport 8080" in staging.rules())
            assert body(staging, f"http://{SERVICE}:8080/") == "local"
            tell(process, "down")
            assert body(staging, f"http://{SERVICE}:8080/").startswith("staging")  # the rule may be there still


def test_when_down_502_is_an_answer(staging: Target) -> None:
    with stealing(staging, SWITCH, "--when-down", "502", rules=False) as process:
        tell(process, "up")
        wait_for("the redirect", lambda: "tcp dport 8080" in staging.rules())
        tell(process, "down")
        for _ in range(2):
            assert "502 Bad Gateway" in staging.native(["curl", "-sSi", "-m", "5", f"http://{SERVICE}:8080/"]).out
            time.sleep(0.6)  # by now it is known that the program has closed its listener
        tell(process, "up")
        assert body(staging, f"http://{SERVICE}:8080/") == "local"


def test_a_port_that_is_taken_is_refused_with_its_holder(staging: Target) -> None:
    with stealing(staging, HTTP):
        refused = staging.plugged(["python3", "-c", HTTP], flags=["--steal"])
        assert refused.code == 1
        assert f"port 8080 can't be stolen: taken by {os.environ.get('USER') or 'root'}@" in refused.err
        assert "--on-conflict" in refused.err
        assert body(staging, f"http://{SERVICE}:8080/").startswith("local / ")


OTHER = HTTP.replace("local", "other")


def test_whoever_waits_gets_the_port_next(staging: Target) -> None:
    with stealing(staging, HTTP) as first, stealing(staging, OTHER, "--on-conflict", "wait") as second:
        assert second.stderr is not None
        wait_for("the word that it waits", lambda: "waiting" in second.stderr.readline())
        # The target answers what the program doesn't take within a second, which a busy machine may need.
        wait_for("the first's answer", lambda: body(staging, f"http://{SERVICE}:8080/").startswith("local / "))
        first.terminate()
        wait_for("the second's turn", lambda: body(staging, f"http://{SERVICE}:8080/").startswith("other / "))


def test_override_takes_the_port_at_once(staging: Target) -> None:
    with stealing(staging, HTTP) as first, stealing(staging, OTHER, "--on-conflict", "override") as second:
        wait_for("the second's turn", lambda: body(staging, f"http://{SERVICE}:8080/").startswith("other / "))
        assert first.stderr is not None
        wait_for("the word to the first", lambda: "no longer stolen: taken over by" in first.stderr.readline())
        assert second.poll() is None


def test_only_matching_requests_are_taken(staging: Target, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("feature: {network: {incoming: {mode: steal, http_filter: {header_filter: '^x-user: me$'}}}}\n")
    with stealing(staging, HTTP, "-f", str(config)):
        url, mine = f"http://{SERVICE}:8080/", ["-H", "X-User: me"]
        urls = [url + "1", "--next", "-sS", *mine, url + "2", "--next", "-sS", url + "3"]
        for _ in range(3):  # on one connection, kept alive
            got = staging.native(["curl", "-sS", "--interface", CLIENT, *urls]).out.splitlines()
            assert [line.split()[0] for line in got] == ["staging", "local", "staging"]


def test_in_the_target_s_own_network_there_is_no_loop(staging: Target) -> None:
    """Plugged in from the same network namespace, with the program on the very port that is redirected."""
    inside = ["nsenter", "-t", str(staging.pid), "--net", "--"]
    process = subprocess.Popen(
        [*inside, *staging.command(["python3", "-c", TALK], ["--steal"])], stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    try:
        wait_for("the redirect", lambda: "tcp dport 7000" in staging.rules())
        for address in (DEPENDENCY, "127.0.0.1"):
            with staging.connect((address, 7000)) as client:
                assert client.recv(99) == b"220 hello\n"
                client.sendall(b"words")
                assert client.recv(99) == b"WORDS"
    finally:
        process.terminate()
        process.wait(10)
        wait_for("the end of the rules", lambda: "sidestage" not in staging.rules())


# Answers on four ports with the port that it asked for.
PORTS = """
import http.server, socketserver, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"local %d" % self.server.asked)
    def log_message(self, *a): pass
class S(socketserver.ThreadingTCPServer): allow_reuse_address = True
for host, port in (("0.0.0.0", 3000), ("0.0.0.0", 7000), ("127.0.0.1", 8081), ("0.0.0.0", 8082)):
    s = S((host, port), H); s.asked = port
    threading.Thread(target=s.serve_forever).start()
"""


def test_which_ports_are_stolen(staging: Target, tmp_path: Path) -> None:
    """`port_mapping`, `listen_ports`, `ports`, `ignore_ports` and `ignore_localhost`, together as far as they go."""
    config = tmp_path / "ports.json"

    def ask(port: int) -> str:
        return staging.native(["curl", "-sS", "-m", "5", "--interface", CLIENT, f"http://{SERVICE}:{port}/"]).out

    def here(port: int) -> str:
        return subprocess.run(["curl", "-sS", "-m", "5", f"http://127.0.0.1:{port}/"], capture_output=True, text=True).stdout

    incoming: dict[str, object] = {"port_mapping": [[3000, 8080]], "listen_ports": [[3000, 23117]], "ignore_localhost": True}
    config.write_text(json.dumps({"feature": {"network": {"incoming": {**incoming, "mode": "steal", "ignore_ports": [7000]}}}}))
    with stealing(staging, PORTS, "-f", str(config), port=8082):
        wait_for("the mapped port", lambda: ask(8080) == "local 3000")
        assert here(23117) == "local 3000"
        assert ask(8082) == "local 8082"
        assert ask(8081) == "", "what is bound to localhost has been stolen"
        with staging.connect((DEPENDENCY, 7000)) as ignored:
            ignored.sendall(b"echo")
            assert ignored.recv(99) == b"echo"
        assert "tcp dport 7000" not in staging.rules() and "tcp dport 8081" not in staging.rules()
    config.write_text(json.dumps({"feature": {"network": {"incoming": {**incoming, "mode": "steal", "ports": [8080]}}}}))
    with stealing(staging, PORTS, "-f", str(config)):
        wait_for("the one port", lambda: ask(8080) == "local 3000")
        assert ask(8082) == ""
        assert "tcp dport 8082" not in staging.rules()
