"""A server that runs plugged: clients of the target are played to it, and see nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testkit.target import CLIENT, CLIENT6, ROOT, SERVICE, SERVICE6, Target, wait_for

REQUESTS = 5


def mirrored(
    staging: Target, argv: Sequence[str], out: Path, *, six: bool = False, env: Mapping[str, str] | None = None
) -> str:
    """`argv` prints "listening", then "PATH PEER PEER" of each request, where the peers are what two calls told it.

    Returns all that it wrote to standard error.
    """
    errors = out.with_suffix(".err")
    with open(out, "wb") as sink, open(errors, "wb") as messages:
        process = subprocess.Popen(
            staging.command(argv), stdout=sink, stderr=messages, stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {}), "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        wait_for("listening", lambda: "listening" in out.read_text() or process.poll() is not None, 30)
        assert process.poll() is None, errors.read_text()
        wait_for("the subscription", lambda: _subscribed(staging, out))
        for n in range(REQUESTS):
            assert staging.client(f"http://{SERVICE}:8080/v4-{n}").out == f"staging /v4-{n}\n"
        if six:
            assert staging.client(f"http://[{SERVICE6}]:8080/v6", CLIENT6).out == "staging /v6\n"
        want = [f"/v4-{n} {CLIENT} {CLIENT}" for n in range(REQUESTS)] + ([f"/v6 {CLIENT6} {CLIENT6}"] if six else [])
        wait_for("the mirrored requests", lambda: len(_told(out)) >= len(want))
        assert sorted(_told(out)) == sorted(want)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(15)
    # Some programs end by the signal, others end well because of it
    assert code in (0, 128 + signal.SIGTERM), errors.read_text()
    assert staging.client(f"http://{SERVICE}:8080/after").out == "staging /after\n"
    return errors.read_text()


def _told(out: Path) -> list[str]:
    return [line for line in out.read_text().splitlines() if line.startswith("/v")]


def _subscribed(staging: Target, out: Path) -> bool:
    assert staging.client(f"http://{SERVICE}:8080/probe").code == 0
    time.sleep(0.1)
    return "/probe" in out.read_text()
