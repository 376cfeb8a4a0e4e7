"""As test_faults.py, with TLS that ends in the agent: whatever dies, clients lose what was on its way, and no more."""

from __future__ import annotations

import random
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.steal.canary import Canary, canaries
from tests.steal.test_faults import HEADER, MINE, given_back, progress, taken, unharmed
from tests.testkit.session import laptop
from tests.testkit.target import SERVICE, Target, wait_for
from tests.testkit.tls import Pair, make, running

PORT = 8450
ROUNDS = 5
SERVER = """
import http.server, ssl, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"staging {self.path}\\n".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    def handle_error(self, *a): pass
s = S((sys.argv[1], int(sys.argv[2])), H)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[3], sys.argv[4])
s.socket = context.wrap_socket(s.socket, server_side=True, do_handshake_on_connect=False)
s.serve_forever()
"""


@pytest.fixture(scope="module")
def own(made: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = make(tmp_path_factory.mktemp("own"), "own")
    argv = [sys.executable, "-c", SERVER, SERVICE, str(PORT), str(pair.certificate), str(pair.key)]
    with running(made, argv, PORT, SERVICE):
        yield pair


def trusting(own: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(own.certificate))


def spec(own: Pair) -> dict[str, Any]:
    return {"certificate": {"path": str(own.certificate)}, "key": {"path": str(own.key)}}


@pytest.mark.parametrize("how", ["in order", "kill -9"])
def test_an_agent_comes_and_goes(staging: Target, own: Pair, program: tuple[str, int], how: str) -> None:
    dice, secure = random.Random(7), trusting(own)
    killed = how == "kill -9"
    with canaries(staging, HEADER, PORT, secure) as (others, mine):
        progress(others + mine)
        for n in range(ROUNDS):
            with laptop(staging, program, f"{n:016d}") as there:
                assert there.steal(PORT, MINE, tls=spec(own)) == (0, {})
                with Canary(staging, PORT, keep=True, secure=secure) as another:
                    taken(mine[:1])
                    progress([another], 3)
                    time.sleep(dice.random() / 20)
                    if killed:
                        there.agent.process.send_signal(signal.SIGKILL)
                        there.agent.process.wait()
                        assert "sidestage" not in staging.rules()
                    else:
                        assert there.call("unsteal", port=PORT)[0] == 0
                        given_back(mine[:1])
                        there.end()
                    progress([*others, another, *mine])
                unharmed([another], int(killed))
        unharmed(others[:1], ROUNDS * killed)
        unharmed(others[1:])  # its connection was there before any agent, and never passed through one
        assert len(mine[0].lost) <= ROUNDS * killed and not mine[1].lost, mine[0].lost


def test_the_laptop_falls_silent(staging: Target, own: Pair, program: tuple[str, int]) -> None:
    with (
        canaries(staging, HEADER, PORT, trusting(own)) as (others, mine),
        laptop(staging, program, heartbeat=0.5, silence=4.0) as there,
    ):
        assert there.steal(PORT, MINE, tls=spec(own)) == (0, {})
        taken(mine[:1])
        there.do(lambda: time.sleep(6))  # nothing is read or written there meanwhile
        progress(others)
        given_back(mine[:1])
        wait_for("the agent's end", there.finished, 20)
        progress(others + mine)
        unharmed(others)
        assert len(mine[0].lost) <= 1 and not mine[1].lost, (mine[0].lost, mine[1].lost)


def test_another_agent_goes_on_with_its_own_certificate(staging: Target, own: Pair, program: tuple[str, int]) -> None:
    """It was given the holder's by nobody: when that is killed, it reads the target's files itself."""
    secure = trusting(own)
    with (
        canaries(staging, HEADER, PORT, secure) as (others, mine),
        Canary(staging, PORT, keep=False, header="X-Me: bob\r\n", secure=secure) as bob,
        laptop(staging, program, "b" * 16) as second,
    ):
        for n in range(3):
            with laptop(staging, program, f"{n:016d}") as first:
                assert first.steal(PORT, MINE, tls=spec(own)) == (0, {})
                if not n:
                    assert second.steal(PORT, {"header": "^x-me: bob$"}, tls=spec(own)) == (0, {})
                taken([mine[0], bob])
                first.agent.process.send_signal(signal.SIGKILL)
                first.agent.process.wait()
                given_back(mine[:1])
                taken([bob])
                progress(others)
        unharmed(others[:1], 3)
        unharmed(others[1:])
        assert len(bob.lost) <= 3 and len(mine[0].lost) <= 3
