"""The demo's staging by itself, and the whole story, each in a network of its own so that nothing can leave this machine."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidestage.demo import staging, story

SEALED = ["unshare", "-n", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh"]


def question(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    "name, kind, code, answers",
    [
        (staging.DATABASE_NAME, 1, 0, 1),
        (staging.DATABASE_NAME.upper(), 1, 0, 1),
        (staging.DATABASE_NAME, 28, 0, 0),  # no AAAA, but the name is there: not NXDOMAIN (RFC 2308)
        ("example.org", 1, 3, 0),
    ],
)
def test_names(name: str, kind: int, code: int, answers: int) -> None:
    reply = staging.resolve(question(name, kind))
    ident, flags, questions, count, _, _ = struct.unpack_from("!6H", reply)
    assert (ident, flags & 15, questions, count) == (7, code, 1, answers)
    assert reply.endswith(bytes([10, 77, 0, 20])) == bool(answers)


@pytest.mark.root
def test_its_clients_are_served_and_nothing_is_left() -> None:
    token = "test" + os.urandom(4).hex()
    with story.stage({**os.environ, story.MARK: token}) as there:
        kind, _, pid = there.target.partition("/")
        assert kind == "process"
        assert b"GREETING=hello from staging" in Path(f"/proc/{pid}/environ").read_bytes()
        assert json.loads(Path(f"/proc/{pid}/root{staging.CONFIG}").read_text())["source"] == "only in staging"
        assert not Path(staging.CONFIG).exists()
        there.mark()
        time.sleep(0.5)
        told = there.mark()
    assert told["errors"] == 0
    assert told["requests"] >= 15
    assert story.remains(token) == []


@pytest.mark.root
def test_the_whole_story() -> None:
    command = [*SEALED, sys.executable, "-m", "sidestage", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "database     42 orders, asked from 10.77.0.10" in done.stdout
    assert "from 10.77.0.50:" in done.stdout
    assert re.search(r"filtered +\d+ requests, 0 errors, .* of alice's answered by version 2.0", done.stdout), done.stdout
    assert "Left behind: nothing" in done.stdout
