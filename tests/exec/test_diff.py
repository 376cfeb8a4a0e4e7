"""The target's answer and the local program's to the same mirrored request, side by side."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidestage.cli.status import living
from sidestage.session.follow import Follower
from tests.testkit.target import ROOT, SERVICE, Target, wait_for

# Answers as the target does, but for /different (another body) and /broken (another status and header).
PROGRAM = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"staging " + self.path.encode() + b"\\n"
        if self.path.startswith("/different"): body = b"local\\n"
        self.send_response(500 if self.path == "/broken" else 200)
        if self.path == "/broken": self.send_header("X-Why", "bug")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
s = http.server.ThreadingHTTPServer(("", 8080), H); print("listening", flush=True); s.serve_forever()
"""


def start(staging: Target, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    with open(out, "wb") as sink:
        return subprocess.Popen(
            staging.command(["python3", "-c", PROGRAM], ["--key", out.parent.name, *flags]),
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip


def follow(out: Path) -> Follower:
    (about,) = [about for about in living() if about["key"] == out.parent.name]
    return Follower(about["session"])


def ask(staging: Target, *paths: str) -> None:
    urls = [f"http://{SERVICE}:8080{path}" for path in paths]
    done = staging.client(urls[0]) if len(urls) == 1 else staging.native(["curl", "-sS", "-m", "5", *urls])
    assert done.out == "".join(f"staging {path}\n" for path in paths), done.err


def until_compared(staging: Target, out: Path) -> None:
    """The subscription takes a moment: probes until the program gets one."""
    wait_for("listening", lambda: "listening" in out.read_text())
    follower = follow(out)
    events = follower.events()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ask(staging, "/probe")
        time.sleep(0.1)
        if any(event["type"] == "compared" for event in _now(follower, events)):
            break
    follower.close()


def _now(follower: Follower, events: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has been told until a line that we wish for."""
    follower._sock.sendall(b'{"do": "exchange", "id": 0}\n')
    found: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "exchange":
            return found
        found.append(event)
    return found


@pytest.mark.parametrize("flags, code", [(["--diff"], 143), (["--fail-on-diff"], 3)])
def test_differences_are_summed_up(staging: Target, tmp_path: Path, flags: list[str], code: int) -> None:
    out = tmp_path / "out"
    process = start(staging, out, *flags)
    try:
        until_compared(staging, out)
        ask(staging, "/same", "/different", "/different?again", "/broken")
        follower = follow(out)
        asked: dict[int, str] = {}
        left = {"/same", "/different", "/different?again", "/broken"}
        for event in follower.events():
            if event["type"] == "request":
                asked[event["id"]] = event["path"]
            elif event["type"] == "compared":
                left.discard(asked[event["id"]])
            if not left:
                break
        follower.close()
    finally:
        process.terminate()
        status = process.wait(20)
    said = out.read_text()
    assert status == code, said
    assert "GET /different  body  (2x)\n    - target  staging /different" in said
    assert "\n    + local   local\\n\n" in said
    assert "GET /broken  status  (1x)\n    - target  200\n    + local   500" in said
    assert "GET /broken  header:x-why  (1x)\n    - target  (none)\n    + local   bug" in said
    assert "/same" not in said


@pytest.mark.parametrize("path, code", [("/same", 0), ("/different", 3)])
def test_a_check_that_ends_by_itself(staging: Target, tmp_path: Path, path: str, code: int) -> None:
    out = tmp_path / "out"
    process = start(staging, out, "--fail-on-diff", "--diff-count", "3", "--output", "json", "--diff-ignore", "GET /probe status")
    try:
        wait_for("listening", lambda: "listening" in out.read_text())
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            ask(staging, path)
            time.sleep(0.05)
        assert process.wait(10) == code, out.read_text()
    finally:
        process.kill()
    (summary,) = [line for line in map(_json, out.read_text().splitlines()) if line.get("type") == "diff"]
    assert summary["compared"] >= 3
    assert (summary["compared"] == summary["equal"]) == (code == 0)


def _json(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def test_an_ignored_difference_is_none(staging: Target, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(staging, out, "--fail-on-diff", "--diff-count", "2", "--diff-ignore", "GET /different body")
    try:
        wait_for("listening", lambda: "listening" in out.read_text())
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            ask(staging, "/different")
            time.sleep(0.05)
        assert process.wait(10) == 0, out.read_text()
    finally:
        process.kill()


@pytest.mark.parametrize(
    "flags, said",
    [(["--diff", "--steal"], "mode steal"), (["--diff", "--incoming", "off"], "mode off"), (["--diff-ignore", "stauts"], "stauts")],
)
def test_what_cannot_be_compared_is_refused(staging: Target, flags: list[str], said: str) -> None:
    done = staging.plugged(["true"], flags=flags)
    assert done.code == 1
    assert said in done.err


HTTP2 = """
require("http2").createServer((request, response) => {
  response.writeHead(200, {"content-type": "application/json"});
  response.end(JSON.stringify({path: request.url, total: request.url == "/different" ? TOTAL : 1}));
}).listen(8092, "0.0.0.0", () => console.log("listening"));
"""


def test_http2(staging: Target, tmp_path: Path) -> None:
    out = tmp_path / "out"
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--uts", "--"]
    service = subprocess.Popen(
        [*enter, "node", "-e", HTTP2.replace("TOTAL", "10")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert service.stdout
    try:
        assert service.stdout.readline() == b"listening\n"
        flags = ["--key", out.parent.name, "--fail-on-diff", "--diff-count", "6"]
        with open(out, "wb") as sink:
            process = subprocess.Popen(
                staging.command(["node", "-e", HTTP2.replace("TOTAL", "12")], flags), stdin=subprocess.DEVNULL, stdout=sink,
                stderr=sink, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            )  # fmt: skip
        wait_for("listening", lambda: "listening" in out.read_text(), 30)
        deadline = time.monotonic() + 20
        urls = [f"http://{SERVICE}:8092{path}" for path in ("/same", "/different")]
        while process.poll() is None and time.monotonic() < deadline:
            for url in urls:
                staging.native(["curl", "-sS", "-m", "5", "--http2-prior-knowledge", url])
            time.sleep(0.1)
        assert process.wait(10) == 3, out.read_text()
    finally:
        service.kill()
        service.wait()
        service.stdout.close()
        process.kill()
        process.wait()
    said = out.read_text()
    assert re.search(r"GET /different  body:total  \(\d+x\)\n    - target  10\n    \+ local   12\n", said)
    assert re.search(r"exchanges compared, [1-9]\d* equal", said)
    assert "/same" not in said
