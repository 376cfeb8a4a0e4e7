"""Mirroring goes on beside a steal, of whatever session: every request once, with its own client, whoever answers it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.exec.test_incoming import PYTHON
from tests.testkit.session import laptop
from tests.testkit.target import CLIENT, CLIENT6, ROOT, SERVICE, SERVICE6, Target, wait_for

CODE = PYTHON.replace("FAMILY", "socket.AF_INET6")
URL, URL6 = f"http://{SERVICE}:8080", f"http://[{SERVICE6}]:8080"


@pytest.mark.parametrize("first", ["mirror", "steal"])
def test_every_request_once(staging: Target, program: tuple[str, int], tmp_path: Path, first: str) -> None:
    out = tmp_path / "out"
    with laptop(staging, program) as there, open(out, "wb") as sink:
        if first == "steal":
            assert there.steal(8080, {"path": "^/mine"})[0] == 0
        process = subprocess.Popen(
            staging.command(["python3", "-c", CODE]), stdout=sink, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        try:
            wait_for("the mirror", lambda: staging.client(f"{URL}/probe").code == 0 and "/probe" in out.read_text())
            if first == "mirror":
                assert there.steal(8080, {"path": "^/mine"})[0] == 0
            for n in range(3):
                assert staging.client(f"{URL}/mine{n}").out == f"local /mine{n}\n"
                assert staging.client(f"{URL}/other{n}").out == f"staging /other{n}\n"
                assert staging.client(f"{URL6}/mine-six{n}", CLIENT6).out == f"local /mine-six{n}\n"
            want = {f"/mine{n}" for n in range(3)} | {f"/other{n}" for n in range(3)}
            expected = sorted([f"{path} ::ffff:{CLIENT} ::ffff:{CLIENT}" for path in want]
                              + [f"/mine-six{n} {CLIENT6} {CLIENT6}" for n in range(3)])  # fmt: skip
            wait_for("all of them", lambda: len(_lines(out)) >= len(expected))
            assert sorted(_lines(out)) == expected
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def _lines(out: Path) -> list[str]:
    return [line for line in out.read_text().splitlines() if not line.startswith(("/probe", "listening"))]
