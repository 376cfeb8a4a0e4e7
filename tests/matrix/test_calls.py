"""System calls one by one, in C: what a program reads back plugged is what it reads back inside the target."""

from __future__ import annotations

import pytest

from tests.testkit import build
from tests.testkit.target import Target, same

OUTGOING = ["addresses", "pending", "edge", "inherited", "threads", "signals", "misc"]
INCOMING = ["accepting", "interrupted", "binding", "listening_child", "datagrams"]
LIBRARIES = [("gcc",), ("musl-gcc", "-static")]


@pytest.mark.parametrize("library", LIBRARIES, ids=["glibc", "musl"])
@pytest.mark.parametrize("name", OUTGOING)
def test_outgoing(staging: Target, name: str, library: tuple[str, ...]) -> None:
    same(staging, [str(build.c("outgoing.c", *library)), name])


@pytest.mark.parametrize("library", LIBRARIES, ids=["glibc", "musl"])
@pytest.mark.parametrize("name", INCOMING)
def test_incoming(staging: Target, name: str, library: tuple[str, ...]) -> None:
    same(staging, [str(build.c("incoming.c", *library)), name])


def test_io_uring_is_refused(staging: Target) -> None:
    """It would do the same calls unseen; programs fall back when the kernel has none."""
    code = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(425, 8, None), ctypes.get_errno())"
    assert staging.plugged(["python3", "-c", code]).out == "-1 38\n"
