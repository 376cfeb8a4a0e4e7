"""The same through the agent, in a target's network: a Go server there, and the same server plugged in as the session's program."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.differential.test_http1 import CORPUS, PATIENCE, alike, brief, exchange
from tests.testkit.http_servers import go_server, lacking
from tests.testkit.target import ROOT, Target, wait_for

pytestmark = pytest.mark.skipif("go" in lacking(), reason="no Go here")
STOLEN, PLAIN = ("127.0.0.1", 9601), ("127.0.0.1", 9701)
WHOLE = {name: pieces for name, pieces in CORPUS.items() if len(pieces) < 3 and "h2c" not in name}


@contextlib.contextmanager
def servers(staging: Target, server: str, flags: list[str]) -> Iterator[None]:
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--"]
    started = [subprocess.Popen([*enter, server, str(one), str(one + 1)]) for one in (STOLEN[1], PLAIN[1])]
    try:
        wait_for("the servers", lambda: all(_answers(staging, port) for port in (STOLEN, PLAIN)), 30)
        plugged = staging.command([server, str(STOLEN[1]), str(STOLEN[1] + 1), "local"], ["--steal", *flags])
        started.append(subprocess.Popen(plugged, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdin=subprocess.DEVNULL))
        wait_for("the redirect", lambda: str(STOLEN[1]) in staging.rules(), 30)
        wait_for("the local program", lambda: _taken(staging), 30)
        yield
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)


def _taken(staging: Target) -> bool:
    """Does the program answer what the filter takes? Until it listens, the target does."""
    with staging.connect(STOLEN) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-User: nobody\r\n\r\n")
        return b"Server: local\r\n" in sock.recv(4096)


def _answers(staging: Target, address: tuple[str, int]) -> bool:
    try:
        staging.connect(address).close()
    except OSError:
        return False
    return True


FILTERS = {"nobody's": ["--http-header-filter", "^x-user: nobody$"], "all": ["--http-path-filter", "."]}


@pytest.mark.parametrize("flags", FILTERS.values(), ids=FILTERS.keys())
@pytest.mark.timeout(300)
def test_answers_are_equal(staging: Target, tmp_path: Path, flags: list[str]) -> None:
    different = []
    with servers(staging, go_server(tmp_path), flags), ThreadPoolExecutor(20) as pool:

        def ask(address: tuple[str, int], silence: float) -> list[tuple[bytes, str]]:
            return list(pool.map(lambda pieces: exchange(address, pieces, silence, staging.connect), WHOLE.values()))

        direct, through = ask(PLAIN, 1.0), ask(STOLEN, 1.0)
        for name, one, other in zip(WHOLE, direct, through, strict=True):
            if not alike(one, other):  # perhaps one of the two was slow
                one, other = (exchange(to, WHOLE[name], PATIENCE, staging.connect) for to in (PLAIN, STOLEN))
                if not alike(one, other):
                    different.append(f"{name}: {WHOLE[name][0][:100]!r}\n  {brief(one)}\n  {brief(other)}")
    assert not different, "\n".join([f"{len(different)} of {len(WHOLE)}", *different])
