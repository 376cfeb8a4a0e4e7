"""What is measured: each workload is a command that prints one number, run natively inside the target and plugged."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

FILES = 1000  # of 4 KiB, below /srv/bench
MODULES = 1000
BIG = "/srv/bench/100MB"
PEER, PORT, NAMESERVER = "10.77.0.20", "7100", "10.77.0.2"
IMPORT = """
import sys, time
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
for n in range({count}): __import__(f"many.m{{n}}")
print((time.perf_counter() - start) * 1000)
"""


@dataclass(frozen=True, slots=True)
class Work:
    name: str  # for --only
    what: str
    unit: str  # µs and ms: less is better; MB/s: more is
    argv: tuple[str, ...]
    quick: tuple[str, ...]  # for --quick
    delayed: tuple[str, ...]  # with the delay: fewer operations, each takes long
    mirrord: float | None = None  # its figure in the same unit, version 3.250


def workloads(folder: Path) -> list[Work]:
    """`folder` holds the compiled programs and the package `many`."""

    def c(what: str, *rest: str, counts: tuple[int, int, int]) -> tuple[tuple[str, ...], ...]:
        program = str(folder / "work")
        full, quick, delayed = ((program, what, str(count), *rest) for count in counts)
        return full, quick, delayed

    def imports(*counts: int) -> tuple[tuple[str, ...], ...]:
        full, quick, delayed = ((sys.executable, "-I", "-S", "-c", IMPORT.format(count=count), str(folder)) for count in counts)
        return full, quick, delayed

    def work(name: str, what: str, unit: str, argvs: tuple[tuple[str, ...], ...], mirrord: float | None = None) -> Work:
        full, quick, delayed = argvs
        return Work(name, what, unit, full, quick, delayed, mirrord)

    here = str(folder / "local.txt")
    found = [
        work("local-open", "local open + close", "µs", c("open", here, counts=(5000, 500, 500))),
        work("local-stat", "local stat", "µs", c("stat", here, counts=(5000, 500, 500))),
        work("import", f"import of {MODULES} local modules", "ms", imports(MODULES, 200, MODULES)),
        work("small", "remote open, read 4 KiB, close", "µs",
             c("open-read-close", "/srv/bench", counts=(900, 200, 30)), 380),
    ]  # fmt: skip
    for label, size, theirs in ("4 KiB", 4 << 10, 36), ("64 KiB", 64 << 10, 196), ("1 MiB", 1 << 20, 321):
        argvs = c("sequential", BIG, counts=(size, size, size))
        found.append(work(f"read-{label.replace(' ', '')}", f"remote 100 MB, read {label} at a time", "MB/s", argvs, theirs))
    tcp = (PEER, PORT)
    return [
        *found,
        work("dns-udp", "DNS: one query over UDP", "µs", c("query", NAMESERVER, "53", counts=(500, 100, 20)), 450),
        work("dns-again", "DNS: the same query again", "µs", c("requery", NAMESERVER, "53", counts=(500, 100, 20))),
        work("dns-libc", "DNS: getaddrinfo, again", "µs", c("lookup", "db.staging.internal", counts=(500, 100, 20)), 450),
        work("connect", "connect, 1 byte there and back, close", "µs", c("connect", *tcp, counts=(500, 100, 20)), 1100),
        work("ping-pong", "64 bytes there and back", "µs", c("ping-pong", *tcp, counts=(5000, 500, 40)), 200),
        work("up", "500 MB up", "MB/s", c("up", *tcp, counts=(500, 100, 500)), 1000),
        work("down", "500 MB down", "MB/s", c("down", *tcp, counts=(500, 100, 500)), 900),
    ]
