"""Several sessions on one port, each with an agent of its own: whose a request is, and who gets what when they come and go."""

from __future__ import annotations

import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.testkit.session import Laptop, laptop
from tests.testkit.target import SERVICE, Target, wait_for


@contextmanager
def program(name: str) -> Iterator[tuple[str, int]]:
    """A local program that answers with its name."""

    class Named(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Named) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()


def user(name: str) -> dict[str, str]:
    return {"header": f"^x-user: {name}$"}


def asked(staging: Target, *headers: str) -> str:
    argv = ["curl", "-sS", "-m", "8"] + [word for header in headers for word in ("-H", header)]
    done = staging.native([*argv, f"http://{SERVICE}:8080/"])
    assert done.code == 0, done.err
    return "staging" if done.out.startswith("staging") else done.out


@contextmanager
def three(staging: Target) -> Iterator[list[Laptop]]:
    names = ("alice", "bob", "carol")
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(program(name)) for name in names]
        yield [stack.enter_context(laptop(staging, at, name[0] * 16)) for at, name in zip(programs, names, strict=True)]


def test_each_gets_its_own(staging: Target) -> None:
    with three(staging) as (alice, bob, carol):
        for there, name in ((alice, "alice"), (bob, "bob"), (carol, "carol")):
            assert there.steal(8080, user(name))[0] == 0
        for name in ("alice", "bob", "carol", "alice"):
            assert asked(staging, f"X-User: {name}") == name
        assert asked(staging, "X-User: dave") == "staging"
        assert asked(staging) == "staging"
        # alice's agent holds the port: it goes, and the two others find each other anew
        alice.end()
        wait_for("the target's answer", lambda: asked(staging, "X-User: alice") == "staging")
        wait_for("bob's and carol's", lambda: [asked(staging, f"X-User: {n}") for n in ("bob", "carol")] == ["bob", "carol"])
        assert carol.call("unsteal", port=8080)[0] == 0
        assert asked(staging, "X-User: carol") == "staging"
        assert carol.steal(8080, user("carol"))[0] == 0
        assert asked(staging, "X-User: carol") == "carol"


def test_who_came_first_has_what_both_match(staging: Target) -> None:
    with three(staging) as (alice, bob, _):
        assert alice.steal(8080, {"path": "^/"})[0] == 0
        assert bob.steal(8080, user("bob"))[0] == 0
        assert asked(staging, "X-User: bob") == "alice"
        assert alice.call("unsteal", port=8080)[0] == 0
        assert asked(staging, "X-User: bob") == "bob"


@pytest.mark.parametrize("mine, yours", [(user("x"), user("x")), (None, user("x")), (user("x"), None), (None, None)])
def test_a_conflict_is_refused_waits_or_overrides(
    staging: Target, mine: dict[str, str] | None, yours: dict[str, str] | None
) -> None:
    with three(staging) as (alice, bob, carol):
        assert alice.steal(8080, mine)[0] == 0
        code, answer = bob.steal(8080, yours)
        assert code == 16 and answer["text"].startswith("taken by alice@laptop since 20")
        assert asked(staging, "X-User: x") == "alice"
        bob.do(lambda: bob.link.call("steal", {"port": 8080, "owner": "bob@laptop", "filter": yours, "on_conflict": "wait"}, done))
        assert bob.events.get(timeout=5)[0] == "steal.waiting"
        assert asked(staging, "X-User: x") == "alice"
        assert carol.steal(8080, yours, on_conflict="override")[0] == 0
        assert asked(staging, "X-User: x") == "carol"
        assert "taken over" in alice.events.get(timeout=5)[1]["text"]
        carol.end()
        wait_for("bob's turn", lambda: asked(staging, "X-User: x") == "bob")


def done(_result: object, _raw: bytes, _code: int) -> None:
    return


def test_much_goes_through_another_s_agent(staging: Target, tmp_path: Path) -> None:
    """A body beyond every window, from a session that joined: with credit, in both directions."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server, three(staging) as (alice, bob, _):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bob.program = ("127.0.0.1", server.server_address[1])
        assert alice.steal(8080, user("alice"))[0] == 0
        assert bob.steal(8080, user("bob"))[0] == 0
        body = tmp_path / "body"
        body.write_bytes(os.urandom(20_000_000))
        send = f"curl -sS -m 60 -H 'X-User: bob' -H Expect: --data-binary @{body} http://{SERVICE}:8080/ | cmp - {body}"
        result = staging.native(["sh", "-euc", send], 90)
        assert result.code == 0 and not result.out, result
        server.shutdown()
