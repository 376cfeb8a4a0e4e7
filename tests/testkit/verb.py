"""A verb of sidestage that runs until it is told to end: started, waited for, and what it said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.testkit.target import ROOT, SIDESTAGE, Result, run, wait_for

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


@dataclass(slots=True)
class Verb:
    process: subprocess.Popen[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def said(self, kind: str) -> list[str]:
        """Of `--output json`."""
        found: list[dict[str, Any]] = [json.loads(line) for line in self.err if line.startswith("{")]
        return [event["text"] for event in found if event["type"] == kind]

    def wait(self, text: str, seconds: float = 20) -> str:
        """The first line, on either stream, with `text` in it."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [line for line in (*self.out, *self.err) if text in line]
            return bool(found) or self.process.poll() is not None

        wait_for(f"{text!r}", there, seconds)
        found = [line for line in (*self.out, *self.err) if text in line]
        assert found, f"it ended with {self.process.returncode}: {self.out} {self.err}"
        return found[0]

    def end(self, number: int = signal.SIGINT, seconds: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def verb(argv: Sequence[str], cwd: Path | None = None) -> Iterator[Verb]:
    process = subprocess.Popen(
        [*SIDESTAGE, *argv], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV, cwd=cwd,
        errors="replace",
    )  # fmt: skip
    made = Verb(process)
    streams = ((process.stdout, made.out), (process.stderr, made.err))
    readers = [threading.Thread(target=_read, args=both, daemon=True) for both in streams]
    for reader in readers:
        reader.start()
    try:
        yield made
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for reader in readers:
            reader.join(10)
        for stream, _ in streams:
            if stream:
                stream.close()


def _read(stream: IO[str], kept: list[str]) -> None:
    kept.extend(stream)


def once(argv: Sequence[str], timeout: float = 60) -> Result:
    """A verb to its own end."""
    return run([*SIDESTAGE, *argv], timeout, ENV)
