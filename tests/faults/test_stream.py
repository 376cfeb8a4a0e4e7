"""The stream between session and agent on a bad line: cut, silent, slow, in slices. A relay of the testkit is that line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests.testkit.laptop import Laptop, Run
from tests.testkit.target import Target, wait_for
from tests.testkit.toxic import Control, wrapper

TALKS = """
import socket, sys, time
s = socket.create_connection(("10.77.0.20", 7000)); n = 0
while True:
    s.sendall(b"%07d\\n" % n); got = b""
    while len(got) < 8: got += s.recv(8 - len(got))
    assert got == b"%07d\\n" % n, got
    n += 1; print(n, flush=True); open("/srv/config.txt").read(); time.sleep(0.005)
"""
WORKS = """
import hashlib, os, socket, sys
data = hashlib.shake_256(b"seed").digest(int(sys.argv[1]))
s = socket.create_connection(("db.staging.internal", 7000)); s.setblocking(True)
import threading
threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True).start()
back = hashlib.sha256()
while part := s.recv(1 << 16): back.update(part)
print(back.hexdigest() == hashlib.sha256(data).hexdigest(), len(open("/srv/big", "rb").read()))
print(sorted(os.listdir("/srv/folder")), open("/srv/config.txt").read(), socket.gethostname())
"""


def on_a_bad_line(
    here: Laptop, staging: Target, folder: Path, code: str, *args: str, heartbeat: float = 0.3, silence: float = 1.5
) -> tuple[Run, Control]:
    python, control = wrapper(folder)
    config = folder / "sidestage.json"
    config.write_text(json.dumps({"agent": {"python": python, "heartbeat": heartbeat, "silence": silence}}))
    return here.start(staging, [sys.executable, "-c", code, *args], ["-f", str(config)]), control


def count(run: Run) -> int:
    return len(run.stdout().splitlines())


def talking(run: Run) -> None:
    seen = count(run)
    wait_for("talk", lambda: count(run) > seen + 5 or run.process.poll() is not None, 30)
    assert run.process.poll() is None, run.stderr()


@pytest.mark.usefixtures("canary")
def test_cut(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run, line = on_a_bad_line(here, staging, tmp_path, TALKS)
    talking(run)
    line.set(cut=1)
    assert run.end() == 1
    assert "the agent beside the target is gone: " in run.stderr()


@pytest.mark.usefixtures("canary")
def test_silence(here: Laptop, staging: Target, tmp_path: Path) -> None:
    """Nothing is closed and nothing passes, as behind a NAT device that forgot us."""
    run, line = on_a_bad_line(here, staging, tmp_path, TALKS)
    talking(run)
    line.set(stalled=1)
    assert run.end() == 1
    assert "no word for" in run.stderr()


def test_a_short_silence_is_survived(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run, line = on_a_bad_line(here, staging, tmp_path, TALKS, silence=8)
    for _ in range(3):
        talking(run)
        line.set(stalled=1)
        time.sleep(0.7)
        line.set(stalled=0)
    talking(run)
    line.set(cut=1)
    assert run.end() == 1


@pytest.mark.parametrize(
    "toxics, size",
    [
        ({"slice": 1}, 20_000),
        ({"slice": 7, "latency": 0.005}, 100_000),
        ({"latency": 0.05}, 5_000_000),
        ({"bandwidth": 2e6}, 500_000),
    ],
    ids=["bytes", "slices", "latency", "bandwidth"],
)
def test_a_bad_line_changes_nothing_but_time(
    here: Laptop, staging: Target, tmp_path: Path, toxics: dict[str, float], size: int
) -> None:
    code = "import time; time.sleep(0.5)\n" + WORKS  # the line has turned bad by then
    run, line = on_a_bad_line(here, staging, tmp_path, code, str(size), silence=30)
    wait_for("the line", lambda: (tmp_path / "toxic.sock").exists())
    line.set(**toxics)
    assert run.end(50) == 0, run.stderr()
    assert run.stdout() == staging.native([sys.executable, "-c", WORKS, str(size)]).out
