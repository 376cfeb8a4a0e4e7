"""The demo as it is told: staging alone, a local version plugged in, the same for one user's requests, a static program, what the
clients saw, what is left."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidestage.cli.errors import UserError
from sidestage.demo import staging

HERE = Path(__file__).parent
MARK = "DEMO_OF_SIDESTAGE"  # in the environment of all that the demo starts: so what is left can be found
BEFORE = 2.0  # seconds of traffic that is measured before anything is plugged in
STEAL = ("--steal", "--http-header-filter", "^x-user: alice$")
SETTLE = 3.0  # seconds in which everything must have ended


class Staging:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._stdin, self._stdout = staging.pipe(process.stdin), staging.pipe(process.stdout)
        line = self._stdout.readline()
        if not line:
            raise UserError("the demo's staging did not start", "`sidestage doctor` tells about user namespaces")
        self.target = f"process/{json.loads(line)['service']}"

    def mark(self) -> dict[str, Any]:
        """The clients' statistics since the last mark."""
        self._stdin.write("mark\n")
        self._stdin.flush()
        found: dict[str, Any] = json.loads(self._stdout.readline())
        return found


@contextmanager
def stage(env: dict[str, str]) -> Iterator[Staging]:
    command = ["unshare", "-Urnm", "--uts", sys.executable, "-I", str(HERE / "staging.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield Staging(process)
    finally:
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(argv: Sequence[str]) -> int:
    if argv:
        raise UserError(f"demo takes no arguments, got {' '.join(argv)!r}", "write just: sidestage demo", 2)
    token = secrets.token_hex(8)
    env = {**os.environ, MARK: token}
    mounts = Path("/proc/self/mountinfo").read_text()
    with stage(env) as there:
        print(f"A staging runs: service {staging.HOSTNAME} at {staging.SERVICE}:{staging.PORT} ({there.target}), database, DNS,")
        print(f"and clients at {staging.CLIENTS} with {staging.RATE} requests a second.\n")
        there.mark()
        time.sleep(BEFORE)
        before = there.mark()
        service = [sys.executable, str(HERE / "local_service.py")]
        print("Version 2.0 of the service, on this machine, plugged into it:")
        plugged = run(there.target, service, env)
        during = there.mark()
        print(f"\nOnce more, with {shlex.join(STEAL)}:\nit answers what alice asks, and staging all others:")
        stolen = run(there.target, [*service, "alice"], env, *STEAL)
        shared = there.mark()
        print("\nA static C program, plugged in the same way:")
        static = static_program(there.target, env)
    print("\nWhat staging's clients saw:")
    parts = {"before": before, "mirrored": during, "filtered": shared}
    for when, seen in parts.items():
        new = f", {seen['new']} of alice's answered by version 2.0" if seen["new"] else ""
        print(f"    {when:12} {seen['requests']} requests, {seen['errors']} errors, "
              f"p50 {seen['p50_ms']:.2f} ms, p99 {seen['p99_ms']:.2f} ms{new}")  # fmt: skip
    left = remains(token)
    same = Path("/proc/self/mountinfo").read_text() == mounts
    print(f"\nLeft behind: {'nothing' if not left and same else f'processes {left}' if left else 'a mount'}")
    unharmed = not any(seen["errors"] for seen in parts.values()) and not during["new"] and shared["new"] > 0
    good = plugged == stolen == 0 and static and unharmed and not left and same
    print("The demo worked." if good else "The demo FAILED.")
    return 0 if good else 1


def run(target: str, command: list[str], env: dict[str, str], *flags: str) -> int:
    sys.stdout.flush()
    exec_command = [sys.executable, "-m", "sidestage", "exec", "-t", target, *flags, "--", *command]
    return subprocess.run(exec_command, env=env, check=False, stdin=subprocess.DEVNULL).returncode


def static_program(target: str, env: dict[str, str]) -> bool:
    """True if it worked, or can't be built here, which is said."""
    compiler = shutil.which("musl-gcc") or shutil.which("gcc")
    if not compiler:
        print("    left out: there is no gcc here")
        return True
    with tempfile.TemporaryDirectory() as folder:
        binary = os.path.join(folder, "static")
        build = [compiler, "-static", "-w", "-o", binary, str(HERE / "static.c")]
        if subprocess.run(build, capture_output=True, check=False).returncode:
            print(f"    left out: {os.path.basename(compiler)} can't link static programs here")
            return True
        return run(target, [binary], env) == 0


def remains(token: str) -> list[int]:
    """Processes of the demo that are still there after SETTLE seconds."""
    until = time.monotonic() + SETTLE
    while (left := _marked(token)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _marked(token: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={token}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found
