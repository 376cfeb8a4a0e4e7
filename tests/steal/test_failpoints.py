"""Every part of a run is killed, and stopped for a while, at named system calls: the n-th of each kind, one after another.

test_deaths.py kills at some moment; here strace(1) injects the signal as a call begins, so the same steps fail each time: taking
the port, a client coming, a request on its way, giving back, the end. The calls are those of a run that was watched first; the
ordinary suite takes a few of them, and SIDESTAGE_POINTS=999 all.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.steal.canary import Canary, canaries
from tests.steal.test_deaths import HEADER, PROGRAM, VICTIMS, more
from tests.testkit.laptop import Laptop, Run, laptop
from tests.testkit.target import Target, wait_for

SAMPLE = int(os.environ.get("SIDESTAGE_POINTS", "10"))  # points of each part; there are up to 200
STOPPED = 0.4  # seconds
GATED = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\n" + PROGRAM
PARTS = ["agent", "session", "trap"]


@contextmanager
def traced(pid: int, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """All calls of a process, into `log`."""
    process = subprocess.Popen(["strace", "-f", "-qq", "-s0", "-o", log, *options, "-p", str(pid)])
    try:
        wait_for("strace", lambda: _attached(pid))
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _attached(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True  # and dead already
    return "TracerPid:\t0\n" not in status or "State:\tZ" in status


@contextmanager
def started(here: Laptop, staging: Target, folder: Path, part: str) -> Iterator[tuple[Run, int, Callable[[], None]]]:
    """A run whose program listens when it is told to; the pid of one of its parts."""
    gate = folder / f"gate-{len(here.runs)}"
    run = here.start(staging, [sys.executable, "-c", GATED, str(gate)], ["-f", str(folder / "sidestage.json")])
    wait_for("its parts", lambda: run.process.poll() is None and _there(run))
    yield run, VICTIMS[part](run), gate.touch
    if run.process.poll() is None:
        run.process.kill()
    run.end()


def _there(run: Run) -> bool:
    try:
        return run.session() > 0 and VICTIMS["program"](run) > 0
    except (ValueError, OSError):
        return False


def course(run: Run, mine: Canary, failed: Callable[[], bool]) -> None:
    """The program answers some requests, then the run is ended; or it fails before."""
    wanted = mine.local + 5
    wait_for("the program's answers", lambda: failed() or mine.local >= wanted, 30)
    if not failed():
        run.process.terminate()
        wait_for("its end", lambda: failed() or run.process.poll() is not None, 30)


def points(calls: Counter[str]) -> list[tuple[str, int]]:
    """The first of each kind, the second, the fourth, ...; and the last."""
    return [(name, n) for name, count in sorted(calls.items()) for n in (*(1 << k for k in range((count - 1).bit_length())), count)]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.timeout(60 + 30 * SAMPLE)
def test_it_fails_at_a_step(staging: Target, tmp_path: Path, part: str) -> None:
    steal = {"mode": "steal", "http_filter": {"header_filter": "^x-me: alice$"}}
    (tmp_path / "sidestage.json").write_text(json.dumps({"feature": {"network": {"incoming": steal}}}))
    log = tmp_path / "log"
    with laptop(tmp_path) as here, canaries(staging, HEADER) as (others, mine):
        with started(here, staging, tmp_path, part) as (run, pid, begin), traced(pid, log):
            begin()
            course(run, mine[0], lambda: False)
        calls = Counter(re.findall(r"(?m)^\d+ +([a-z_0-9]+)\(", log.read_text()))
        assert {"epoll_wait", "sendto"} <= calls.keys() or part == "trap", calls
        all_points = points(calls)
        stride = max(1, len(all_points) // SAMPLE)
        reached = []
        for number, (call, n) in enumerate(all_points[stride // 2 :: stride]):
            how = "STOP" if number % 2 else "KILL"
            if fails(here, staging, tmp_path, part, (call, n, how), others, mine):
                reached.append((call, n, how))
    assert len(reached) > number // 2, f"of {all_points}: {reached}"
    print(part, "of", sum(calls.values()), "calls", len(all_points), "points; failed at", reached)


def fails(
    here: Laptop, staging: Target, folder: Path, part: str, point: tuple[str, int, str], others: list[Canary], mine: list[Canary]
) -> bool:
    """One run that fails at one point; was it reached?"""
    call, n, how = point
    log = folder / "log"
    log.unlink()
    before = [len(each.lost) for each in (*others, *mine)]
    injected = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIG{how}:when={n}"]
    with Canary(staging, keep=True) as passing, started(here, staging, folder, part) as (run, pid, begin):
        with traced(pid, log, *injected):
            begin()

            def failed() -> bool:
                return f"by SIG{how}" in log.read_text()

            course(run, mine[0], failed)
            if how == "STOP" and failed():
                time.sleep(STOPPED)
                os.kill(pid, signal.SIGCONT)
                course(run, mine[0], lambda: run.process.poll() is not None)  # which it may have been about to do
            reached = failed()
        run.end()
        more([*others, passing], "staging", 5)
        more([mine[0]], "staging", 5)
    lost = [len(each.lost) - was for each, was in zip((*others, *mine), before, strict=True)] + [len(passing.lost)]
    # In the hands of a killed agent is one request of each client whose connection passes through it. Of matched ones
    # it is the one that is with the program when that ends, as it does in every run.
    through, matched = int(how == "KILL" and part == "agent"), 1
    allowed = [through, 0, matched, 0, through]
    assert all(one <= most for one, most in zip(lost, allowed, strict=True)), (part, point, lost, others[0].lost, mine[0].lost)
    assert not others[0].local + others[1].local + passing.local
    return reached
