"""A web server for one person on one machine: the page, the sessions, a session's feed as server-sent events, and details.

Whoever has the token may look, nobody else on this machine: it stands in the fragment of the address, which browsers send to
nobody, and the page sends it along. Requests that name another host are refused, so that no web site can reach us by a name of
its own that leads to 127.0.0.1 (DNS rebinding); nothing is loaded from elsewhere, which the content security policy enforces.
"""

from __future__ import annotations

import hmac
import http.server
import json
import secrets
import socketserver
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sidestage.session.follow import Follower

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
KEEPALIVE = 15.0  # seconds between comments in a stream of events that has nothing to say
MAX_DETAILS = 8 << 20

Living = Callable[[], list[dict[str, Any]]]


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """`living` lists the sessions. `url` is the address for the browser, with its token."""

    daemon_threads = True

    def __init__(self, living: Living, port: int = 0) -> None:
        self.living = living
        self.token = secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without a look-up of our own name
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a browser that goes away is no error


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sidestage", ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.headers.get("Host", "") not in (f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}"):
            self._answer(421, b"not this host\n", "text/plain")
        elif url.path in ("/", "/app.js", "/app.css"):
            name = url.path.lstrip("/") or "index.html"
            page = resources.files("sidestage.ui").joinpath("page", name).read_bytes()
            self._answer(200, page, TYPES[name.rpartition(".")[2]])
        elif not self._allowed():
            self._answer(403, b"the token is missing or wrong: open the address that `sidestage ui` printed\n", "text/plain")
        elif url.path == "/sessions":
            self._json(200, self.server.living())
        elif url.path == "/events":
            self._events(_one(url.query, "session"))
        elif url.path == "/exchange":
            self._exchange(_one(url.query, "session"), _one(url.query, "id"))
        else:
            self._answer(404, b"no such page\n", "text/plain")

    def _allowed(self) -> bool:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return kind == "Bearer" and hmac.compare_digest(token.encode(), self.server.token.encode())

    def _events(self, session: str) -> None:
        try:
            follower = Follower(session)
        except OSError:
            self._json(404, {"error": "the session has ended"})
            return
        self.close_connection = True
        self.send_response(200)
        self._headers("text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        follower.timeout(KEEPALIVE)
        try:
            self._event(follower.about)
            for event in follower.events():
                self._event(event)
            self._event({"type": "end"})
        except OSError:
            pass  # the browser has gone
        finally:
            follower.close()

    def _event(self, event: dict[str, Any]) -> None:
        # When nothing happens for a while, a comment finds out whether the browser is still there.
        self.wfile.write(b": \n\n" if event["type"] == "quiet" else b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _exchange(self, session: str, ident: str) -> None:
        for event in _details(session, ident):
            self._json(200, event)
            return
        self._json(404, {"error": "the session has ended"})

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self._headers(kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")

    def log_message(self, *args: Any) -> None:
        return


def _details(session: str, ident: str) -> Iterator[dict[str, Any]]:
    if not ident.isdecimal():
        return
    try:
        follower = Follower(session)
    except OSError:
        return
    try:
        yield follower.ask("exchange", id=int(ident))
    except (OSError, StopIteration):
        return
    finally:
        follower.close()


def _one(query: str, name: str) -> str:
    return parse_qs(query).get(name, [""])[0]


def until_end(server: Server, session: str) -> None:
    """Serve until `session` ends; with an empty name for ever."""
    import threading

    if not session:
        server.serve_forever()
        return
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        follower = Follower(session)
        for _ in follower.events():
            pass
    except OSError:
        pass
    server.shutdown()


