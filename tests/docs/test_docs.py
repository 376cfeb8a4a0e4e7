"""The manual builds without a warning, its links lead somewhere, and its examples do what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, SIDESTAGE, Target

PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLE = re.compile(r"^```console run\n(.*?)^```", re.M | re.S)


def examples() -> list[tuple[str, str, str]]:
    """(page, command, what it shall print) of each block that is marked `console run`."""
    found = []
    for page in PAGES:
        for block in EXAMPLE.findall(page.read_text()):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = part.partition("\n")
                found.append((page.name, command, output))
    return found


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path], cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "quickstart" / "index.html").exists()
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert not re.findall(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)[^"]*"', pages), "something is loaded from elsewhere"


def test_there_are_examples() -> None:
    assert len(examples()) >= 3


@pytest.mark.parametrize("page, command, output", examples())
def test_an_example_prints_what_it_shows(staging: Target, tmp_path: Path, page: str, command: str, output: str) -> None:
    wrapper = tmp_path / "sidestage"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(SIDESTAGE)} "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", command.replace("4711", str(staging.pid))], capture_output=True, text=True, timeout=50, check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout == output, done.stderr
