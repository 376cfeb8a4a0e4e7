"""`clean` on this machine: an agent that nobody waits for is found by its command line, and killed; others are let be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.testkit.target import wait_for

from sidestage.cli import clean

SESSION = "fe" * 8
# Started by a shell that ends: an orphan. It looks like an agent, and does nothing.
ORPHAN = "sidestage_agent = 'sidestage.agent.main'\nimport time\nprint('up', flush=True)\ntime.sleep(100)"


@pytest.fixture
def orphan() -> Iterator[int]:
    args = json.dumps({"pid": 1, "session": SESSION})
    command = ["sh", "-c", '"$0" "$@" & echo $!; wait -n 2>&- || true', sys.executable, "-I", "-S", "-u", "-c", ORPHAN, args]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert shell.stdout
    pid = int(shell.stdout.readline())
    shell.stdout.readline()
    shell.kill()
    shell.wait()
    shell.stdout.close()
    yield pid
    if os.path.exists(f"/proc/{pid}") and clean.agent_of(clean._read(f"/proc/{pid}/cmdline")) == SESSION:
        os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_an_orphan_is_told_and_killed(orphan: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(clean, "GRACE", 0.5)
    assert dict(clean.agents([]))[orphan] == SESSION
    assert orphan not in dict(clean.agents([SESSION]))
    # Others of this machine may be other tests' business: only this one is looked at.
    monkeypatch.setattr(clean, "agents", lambda living: iter([] if gone(orphan) else [(orphan, SESSION)]))
    assert clean.main(["--local", "--dry-run"]) == 0
    assert f"process {orphan}, an agent whose session {SESSION} has ended: would be killed" in capsys.readouterr().out
    assert not gone(orphan)
    assert clean.main(["--local"]) == 0
    wait_for("its end", lambda: gone(orphan))
    assert "was killed" in capsys.readouterr().out
    assert clean.main(["--local"]) == 0
    assert capsys.readouterr().out == "nothing is left on this machine\n"


@pytest.mark.parametrize("words, session", [
    (["python3", "-c", "from sidestage.agent.main import run", '{"session": "ab", "pid": 1}'], "ab"),
    (["python3", "-c", "from sidestage.agent.main import run", '{"session": "ab", "bulk": true}'], ""),
    (["python3", "-c", "from sidestage.agent.main import run", "no json"], ""),
    (["grep", "sidestage.agent.main"], ""), (["python3", "-c", "print()", '{"session": "ab"}'], ""), ([], ""),
])  # fmt: skip
def test_what_an_agent_looks_like(words: list[str], session: str) -> None:
    assert clean.agent_of("".join(f"{word}\0" for word in words).encode()) == session


@pytest.mark.parametrize("seconds, text", [(3, "3 s"), (59.4, "59 s"), (90, "2 min"), (7200, "2 h"), (200000, "2 d")])
def test_ages(seconds: float, text: str) -> None:
    assert clean.age(seconds) == text
