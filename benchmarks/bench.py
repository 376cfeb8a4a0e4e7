"""The place of the benchmarks: a target with files and a peer, the compiled programs, and one run of a command there."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import workloads
from tests.testkit.target import Target, target

HERE = Path(__file__).parent
DELAY = 10  # ms each way
TIMEOUT = 300.0  # seconds; a run that takes longer has failed
PREPARE = f"""
mkdir -p /srv/bench
for i in $(seq 0 {workloads.FILES - 1}); do head -c 4096 /dev/urandom >/srv/bench/$i; done
head -c 100000000 /dev/urandom >{workloads.BIG}
"""


class Bench:
    def __init__(self, staging: Target, folder: Path) -> None:
        self._staging = staging
        self._config = folder / "delayed.json"
        self._config.write_text(json.dumps({"agent": {"python": str(folder / "delay")}}))

    def native(self, argv: tuple[str, ...]) -> float:
        return self._number(self._staging.native(argv, TIMEOUT))

    def plugged(self, argv: tuple[str, ...], *, delayed: bool) -> float:
        return self._number(self._staging.plugged(argv, TIMEOUT, self._flags(delayed)))

    def start(self, *, plugged: bool, delayed: bool = False) -> float:
        """Milliseconds from the start of `true` to its end."""
        start = time.perf_counter()
        if plugged:
            result = self._staging.plugged(["true"], TIMEOUT, self._flags(delayed))
        else:
            result = self._staging.native(["true"], TIMEOUT)
        took = (time.perf_counter() - start) * 1000
        if result.code:
            raise RuntimeError(result.err)
        return took

    def _flags(self, delayed: bool) -> list[str]:
        return ["-f", str(self._config)] if delayed else []

    def _number(self, result: object) -> float:
        code, out, err = (getattr(result, name) for name in ("code", "out", "err"))
        if code:
            raise RuntimeError(f"exit status {code}: {err.strip()}")
        return float(out.split()[-1])


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    _compile(folder)
    _modules(folder)
    (folder / "local.txt").write_text("local\n")
    with target(folder) as staging:
        made = staging.native(["sh", "-euc", PREPARE])
        assert made.code == 0, made.err
        enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--"]
        peer = subprocess.Popen([*enter, str(folder / "peer"), workloads.PEER, workloads.PORT], stdout=subprocess.PIPE)
        assert peer.stdout is not None
        try:
            assert peer.stdout.readline() == b"ready\n"
            yield Bench(staging, folder)
        finally:
            peer.kill()
            peer.wait()
            peer.stdout.close()


def _compile(folder: Path) -> None:
    real = f'-DPYTHON="{os.path.realpath(sys.executable)}"'
    for name, flags in ("work", []), ("peer", ["-pthread"]), ("delay", [f"-DDELAY={DELAY}", real]):
        subprocess.run(["gcc", "-O2", "-Wall", "-o", folder / name, HERE / f"{name}.c", *flags], check=True)


def _modules(folder: Path) -> None:
    many = folder / "many"
    many.mkdir()
    (many / "__init__.py").touch()
    for n in range(workloads.MODULES):
        (many / f"m{n}.py").write_text(f"def f{n}(x):\n    return x + {n}\n")
    compileall.compile_dir(many, quiet=1)
