"""A session recorded with a target, then played again without any: the same program gives the same answers, a changed one shows."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, SERVICE, SIDESTAGE, Target, wait_for

PROGRAM = """
import http.server, os, socket, sys
greeting = os.environ["GREETING"] + " " + open("/srv/config.txt").read().strip() + " " + ",".join(sorted(os.listdir("/srv/folder")))
big = len(open("/srv/big", "rb").read())
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        with socket.create_connection(("db.staging.internal", 7000), 5) as db:
            db.sendall(b"query " + self.path.encode()); answer = db.recv(99).decode()
        body = f"staging {self.path}\\n".encode()
        if "CHANGED" in os.environ and self.path == "/two": body = b"changed\\n"
        print(socket.gethostname(), greeting, big, self.client_address[0], self.path, answer, flush=True)
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
s = http.server.ThreadingHTTPServer(("", 8080), H); print("listening", flush=True); s.serve_forever()
"""
OFFLINE = ["unshare", "-n", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


@pytest.fixture(scope="module")
def recording(staging: Target, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A tape, and what the program printed while it was made."""
    folder = tmp_path_factory.mktemp("record")
    tape, out = folder / "tape", folder / "out"
    with open(out, "wb") as sink:
        process = subprocess.Popen(
            [*SIDESTAGE, "record", "-t", f"process/{staging.pid}", "-o", str(tape), "--", "python3", "-c", PROGRAM],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.DEVNULL, env=ENV,
        )  # fmt: skip
    try:
        wait_for("listening", lambda: "listening" in out.read_text(), 30)

        def subscribed() -> bool:
            staging.client(f"http://{SERVICE}:8080/one")
            time.sleep(0.1)
            return "/one" in out.read_text()

        wait_for("the subscription", subscribed, 30)
        for path in ("/two", "/three"):
            staging.client(f"http://{SERVICE}:8080{path}")
            wait_for(path, lambda path=path: f" {path} " in out.read_text())
        urls = [f"http://{SERVICE}:8080/kept-{n}" for n in range(3)]
        staging.native(["curl", "-sS", "-m", "5", "-H", "Authorization: Bearer sesame", *urls])
        wait_for("the last", lambda: " /kept-2 " in out.read_text())
    finally:
        process.terminate()
        process.wait(20)
    return tape, [line for line in out.read_text().splitlines() if line != "listening"]


def replay(tape: Path, *flags: str, program: str = PROGRAM, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OFFLINE, *SIDESTAGE, "replay", str(tape), *flags, "--", "python3", "-c", program],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False, env={**ENV, **env},
    )  # fmt: skip


def test_the_same_program_does_the_same_with_no_target(recording: tuple[Path, list[str]]) -> None:
    tape, printed = recording
    done = replay(tape, "--fail-on-diff")
    assert [line for line in done.stdout.splitlines() if line != "listening"] == printed, done.stderr
    assert done.returncode == 0, done.stderr
    assert f"{len(printed)} exchanges compared, {len(printed)} equal" in done.stderr


def test_each_run_is_the_same(recording: tuple[Path, list[str]]) -> None:
    first, second = replay(recording[0]), replay(recording[0])
    assert first.stdout == second.stdout


def test_a_changed_program_shows(recording: tuple[Path, list[str]]) -> None:
    done = replay(recording[0], "--fail-on-diff", CHANGED="1")
    assert done.returncode == 3, done.stderr
    assert "GET /two  body  (1x)\n    - target  staging /two\\n\n    + local   changed\\n" in done.stderr


def test_what_it_asks_anew_is_told(recording: tuple[Path, list[str]]) -> None:
    changed = PROGRAM.replace("query ", "question ").replace("/srv/config.txt", "/srv/other.txt")
    done = replay(recording[0], program=changed)
    assert "FileNotFoundError" in done.stderr
    assert "not in the recording: open /srv/other.txt" in done.stderr
    done = replay(recording[0], "--fail-on-diff", program=PROGRAM.replace("query ", "question "))
    assert "not what was recorded: sent to 10.77.0.20:7000" in done.stderr
    assert done.returncode == 3


def test_secrets_are_masked_unless_asked_for(recording: tuple[Path, list[str]]) -> None:
    tape = recording[0]
    assert tape.stat().st_mode & 0o077 == 0
    import base64

    text = gzip.decompress(tape.read_bytes()).decode()
    assert "kept-2" not in text  # bytes are base64
    found = [base64.b64decode(part.split('"')[0]) for part in text.split('"data":"')[1:]]
    assert any(b"/kept-2" in data for data in found)
    assert not any(b"sesame" in data for data in found)
    assert any(b"Authorization:xxxxxxxxxxxxxx" in data for data in found)


def test_a_har_of_the_exchanges(staging: Target, tmp_path: Path) -> None:
    har, out = tmp_path / "x.har", tmp_path / "out"
    with open(out, "wb") as sink:
        process = subprocess.Popen(
            [*SIDESTAGE, "record", "-t", f"process/{staging.pid}", "-o", str(har), "--", "python3", "-c", PROGRAM],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.DEVNULL, env=ENV,
        )  # fmt: skip
    url = f"http://{SERVICE}:8080/kept?token=sesame"
    try:
        wait_for("listening", lambda: "listening" in out.read_text(), 30)

        def kept() -> bool:
            staging.native(["curl", "-sS", "-m", "5", "-H", "Authorization: Bearer sesame", url])
            time.sleep(0.1)
            return bool(json.loads(har.read_text())["log"]["entries"])

        wait_for("an entry", kept, 30)
    finally:
        process.terminate()
        process.wait(20)
    entry = json.loads(har.read_text())["log"]["entries"][0]
    assert (entry["response"]["status"], entry["response"]["content"]["text"]) == (200, "staging /kept?token=sesame\n")
    assert "sesame" not in json.dumps(entry["request"])
    assert har.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "args, said",
    [
        (["record", "-t", "process/1", "--", "true"], "no file to record to"),
        (["record", "-t", "process/1", "-o", "/nowhere/x", "--", "true"], "can't be written"),
        (["replay", "/nowhere/x", "--", "true"], "no such file"),
        (["replay", __file__, "--", "true"], "no recording of sidestage"),
        (["replay", __file__], "no recording of sidestage"),
    ],
)
def test_bad_input(args: list[str], said: str) -> None:
    done = subprocess.run([*SIDESTAGE, *args], capture_output=True, text=True, timeout=30, check=False, env=ENV)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recording_that_was_cut_is_played_as_far_as_it_goes(recording: tuple[Path, list[str]], tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    data = recording[0].read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    done = replay(cut)
    assert " exchanges compared, " in done.stderr
    assert "internal error" not in done.stderr
