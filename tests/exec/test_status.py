"""What a running session tells, how it is found, and how it is stopped from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sidestage.session.follow import Follower
from tests.testkit.target import ROOT, SIDESTAGE, Target, wait_for

PROGRAM = """
import socket, time
open("/srv/config.txt").read()
try: open("/srv/none")
except OSError: pass
with socket.create_connection(("db.staging.internal", 7000), 5) as s:
    s.sendall(b"ping"); s.shutdown(socket.SHUT_WR)
    while s.recv(99): pass
try: socket.create_connection(("10.77.0.20", 7999), 5)
except OSError: pass
u = socket.socket(type=socket.SOCK_DGRAM); u.connect(("10.77.0.20", 7000)); u.send(b"x"); u.recv(9)
print("done", flush=True); time.sleep(60)
"""


@contextlib.contextmanager
def running(staging: Target, key: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        staging.command(["python3", "-c", PROGRAM], ["--key", key]), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def status(*args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([*SIDESTAGE, "status", *args], capture_output=True, text=True, timeout=30, check=False, env=env)


def events(key: str) -> list[dict[str, Any]]:
    """What has happened until now."""
    (about,) = [about for about in json.loads(status("--output", "json").stdout) if about["key"] == key]
    follower = Follower(about["session"])
    found = []
    for event in follower.events():
        found.append(event)
        if event["type"] == "connect" and event["kind"] == "udp":
            break
    follower.close()
    return found


def test_what_it_does_is_told(staging: Target) -> None:
    with running(staging, "told"):
        found = events("told")
    (begun,) = [event for event in found if event["type"] == "begin"]
    assert begun["hostname"] == "orders-7f9c"
    (env,) = [event for event in found if event["type"] == "env"]
    assert env["variables"]["GREETING"] == "hello from staging"
    opened = {event["path"]: event["errno"] for event in found if event["type"] == "open"}
    assert (opened["/srv/config.txt"], opened["/srv/none"]) == (0, 2)
    names = [event for event in found if event["type"] == "dns" and event["name"] == "db.staging.internal"]
    assert ["10.77.0.20"] in [event["addresses"] for event in names]
    made, refused, _ = [event for event in found if event["type"] == "connect"]
    assert (made["name"], made["port"], made["errno"]) == ("db.staging.internal", 7000, 0)
    assert (refused["port"], refused["errno"]) == (7999, 111)
    (closed,) = [event for event in found if event["type"] == "closed"]
    assert (closed["id"], closed["up"], closed["down"]) == (made["id"], 4, 4)


def test_it_can_be_stopped(staging: Target) -> None:
    with running(staging, "stopped") as process:
        assert "stopped  process/" in status().stdout
        assert status("--stop", "stopped").returncode == 0
        assert process.wait(20) == 1
        assert process.stderr
        assert "stopped from outside" in process.stderr.read()
    wait_for("its end", lambda: "stopped" not in status().stdout)


@pytest.mark.parametrize("args", [["--stop", "nobody"], ["--follow", "nobody"]])
def test_a_session_that_is_not_there(args: list[str]) -> None:
    done = status(*args)
    assert (done.returncode, "no session 'nobody'" in done.stderr) == (1, True)


