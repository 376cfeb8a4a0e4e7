"""Drives processes of locker.py: some plugged, some beside the target."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.testkit.laptop import TOKEN, cmdline, marked, parent
from tests.testkit.target import ENV, ROOT, Target

LOCKER = Path(__file__).with_name("locker.py")
WRITE = ("--fs-mode", "write")
FRESH = "rm -rf /srv/w; mkdir /srv/w"
PENDING = 0.5  # seconds in which an answer would have come


class Lockers:
    """Processes of locker.py, and what they answer."""

    def __init__(self) -> None:
        self._answers: dict[str, queue.Queue[str]] = {}
        self._of: dict[str, subprocess.Popen[str]] = {}
        self._tokens: dict[str, str] = {}

    def add(self, process: subprocess.Popen[str], names: str, token: str) -> None:
        for name in names:
            self._answers[name], self._of[name], self._tokens[name] = queue.Queue(), process, token
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in process.stdout:
                name, _, answer = line.strip().partition(" ")
                self._answers[name].put(answer)

    def say(self, name: str, command: str) -> None:
        stdin = self._of[name].stdin
        assert stdin is not None
        stdin.write(f"{name} {command}\n")
        stdin.flush()

    def hear(self, name: str, seconds: float = 30) -> str:
        return self._answers[name].get(timeout=seconds)

    def silent(self, name: str) -> bool:
        try:
            self._answers[name].put(self.hear(name, PENDING))
        except queue.Empty:
            return True
        return False

    def parts(self, name: str) -> dict[str, int]:
        """The processes of its session: trap, session, agent."""
        (agent,) = [pid for pid in marked(self._tokens[name]) if b"sidestage.agent.main" in cmdline(pid)]
        return {"trap": self._of[name].pid, "session": parent(agent), "agent": agent}

    def do(self, step: str) -> str:
        """The answer to a step, as it is written in the tables above."""
        name, command = step[0], step[1:].strip()
        if command == "?":
            return self.hear(name)
        self.say(name, command.removesuffix("..."))
        if command.endswith("..."):
            return "waits" if self.silent(name) else self.hear(name)
        return "" if command == "kill" else self.hear(name)


@contextlib.contextmanager
def lockers(staging: Target, here: tuple[str, ...], there: tuple[str, ...], flags: tuple[str, ...] = WRITE) -> Iterator[Lockers]:
    """Each of `here` is a session with processes of these names."""
    env = {**os.environ, **ENV, "PYTHONPATH": str(ROOT / "src")}
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--uts", "--"]
    with contextlib.ExitStack() as stack:
        found = Lockers()
        for names, plugged in (*((names, True) for names in here), *((names, False) for names in there)):
            argv, token = [sys.executable, str(LOCKER), *names], uuid.uuid4().hex
            process = subprocess.Popen(
                staging.command(argv, flags) if plugged else [*enter, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={**env, TOKEN: token}, text=True, start_new_session=True,
            )  # fmt: skip
            stack.callback(_end, process)
            found.add(process, names, token)
        yield found


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def played(staging: Target, script: str, here: tuple[str, ...], there: tuple[str, ...] = ()) -> list[str]:
    assert staging.native(["sh", "-c", FRESH]).code == 0
    with lockers(staging, here, there) as found:
        return [f"{step}: {found.do(step)}" for step in re.split(r";\s*|\n\s*", script.strip())]
