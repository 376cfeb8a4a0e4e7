"""A target and a local program for the tests of this folder; each test leaves them as they were."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.testkit.target import Target, target, wait_for


class Local(http.server.BaseHTTPRequestHandler):
    """The developer's version of the service."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"local {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


class LocalServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("target")) as there:
        yield there


@pytest.fixture
def staging(made: Target) -> Iterator[Target]:
    yield made
    wait_for("the end of the rules", lambda: "sidestage" not in made.rules(), 20)


@pytest.fixture(scope="session")
def program() -> Iterator[tuple[str, int]]:
    """The address of a local program that answers HTTP."""
    with LocalServer(("127.0.0.1", 0), Local) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()
