"""Servers of many runtimes under mirror: the target's requests reach them with the real client, who sees the target only."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from tests.testkit import build
from tests.testkit.mirror import mirrored
from tests.testkit.target import Target

pytestmark = pytest.mark.timeout(400)  # the first run compiles
APPS = ["--app-dir", str(build.PROGRAMS)]


@pytest.mark.parametrize("how", ["blocking", "epoll", "poll", "prefork"])
@pytest.mark.parametrize("family", ["4", "dual"])
def test_c(staging: Target, tmp_path: Path, how: str, family: str) -> None:
    mirrored(staging, [str(build.c("server.c")), how, family], tmp_path / "out", six=family == "dual")


@pytest.mark.parametrize("cgo", [False, True], ids=["static", "cgo"])
def test_go(staging: Target, tmp_path: Path, cgo: bool) -> None:
    mirrored(staging, [str(build.go("server.go", cgo=cgo)), "tcp", ":8080"], tmp_path / "out", six=True)


@pytest.mark.parametrize("how", ["http", "socket", "nio"])
def test_java(staging: Target, tmp_path: Path, how: str) -> None:
    mirrored(staging, [*build.java("Server.java"), how], tmp_path / "out", six=True)


@pytest.mark.parametrize("how", ["http", "cluster", "cluster none", "worker", "net"])
def test_node(staging: Target, tmp_path: Path, how: str) -> None:
    mirrored(staging, [build.need("node"), str(build.PROGRAMS / "server.js"), *how.split()], tmp_path / "out", six=True)


@pytest.mark.parametrize("name", ["plain", "tokio"])
def test_rust(staging: Target, tmp_path: Path, name: str) -> None:
    mirrored(staging, [str(build.rust(name)), "server"], tmp_path / "out", six=name == "tokio")


@pytest.mark.parametrize("flags", [["--workers", "3"], ["--workers", "2", "--threads", "4"], ["--workers", "2", "--reuse-port"]])
def test_gunicorn(staging: Target, tmp_path: Path, flags: list[str]) -> None:
    argv = [sys.executable, "-m", "gunicorn", *flags, "--chdir", str(build.PROGRAMS), "-b", "0.0.0.0:8080", "wsgi_app:app"]
    mirrored(staging, argv, tmp_path / "out")


@pytest.mark.parametrize("flags", [[], ["--workers", "2"], ["--reload", "--reload-dir", "FOLDER"]])
def test_uvicorn(staging: Target, tmp_path: Path, flags: list[str]) -> None:
    where = [str(tmp_path) if flag == "FOLDER" else flag for flag in flags]
    argv = [sys.executable, "-m", "uvicorn", *where, *APPS, "--no-access-log", "--port", "8080", "--host", "0.0.0.0"]
    mirrored(staging, [*argv, "asgi_app:app"], tmp_path / "out")


def test_shared_port(staging: Target, tmp_path: Path) -> None:
    mirrored(staging, [sys.executable, str(build.PROGRAMS / "server_reuseport.py")], tmp_path / "out", six=True)


def test_the_port_is_in_use_here(staging: Target, tmp_path: Path) -> None:
    """It listens elsewhere, which is said; the mirrored requests and what the program is told are as if it didn't."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody has it already: just as well
            other.bind(("127.0.0.1", 8080))
            other.listen()
        said = mirrored(staging, [str(build.c("server.c")), "epoll", "4"], tmp_path / "out")
    assert "port 8080 is in use on this machine: the program listens on 127.0.0.1:" in said
