"""A filter on the mirror: of the clients' requests, the local program sees those that match, and no others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, SERVICE, Target, wait_for

LISTENER = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        print(self.command, self.path, flush=True)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    do_POST = do_GET
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
"""


def ask(staging: Target, path: str, *headers: str, repeat: int = 1) -> None:
    flags = [part for header in headers for part in ("-H", header)]
    urls = [f"http://{SERVICE}:8080{path}"] * repeat  # over one connection
    assert staging.native(["curl", "-sS", "-m", "5", *flags, *urls]).out == f"staging {path}\n" * repeat


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--http-header-filter", "^x-user: me$"], ["/mine-1", "/mine-2", "/mine-2"]),
        (["--http-path-filter", "^/other"], ["/other-1", "/other-2"]),
        (["--http-path-filter", "^/other", "--http-filter-ports", "9999"], None),
    ],
)
def test_what_is_told(staging: Target, tmp_path: Path, flags: list[str], wanted: list[str] | None) -> None:
    out = tmp_path / "out"
    with open(out, "wb") as sink:
        process = subprocess.Popen(
            staging.command(["python3", "-c", LISTENER], flags), stdout=sink, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    try:
        def subscribed() -> bool:
            ask(staging, "/other-0", "X-User: me")
            return "/other-0" in out.read_text()

        wait_for("the subscription", subscribed)
        ask(staging, "/other-1")
        ask(staging, "/mine-1", "X-User: me")
        ask(staging, "/healthz", "X-User: me", "User-Agent: kube-probe/1.33")
        ask(staging, "/mine-2", "X-User: me", repeat=2)
        ask(staging, "/other-2", "X-User: you")
        ask(staging, "/other-3", "X-User: me")
        wait_for("the last one", lambda: "/other-3" in out.read_text())
        told = [line.split()[1] for line in out.read_text().splitlines()]
        last = ["/other-3"]
        everything = ["/other-1", "/mine-1", "/healthz", "/mine-2", "/mine-2", "/other-2"]
        assert sorted(path for path in told if path != "/other-0") == sorted((everything if wanted is None else wanted) + last)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_filter_that_can_not_be_read_starts_nothing(staging: Target) -> None:
    result = staging.plugged(["true"], flags=["--http-header-filter", "("])
    assert result.code != 0
    assert "http_filter.header_filter: not a regular expression" in result.err


STEALER = LISTENER.replace('"Content-Length", "0"); self.end_headers()', '"Content-Length", "6"); self.end_headers(); ANSWER')
STEALER = STEALER.replace("ANSWER", 'self.wfile.write(b"local\\n")')


def test_a_session_takes_its_requests_of_one_connection(staging: Target) -> None:
    """curl asks for all over one connection."""
    process = subprocess.Popen(
        staging.command(["python3", "-c", STEALER], ["--steal", "--http-header-filter", "^x-user: me$"]),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    url = f"http://{SERVICE}:8080/a"
    mine, others = ["-H", "X-User: me", url], ["-H", "X-User: you", url]
    try:
        wait_for("the redirect", lambda: staging.native(["curl", "-sS", "-m", "5", *mine]).out == "local\n", 30)
        turns = [mine, others, others, mine, mine, others]
        asked = [part for number, turn in enumerate(turns) for part in (["--next", "-sS", "-m", "5"] if number else []) + turn]
        told = staging.native(["curl", "-sS", "-m", "5", *asked])
        assert told.out.splitlines() == ["local", "staging /a", "staging /a", "local", "local", "staging /a"], told
        probe = staging.native(["curl", "-sS", "-m", "5", "-A", "kube-probe/1.33", *mine])
        assert probe.out == "staging /a\n"
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert staging.native(["curl", "-sS", "-m", "5", *mine]).out == "staging /a\n"
