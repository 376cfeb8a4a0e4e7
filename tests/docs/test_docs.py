"""The manual builds without a warning, its links lead somewhere, and its examples do what they show."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, SIDESTAGE, Target

PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLE = re.compile(r"^```console run ?(.*?)\n(.*?)^```", re.M | re.S)
FILE = re.compile(r'^```\w+ title="(.*?)"\n(.*?)^```', re.M | re.S)
PROMPT = re.compile(r"^(client)?\$ (.*)\n", re.M)
PATIENCE = 40.0  # seconds until a client is answered as the page shows: something must have begun to listen


@dataclass(frozen=True, slots=True)
class Example:
    """A block that is marked `console run`, with the names of files that other pages show."""

    page: str
    block: str
    files: str

    def steps(self) -> list[tuple[bool, str, str]]:
        """(is it a client's?, command, what it shall print)."""
        _, *parts = PROMPT.split(self.block)
        return [(who == "client", command, output) for who, command, output in zip(*[iter(parts)] * 3, strict=True)]


def examples() -> list[Example]:
    return [Example(page.name, block, files) for page in PAGES for files, block in EXAMPLE.findall(page.read_text())]


def files() -> dict[str, tuple[str, str]]:
    """Files that the pages show: name -> (page, text)."""
    return {name: (page.name, text) for page in PAGES for name, text in FILE.findall(page.read_text())}


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path], cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "quickstart" / "index.html").exists()
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert not re.findall(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)[^"]*"', pages), "something is loaded from elsewhere"


# What lets podman run as root inside a machine that is itself confined, see tests/testkit/box.py
PODMAN = """\
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=10000:10000"]
"""


def test_there_are_examples() -> None:
    pages = "containers difference files filters incoming network quickstart".split()
    assert {f"{page}.md" for page in pages} <= {e.page for e in examples()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("example", examples(), ids=[f"{one.page}-{n}" for n, one in enumerate(examples())])
def test_an_example_prints_what_it_shows(staging: Target, tmp_path: Path, example: Example) -> None:
    """What is in the background (`&`) prints what stands below it before all goes on, and ends with the block."""
    wrapper = tmp_path / "bin" / "sidestage"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(SIDESTAGE)} "$@"\n')
    wrapper.chmod(0o755)
    for name, (page, text) in files().items():
        if page == example.page or name in example.files.split():
            (tmp_path / name).write_text(text.replace("4711", str(staging.pid)))
    engine = tmp_path / "bin" / "containers.conf"
    engine.write_text(PODMAN)
    env = {
        **os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"),
        "CONTAINERS_CONF": str(engine),
    }  # fmt: skip
    expected = ""
    with contextlib.ExitStack() as stack:
        background = None
        for client, command, output in example.steps():
            words = ["sh", "-c", command.removesuffix(" &").replace("4711", str(staging.pid))]
            if client:
                output = answered(staging, words, output)
            elif command.endswith(" &"):
                background = stack.enter_context(running(words, tmp_path, env))
                assert background.stdout is not None
                assert "".join(background.stdout.readline() for _ in output.splitlines()) == output
                continue
            else:
                done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path, env=env)
                assert done.stdout == output, done.stderr
                continue
            expected += output
        if background:
            assert ended(background, expected) == expected


def answered(staging: Target, words: list[str], output: str) -> str:
    """A client asks until it gets the answer that the page shows; what the page shows beyond that."""
    ends = time.monotonic() + PATIENCE
    while not (got := staging.native(words).out) or not output.startswith(got):
        assert time.monotonic() < ends, f"{words[-1]}: {got!r} instead of {output!r}"
        time.sleep(0.2)
    return output.removeprefix(got)


@contextlib.contextmanager
def running(words: list[str], folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder, env=env, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str], expected: str) -> str:
    """All that it prints: it ends by itself when that is said, else by Ctrl-C."""
    assert process.stdout is not None
    printed = "".join(process.stdout.readline() for _ in expected.splitlines())
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    return printed + process.communicate(timeout=30)[0]
