"""`up`: real services plugged into a real target; output, restarts, and that nothing is left however it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.testkit.laptop import TOKEN, cmdline, marked
from tests.testkit.target import SERVICE, Target, wait_for
from tests.testkit.verb import Verb, once, verb

SERVER = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("got", self.path, flush=True); self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
s = http.server.HTTPServer(("", 8080), H); print("listening", flush=True); s.serve_forever()
"""
CLIENT = """
import os, socket, sys
s = socket.create_connection(("db", 7000), 5); s.sendall(b"ping")
print(s.recv(9).decode(), os.environ["GREETING"], os.environ["OWN"])
print("to stderr", file=sys.stderr); sys.stdout.write("no end of line")
"""
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, lambda *_: None); print('up', flush=True)\nwhile 1: time.sleep(1)"


def write(folder: Path, staging: Target, services: dict[str, dict[str, object]]) -> Path:
    tree = {"default": {"target": f"process/{staging.pid}"}, "services": services}
    file = folder / "sidestage-up.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def python(code: str) -> list[str]:
    return ["python3", "-c", code]


def count(run: Verb, line: str) -> int:
    return run.out.count(line)


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """All processes of the test carry this; none may be there at its end."""
    from tests.testkit import verb as testkit

    token = f"up-{os.getpid()}-{request.node.name}"
    monkeypatch.setitem(testkit.ENV, TOKEN, token)
    yield token
    wait_for("the end of all", lambda: not marked(token), 20)


def test_two_services_and_their_output(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    services: dict[str, dict[str, object]] = {
        "orders": {"command": python(SERVER)}, "client": {"command": python(CLIENT), "env": {"OWN": "mine"}},
    }  # fmt: skip
    with verb(["up", "-k", "both"], cwd=write(tmp_path, staging, services).parent) as run:
        run.wait("client | ping hello from staging mine")
        run.wait("client | no end of line")
        run.wait("client | to stderr")
        run.wait("orders | listening")

        def mirrored() -> bool:
            staging.client(f"http://{SERVICE}:8080/both")
            return "orders | got /both\n" in run.out

        wait_for("a mirrored request", mirrored)
        run.wait("client | sidestage: ended with 0")
        assert [line.split()[0] for line in once(["status"]).out.splitlines() if "both" in line] == ["both"]
        assert run.end() == 130


def test_the_first_that_fails_ends_all(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    services: dict[str, dict[str, object]] = {
        "good": {"command": python(SLEEPS)}, "bad": {"command": python("import sys, time; time.sleep(1); sys.exit(7)")},
    }  # fmt: skip
    with verb(["up", "-f", str(write(tmp_path, staging, services))]) as run:
        assert run.process.wait(60) == 7
        run.wait("bad  | sidestage: ended with 7, which ends the others")


def test_only_those_that_are_named(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    services: dict[str, dict[str, object]] = {
        "one": {"command": python("print('ran')")}, "two": {"command": python("raise SystemExit(9)")},
    }  # fmt: skip
    done = once(["up", "-f", str(write(tmp_path, staging, services)), "one"])
    assert (done.code, done.out) == (0, "one | ran\n"), done.err


def test_it_starts_again_after_a_change(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    code = tmp_path / "app" / "main.py"
    code.parent.mkdir()
    code.write_text(SLEEPS)
    services: dict[str, dict[str, object]] = {"app": {"command": "python3 main.py", "dir": "app", "watch": ["*.py"]}}
    with verb(["up", "-f", str(write(tmp_path, staging, services)), "--watch"]) as run:
        run.wait("app | up")
        code.write_text("print('new'); raise SystemExit(3)")
        run.wait("app | sidestage: main.py changed: starts again")
        run.wait("app | new")
        run.wait("ended with 3, waits for a change")
        code.write_text(SLEEPS)
        wait_for("a start after the failure", lambda: count(run, "app | up\n") == 2, 20)
        assert run.end() == 130


def test_it_starts_again_when_it_has_failed(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    command = python("print('ran'); raise SystemExit(4)")
    services: dict[str, dict[str, object]] = {"app": {"command": command, "restart": "on-failure"}}
    with verb(["up", "-f", str(write(tmp_path, staging, services))]) as run:
        run.wait("ended with 4, starts again in 1 s")
        run.wait("ended with 4, starts again in 2 s")
        assert count(run, "app | ran\n") >= 2
        assert run.end() == 130


def test_what_does_not_end_is_killed(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    services: dict[str, dict[str, object]] = {"app": {"command": python(STUBBORN), "grace": 1}}
    with verb(["up", "-f", str(write(tmp_path, staging, services))]) as run:
        run.wait("app | up")
        assert run.end() == 130
        run.wait("did not end within 1 s: killed")


def test_a_second_ctrl_c_does_not_wait(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    services: dict[str, dict[str, object]] = {
        "app": {"command": python(STUBBORN), "grace": 600}, "other": {"command": python(SLEEPS)},
    }  # fmt: skip
    with verb(["up", "-f", str(write(tmp_path, staging, services))]) as run:
        run.wait("app   | up")
        run.wait("other | up")
        run.process.send_signal(signal.SIGINT)
        wait_for("the end of the other", lambda: not any(b"time.sleep(60)" in cmdline(pid) for pid in marked(nothing_left)))
        assert run.process.poll() is None
        assert run.end() == 130


def test_its_own_death_ends_all(staging: Target, tmp_path: Path, nothing_left: str) -> None:
    """Also of those that don't end when they are asked to."""
    services: dict[str, dict[str, object]] = {
        "app": {"command": python(SLEEPS)}, "other": {"command": python(STUBBORN), "grace": 60},
    }  # fmt: skip
    with verb(["up", "-f", str(write(tmp_path, staging, services))]) as run:
        run.wait("app   | up")
        run.wait("other | up")
        assert any(b"sidestage.agent" in cmdline(pid) for pid in marked(nothing_left))
        assert run.end(signal.SIGKILL) == -signal.SIGKILL


def test_init_writes_a_file_and_overwrites_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert once(["up", "init", "-f", str(file)]).code == 0
    done = once(["up", "init", "-f", str(file)])
    assert (done.code, "there is one already" in done.err) == (1, True)


@pytest.mark.parametrize("argv, said", [
    (["-f", "/nowhere.yaml"], "`sidestage up init` writes one"), (["nobody"], "no service 'nobody'"),
    (["--watch"], "no service says what to watch"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(staging: Target, tmp_path: Path, argv: list[str], said: str) -> None:
    file = write(tmp_path, staging, {"app": {"command": "true"}})
    done = once(["up", *(argv if "-f" in argv else ["-f", str(file), *argv])])
    assert (done.code != 0, said in done.err) == (True, True), done.err
