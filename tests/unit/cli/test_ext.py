"""What editors are told: lines of JSON, the last with the wrapper's command; errors with cause and cure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.testkit.target import ROOT


def ext(folder: Path, *args: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "sidestage", "ext", *args], capture_output=True, text=True, timeout=30, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_wrapper(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"target": "pod/x", "telemetry": true}')
    code, lines, _ = ext(tmp_path, "-f", "c.json", "-k", "mine", "-e", "/bin/true")
    assert (code, [line["type"] for line in lines]) == (0, ["NewTask", "Warning", "FinishedTask"])
    message = json.loads(lines[-1]["message"])
    assert message["command"][-6:] == ["exec", "-f", str(tmp_path / "c.json"), "-k", "mine", "--"]
    assert (message["environment"], message["env_to_unset"]) == ({}, [])


def test_the_wrapper_runs_a_program(tmp_path: Path) -> None:
    _, lines, _ = ext(tmp_path, "-t", "process/4194303")
    command = json.loads(lines[-1]["message"])["command"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=30, check=False, env=env)
    assert "there is no process 4194303" in done.stderr


def test_errors_have_message_and_help(tmp_path: Path) -> None:
    for args, said in ([], "no target"), (["-t", "pord/x"], "unknown kind"), (["-f", "none.json"], "no such file"):
        code, lines, err = ext(tmp_path, *args)
        assert (code, lines[-1]["success"]) == (1, False)
        told = json.loads(err.splitlines()[-1].removeprefix("Error: "))
        assert said in told["message"]
        assert told["help"]
