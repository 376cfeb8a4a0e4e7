"""`./run bench --steal`: what an intercepted port costs those whom no filter matches; a server and a load in C (http.c). With
`--tls` theirs is TLS, which ends in the agent; the two are then in Go (tls.go), and have a figure for new connections too.

Each figure is the median of rounds in which all variants alternate. Latency is taken at RATE requests a second in all, counted
from when a request was due. Then all connections ask as fast as answers come: with few cores the three programs share them, so
the agent's own processor time for a request tells how many it could do with a core of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from tests.testkit.session import Laptop, laptop  # noqa: E402
from tests.testkit.target import SERVICE, Target, target  # noqa: E402
from tests.testkit.tls import make  # noqa: E402

HERE = Path(__file__).parent
PORT = 9000
CONNECTIONS = (1, 16, 256)
SECONDS, ROUNDS = 2.0, 5
RATE, RATE_NEW = 1000, 100  # requests a second; with a connection for each
TICK = os.sysconf("SC_CLK_TCK")
COLUMNS = "connections|variant|p50 ms|p99 ms|p50 added|p99 added|requests/s|agent us each|a core's requests/s".split("|")
HEAD = "| " + " | ".join(COLUMNS) + " |\n|--:|---|" + "--:|" * 7


def header(name: str) -> dict[str, Any]:
    return {"header": f"^x-user: {name}$"}


VARIANTS: dict[str, dict[str, Any] | None] = {
    "untouched": None,
    "whole port, given back": {},
    "1 filter": header("alice"),
    "20 filters": {"any_of": [header(f"user{n}") for n in range(20)]},
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run bench --steal", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--connections", type=int, nargs="*", default=CONNECTIONS)
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()
    print(HEAD, flush=True)
    if given.tls:
        return secure(given.rounds, given.seconds, given.connections)
    with tempfile.TemporaryDirectory(prefix="sidestage-bench-") as name, target(Path(name)) as staging:
        binary = Path(name) / "http"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", binary, HERE / "http.c"], check=True)
        with server(staging, [str(binary), "serve", SERVICE, str(PORT)]):
            for connections in given.connections:
                runs: dict[str, list[tuple[float, ...]]] = {variant: [] for variant in VARIANTS}
                for _ in range(given.rounds):
                    for variant, spec in VARIANTS.items():
                        runs[variant].append(run(staging, binary, connections, given.seconds, spec))
                show(str(connections), runs)
    return 0


def secure(rounds: int, seconds: float, counts: list[int]) -> int:
    variants = {name: VARIANTS[name] for name in ("untouched", "1 filter")}
    with tempfile.TemporaryDirectory(prefix="sidestage-bench-") as name, target(Path(name)) as staging:
        binary, own = Path(name) / "tls", make(Path(name), "own", algorithm="rsa")
        subprocess.run(["go", "build", "-o", binary, HERE / "tls.go"], check=True)
        files = [str(own.certificate), str(own.key)]
        tls = {"certificate": {"path": files[0]}, "key": {"path": files[1]}}
        with server(staging, [str(binary), "serve", SERVICE, str(PORT), *files]):
            for connections, new in [*((count, 0) for count in counts), (16, 1)]:
                runs: dict[str, list[tuple[float, ...]]] = {variant: [] for variant in variants}
                for _ in range(rounds):
                    for variant, spec in variants.items():
                        more, rate = [files[0], str(new)], RATE_NEW if new else RATE
                        runs[variant].append(run(staging, binary, connections, seconds, spec, more, rate, tls=tls))
                show(f"{connections} new" if new else str(connections), runs)
    return 0


@contextmanager
def server(staging: Target, argv: list[str]) -> Iterator[None]:
    process = subprocess.Popen(["nsenter", "-t", str(staging.pid), "--net", "--", *argv], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(
    staging: Target, binary: Path, connections: int, seconds: float, spec: dict[str, Any] | None, more: Sequence[str] = (),
    at: int = RATE, **args: Any,
) -> tuple[float, ...]:  # fmt: skip
    """p50 and p99 in us at that rate; requests a second at full speed, and the agent's us for each."""
    if spec is None:
        _, p50, p99 = load(staging, binary, connections, seconds, at, more)
        return p50, p99, load(staging, binary, connections, seconds, 0, more)[0], 0.0
    with laptop(staging, None) as there:
        code, answer = there.steal(PORT, spec or None, **args)
        if code:
            raise RuntimeError(answer.get("text") or os.strerror(code))
        _, p50, p99 = load(staging, binary, connections, seconds, at, more)
        before = cpu(there)
        rate, _, _ = load(staging, binary, connections, seconds, 0, more)
        return p50, p99, rate, (cpu(there) - before) * 1e6 / (rate * seconds)


def load(
    staging: Target, binary: Path, connections: int, seconds: float, rate: int, more: Sequence[str] = ()
) -> tuple[float, float, float]:
    argv = [str(binary), "load", SERVICE, str(PORT), str(connections), str(seconds), str(rate), *more]
    result = staging.native(argv, 60)
    if result.code:
        raise RuntimeError(result.err)
    rate, p50, p99 = map(float, result.out.split())
    return rate, p50, p99


def cpu(there: Laptop) -> float:
    """Seconds of processor time of the agent."""
    fields = Path(f"/proc/{there.agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def show(connections: str, runs: dict[str, list[tuple[float, ...]]]) -> None:
    base = [statistics.median(column) for column in zip(*runs["untouched"], strict=True)]
    for variant, rounds in runs.items():
        p50, p99, rate, each = (statistics.median(column) for column in zip(*rounds, strict=True))
        cells = [connections, variant, *(f"{us / 1000:.3f}" for us in (p50, p99))]
        if each:
            cells += [f"{(us - untouched) / 1000:.3f}" for us, untouched in zip((p50, p99), base[:2], strict=True)]
            cells += [f"{rate:,.0f}", f"{each:.0f}", f"{1e6 / each:,.0f}"]
        else:
            cells += ["", "", f"{rate:,.0f}", "", ""]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
