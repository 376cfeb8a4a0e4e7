"""Each part of a real run is killed at some moment, round after round, while clients of the target count their answers."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.steal.canary import Canary, canaries
from tests.testkit.laptop import Run, laptop
from tests.testkit.target import Target, wait_for

HEADER = "X-Me: alice\r\n"
ROUNDS = 3
PROGRAM = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"local {self.path}\\n".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
"""


def program(run: Run) -> int:
    (found,) = [pid for pid in run.processes() if b"ThreadingHTTPServer" in Path(f"/proc/{pid}/cmdline").read_bytes()
                and b"sidestage" not in Path(f"/proc/{pid}/cmdline").read_bytes()]  # fmt: skip
    return found


VICTIMS: dict[str, Callable[[Run], int]] = {
    "program": program,
    "trap": lambda run: run.process.pid,
    "session": Run.session,
    "agent": Run.agent,
}


def more(clients: list[Canary], who: str, count: int) -> None:
    """Each gets so many more answers of `who`."""
    wanted = [getattr(client, who) + count for client in clients]
    wait_for(who, lambda: all(getattr(client, who) >= want for client, want in zip(clients, wanted, strict=True)), 30)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_at_some_moment(staging: Target, tmp_path: Path, victim: str) -> None:
    dice = random.Random(victim)
    config = tmp_path / "sidestage.json"
    steal = {"mode": "steal", "http_filter": {"header_filter": "^x-me: alice$"}}
    config.write_text(json.dumps({"feature": {"network": {"incoming": steal}}}))
    with laptop(tmp_path) as here, canaries(staging, HEADER) as (others, mine):
        for _ in range(ROUNDS):
            run = here.start(staging, [sys.executable, "-c", PROGRAM], ["-f", str(config)])
            with Canary(staging, keep=True) as passing:
                more([mine[0]], "local", 5)
                more([passing], "staging", dice.randrange(20))
                os.kill(VICTIMS[victim](run), signal.SIGKILL)
                more([mine[0]], "staging", 5)
                run.end()
                more([*others, passing], "staging", 10)
            # What passes through the agent is lost with it, and only with it.
            assert len(passing.lost) <= (victim == "agent") and not passing.local, passing.lost
        assert len(others[0].lost) <= ROUNDS * (victim == "agent"), others[0].lost
        assert not others[1].lost and not others[0].local + others[1].local
        assert len(mine[0].lost) <= ROUNDS and not mine[1].lost, mine[0].lost
