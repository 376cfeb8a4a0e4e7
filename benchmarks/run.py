"""`./run bench`: the same work natively inside the target, plugged, and plugged with 20 ms more to the agent; see README.md.

The three alternate in every round, and the median of the rounds is shown, beside the figure of mirrord where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]
# Modules are compiled once, then read: where this is set, each start would compile them all anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from bench import DELAY, Bench, bench  # noqa: E402
from workloads import Work, workloads  # noqa: E402

ROUNDS, QUICK = 7, 2
COLUMNS = ("native", "plugged", "delayed")
MIRRORD_START = 35.0  # ms over native, agent already running
HEAD = f"| work | unit | native | sidestage | ratio | mirrord 3.250 | sidestage, +{2 * DELAY} ms |\n|---|---|--:|--:|--:|--:|--:|"

Row = dict[str, float | str | None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rounds, fewer operations")
    parser.add_argument("--only", action="append", metavar="NAME", help="workloads whose names begin so")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-delay", action="store_true", help="leave out the runs with delay")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures of every round")
    given = parser.parse_args()
    rounds = given.rounds or (QUICK if given.quick else ROUNDS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sidestage-bench-") as name, bench(Path(name)) as place:
        print(HEAD, flush=True)
        for work in [*workloads(Path(name)), None]:
            label = work.name if work else "start"
            if given.only and not any(label.startswith(only) for only in given.only):
                continue
            runs = _runs(place, work, given.quick)
            if given.no_delay:
                del runs["delayed"]
            figures: dict[str, list[float]] = {column: [] for column in runs}
            for _ in range(rounds):
                for column, run in runs.items():
                    figures[column].append(run())
            row = _row(label, work, figures)
            rows.append({**row, **{f"{column}_rounds": str(values) for column, values in figures.items()}})
            print(_line(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _runs(place: Bench, work: Work | None, quick: bool) -> dict[str, Callable[[], float]]:
    if work is None:
        return {
            "native": lambda: place.start(plugged=False),
            "plugged": lambda: place.start(plugged=True),
            "delayed": lambda: place.start(plugged=True, delayed=True),
        }
    argv = work.quick if quick else work.argv
    return {
        "native": lambda: place.native(argv),
        "plugged": lambda: place.plugged(argv, delayed=False),
        "delayed": lambda: place.plugged(work.delayed, delayed=True),
    }


def _row(label: str, work: Work | None, figures: dict[str, list[float]]) -> Row:
    row: Row = {"name": label, "what": work.what if work else "`exec -- true`, whole", "unit": work.unit if work else "ms"}
    row.update({column: statistics.median(values) for column, values in figures.items()})
    if work is None:
        row["mirrord"] = float(str(row["native"])) + MIRRORD_START
    else:
        row["mirrord"] = work.mirrord
    return row


def _line(row: Row) -> str:
    native, plugged = float(str(row["native"])), float(str(row["plugged"]))
    cells = [row["what"], row["unit"], _short(native), _short(plugged), f"{plugged / native:.2f}"]
    return "| " + " | ".join(map(str, [*cells, _short(row["mirrord"]), _short(row.get("delayed"))])) + " |"


def _short(value: object) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    number = float(str(value))
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    sys.exit(main())
