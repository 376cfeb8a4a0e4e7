"""`sidestage exec` into the cluster: to its end, or as a session that goes on while the test looks around."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testkit.cluster import Cluster, eventually
from tests.testkit.target import ROOT, SIDESTAGE, Result, run

IMAGE = "localhost/python:3.11"  # on each node, and in no registry


def command(namespace: str, target: str, argv: Sequence[str], *flags: str) -> list[str]:
    return [*SIDESTAGE, "exec", "-t", target, "-n", namespace, "-i", IMAGE, *flags, "--", *argv]


def environ(cluster: Cluster) -> dict[str, str]:
    return {**cluster.env, "PYTHONPATH": str(ROOT / "src")}


def plugged(cluster: Cluster, namespace: str, target: str, argv: Sequence[str], *flags: str, timeout: float = 90) -> Result:
    return run(command(namespace, target, argv, *flags), timeout, environ(cluster))


@dataclass(frozen=True, slots=True)
class Session:
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def said(self) -> str:
        return self.err.read_text()

    def prints(self, text: str, seconds: float = 60) -> None:
        def seen() -> bool:
            if text in self.out.read_text():
                return True
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.said()}"
            return False

        eventually(f"{text!r} of the program ({self.said()})", seen, seconds)

    def says(self, text: str, seconds: float = 60) -> None:
        eventually(f"{text!r} of sidestage", lambda: text in self.said(), seconds)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def session(
    cluster: Cluster, folder: Path, namespace: str, target: str, argv: Sequence[str], *flags: str, kubeconfig: Path | None = None
) -> Iterator[Session]:
    """In `folder`, its own and empty, are what the program prints and what sidestage says; killed at the end if it still runs."""
    folder.mkdir(parents=True, exist_ok=True)
    out, err = folder / "out", folder / "err"
    env = environ(cluster) | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(
            command(namespace, target, argv, *flags), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield Session(process, out, err)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
