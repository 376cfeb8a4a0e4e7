"""What travels: its size, that it is complete, and that it runs on every Python there is on this machine."""

from __future__ import annotations

import ast
import contextlib
import glob
import os
import re
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from sidestage.agent import payload

ROOT = Path(payload.__file__).parents[1]
TRAVELS = [ROOT / package.rpartition(".")[2] / f"{name}.py" for package, names in payload.MODULES.items() for name in names]


def test_budget(capsys: pytest.CaptureFixture[str]) -> None:
    size, command = len(payload.build()), sum(map(len, payload.command("python3", {})))
    with capsys.disabled():
        print(f"\npayload: {size / 1024:.1f} KiB compressed, of {payload.BUDGET >> 10}; command line: {command} bytes")
    assert size <= payload.BUDGET and command <= 1200
    assert len(payload.build(sys.executable)) <= payload.BUDGET * 4  # over a local socket, and unpacked in 5 ms


def test_it_is_complete() -> None:
    """Every module that what travels imports travels too; none that it could do without."""
    assert all(path.exists() for path in TRAVELS)
    imported = {"sidestage.agent.main"}
    for path in TRAVELS:
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sidestage"):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= full if node.module in payload.MODULES else {str(node.module)}
    assert imported == {f"{package}.{name}" for package, names in payload.MODULES.items() for name in names}


@pytest.mark.parametrize("path", TRAVELS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_without_its_words_a_module_is_the_same(path: Path) -> None:
    """Docstrings are emptied, and nothing else changes, nor does any line's number."""
    was, now = ast.parse(path.read_text()), ast.parse(payload.slim(path.read_text()))
    for node in ast.walk(was):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Expr(ast.Constant(""))
    assert ast.dump(now) == ast.dump(was)
    assert payload.slim(path.read_text()).count("\n") == path.read_text().count("\n")


def test_the_parts_are_read_as_they_were_written() -> None:
    for python in (None, sys.executable):
        data = payload.preamble(python)
        kind, length = data[:1], int.from_bytes(data[1:5], "big")
        assert len(data) == 5 + length and kind == (b"c" if python else b"s") and zlib.decompress(data[5:])
    assert re.fullmatch("[0-9a-f]{64}", payload.sha256())


def pythons() -> dict[tuple[int, ...], str]:
    """The interpreters of this machine, one a version: of the system, of pyenv where there is one, and our own."""
    folders = ["/usr/bin", "/usr/local/bin", *glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin"))]
    paths = [path for folder in folders for path in glob.glob(f"{folder}/python3.*") if re.search(r"/python3\.\d+$", path)]
    found = {tuple(map(int, path.rpartition("/python")[2].split("."))): path for path in paths}
    return {**found, sys.version_info[:2]: sys.executable}


PYTHONS = pythons()


def start(python: str, noise: bytes = b"") -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    agent = subprocess.Popen(
        payload.command(python, {"pid": None, "session": "test"}),
        stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    theirs.sendall(noise)  # what a shell or a wrapper may print before
    theirs.close()
    with contextlib.suppress(BrokenPipeError):  # one that is too old may have ended before it is told all
        ours.sendall(payload.preamble(python))
    return agent, ours


@pytest.mark.parametrize("python", [path for version, path in PYTHONS.items() if version >= (3, 9)])
@pytest.mark.parametrize("noise", [b"", b"Last login: yesterday\nSIDESTAGE-AGENT-\n"])
def test_it_starts_and_ends_with_its_stream(python: str, noise: bytes) -> None:
    agent, ours = start(python, noise)
    with ours:
        payload.read_sync(ours.fileno(), 50)
        assert ours.recv(10, socket.MSG_WAITALL) == b"SIDESTG\n\0\1"
    _, said = agent.communicate(timeout=50)
    assert (agent.returncode, said) == (0, b"")


@pytest.mark.parametrize("python", [path for version, path in PYTHONS.items() if version < (3, 9)])
def test_an_older_python_says_so(python: str) -> None:
    agent, ours = start(python)
    with ours:
        _, said = agent.communicate(timeout=50)
    assert agent.returncode == 95 and said.startswith(b"Python 3.9 or later is needed beside the target, this is 3.")


@pytest.mark.parametrize(("sent", "error"), [(b"", EOFError), (b"SIDESTAGE", EOFError), (b"x" * 70000, EOFError)])
def test_a_greeting_that_does_not_come(sent: bytes, error: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(error):
            payload.read_sync(ours.fileno(), 50)


def test_silence_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        payload.read_sync(ours.fileno(), 0.05)


def test_a_stream_that_ends_within_the_payload() -> None:
    done = subprocess.run(
        payload.command(sys.executable, {}), input=payload.preamble()[:-9], capture_output=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (94, b"")
