"""The local program behind TLS that ends beside the target: in plain or encrypted anew, with the target's own certificate."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit import build
from tests.testkit.target import CLIENT, ROOT, SERVICE, Target, wait_for
from tests.testkit.tls import HTTPS, NAME, Secure, running, secure

PROGRAM = """
import http.server, os, socket, ssl, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = self.connection.version() + " " + str(self.connection.selected_alpn_protocol()) if len(sys.argv) > 2 else "plain"
        body = f"local {self.path} {said} {self.client_address[0]}\\n".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
server = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), H)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[2], sys.argv[3])
    context.set_alpn_protocols(["http/1.1"])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def tls(staging: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with secure(staging, tmp_path_factory.mktemp("tls")) as there:
        yield there


@contextlib.contextmanager
def stealing(staging: Target, argv: list[str], *flags: str, port: int = HTTPS) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        staging.command(argv, ["--steal", *flags]), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    try:
        wait_for("the redirect", lambda: f"tcp dport {port}" in staging.rules() or process.poll() is not None)
        yield process
    finally:
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()
        wait_for("the end of the rules", lambda: "sidestage" not in staging.rules())


def own(tls: Secure) -> list[str]:
    """The target's own files."""
    return [f"--tls-certificate=target:{tls.own.certificate}", f"--tls-key=target:{tls.own.key}"]


URL = f"https://{NAME}:{HTTPS}"
PLAIN = ["python3", "-c", PROGRAM, str(HTTPS)]
HERE = ("--http1.1", "--interface", CLIENT)


def test_in_plain_or_encrypted_anew(staging: Target, tls: Secure, tmp_path: Path) -> None:
    with stealing(staging, PLAIN, *own(tls), "--tls-delivery", "plain"):
        assert tls.curl(f"{URL}/1", *HERE) == f"local /1 plain {CLIENT}\n"
    with stealing(staging, [*PLAIN, str(tls.other.certificate), str(tls.other.key)], *own(tls)):
        assert tls.curl(f"{URL}/2", *HERE) == f"local /2 TLSv1.3 http/1.1 {CLIENT}\n"
        body = tmp_path / "body"
        body.write_bytes(os.urandom(3_000_000))
        assert tls.curl(f"{URL}/", "--http1.1", "-H", "Expect:", "--data-binary", f"@{body}", "-o", str(tmp_path / "back")) == ""
        assert (tmp_path / "back").read_bytes() == body.read_bytes()
    assert tls.curl(f"{URL}/3", *HERE).startswith("staging /3 HTTP/1.1")


def test_probes_and_strangers_are_the_target_s(staging: Target, tls: Secure) -> None:
    with stealing(staging, PLAIN, *own(tls), "--tls-delivery", "plain"):
        for version, spoken in (("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")):
            assert tls.curl(f"{URL}/healthz", version, "-A", "kube-probe/1.29").startswith(f"staging /healthz {spoken}")
        assert "400 The plain HTTP request" in staging.client(f"http://{SERVICE}:{HTTPS}/").out


def said(process: subprocess.Popen[str], what: str) -> str:
    """Its line with these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if what in line:
            return line
    raise AssertionError(f"it never said {what!r}")


@pytest.mark.parametrize("how, word", [
    (["--tls-delivery", "tls"], "If it speaks no TLS, set feature.network.incoming.tls.delivery to plain"),
    (["--tls-delivery", "plain"], "set feature.network.incoming.tls.alpn"),
])  # fmt: skip
def test_a_program_that_doesn_t_speak_so_leaves_it_to_the_target(
    staging: Target, tls: Secure, how: list[str], word: str
) -> None:
    with stealing(staging, PLAIN, *own(tls), *how) as process:
        answer = tls.curl(f"{URL}/", "--http2")
        assert answer.startswith("staging / HTTP/2.0") or how[1] == "plain"
        assert "tls" in said(process, "tls." if how[1] == "plain" else "TLS")


def test_protocols_can_be_left_out(staging: Target, tls: Secure, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("feature: {network: {incoming: {tls: {alpn: http/1.1, delivery: plain}}}}\n")
    with stealing(staging, PLAIN, *own(tls), "-f", str(config)):
        assert tls.curl(f"{URL}/1", "--http2") .startswith("local /1 plain")


def test_a_file_that_isn_t_there_ends_it(staging: Target, tls: Secure) -> None:
    done = staging.plugged(PLAIN, flags=["--steal", "--tls-certificate", "target:/nowhere/tls.crt"])
    assert done.code == 1
    assert f"port {HTTPS} can't be stolen: the certificate /nowhere/tls.crt can't be read in the target: no such file" in done.err
    assert "feature.network.incoming.tls.certificate" in done.err


def test_the_key_is_in_no_record(staging: Target, tls: Secure, tmp_path: Path) -> None:
    """Neither the target's own, which never comes here, nor one of this machine."""
    record = tmp_path / "record"
    given = ["--tls-certificate", str(tls.own.certificate), "--tls-key", str(tls.own.key), "--tls-delivery", "plain"]
    with stealing(staging, PLAIN, *given, "--record", str(record), "--secrets"):
        assert tls.curl(f"{URL}/1", *HERE).startswith("local /1")
    secret = tls.own.key.read_text().splitlines()[1]
    kept = gzip.decompress(record.read_bytes())
    assert b'"steal"' in kept and secret.encode() not in kept and b"PRIVATE KEY" not in kept


GO = 8449


def asked(staging: Target, tls: Secure, program: Path) -> list[str]:
    """What a client of Go is told, on one connection with twenty requests at once."""
    done = staging.native([str(program), "ask", f"https://{NAME}:{GO}", str(tls.own.certificate), f"{SERVICE}:{GO}", "20"])
    assert done.code == 0, done.err
    return done.out.splitlines()


@pytest.mark.parametrize("delivery", ["tls", "plain"])
def test_streams_of_one_connection_of_http2(staging: Target, tls: Secure, delivery: str) -> None:
    """Server, client and local program are Go's, which gRPC is made of: half of the streams are the local program's."""
    program = build.go("tls.go", cgo=False)
    files = [str(tls.own.certificate), str(tls.own.key)]
    how = ["serve", "local", f":{GO}", *files] if delivery == "tls" else ["plain", "local", f":{GO}"]
    want = {who: [f"{who} /{n:02} HTTP/2.0 {NAME} {n * 5000}" for n in range(20)] for who in ("staging", "local")}
    if delivery == "plain":
        want["local"] = [line.replace(NAME, "plain") for line in want["local"]]
    with running(staging, [str(program), "serve", "staging", f"{SERVICE}:{GO}", *files], GO, SERVICE):
        assert asked(staging, tls, program) == want["staging"]
        flags = [*own(tls), "--tls-delivery", delivery, "--http-header-filter", "^x-me: alice$"]
        with stealing(staging, [str(program), *how], *flags, port=GO):
            assert asked(staging, tls, program) == [*want["local"][1::2], *want["staging"][::2]]
        with stealing(staging, [str(program), *how], *flags[:-2], port=GO):  # the whole port
            assert asked(staging, tls, program) == want["local"]
        assert asked(staging, tls, program) == want["staging"]
