"""What limits a connection, from what was measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sidestage.cli.limits import Measured, limits, summary

GOOD = Measured((0.001,) * 100, 100e6, 100e6, True, 2, 0.3, 0.3)


@pytest.mark.parametrize("changes, said", [
    ({}, ["bulk: the line to the API server, through which all goes"]),
    ({"up": 5e6}, ["bulk: the line to the API server, through which all goes, which is slow"]),
    ({"bulk": 0}, ["bulk goes over the exec stream, as no port-forward"]),
    ({"here": 0.95}, ["bulk: the processor of this machine (95% of a core)"]),
    ({"agent": 0.95, "here": 0.9}, ["bulk: the processor of this machine", "bulk: the processor beside the target (95%"]),
    ({"in_cluster": False, "bulk": 0}, ["bulk: nothing in particular"]),
    ({"in_cluster": False, "bulk": 0, "down": 1e6}, ["bulk: this machine, on which other work goes on"]),
    ({"pings": (0.030,) * 100}, ["bulk: the line", "round trips: the distance; what a program asks one by one costs 30 ms each"]),
    ({"pings": (0.001,) * 90 + (0.040,) * 10}, ["bulk: the line", "round trips: they vary (1.0 to 40.0 ms)"]),
    ({"pings": (0.001,) * 96 + (0.040,) * 4}, ["bulk: the line"]),
])  # fmt: skip
def test_limits(changes: dict[str, Any], said: list[str]) -> None:
    found = limits(dataclasses.replace(GOOD, **changes))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True)), found


def test_summary() -> None:
    assert summary([n / 1000 for n in range(100, 0, -1)]) == pytest.approx({"min": 0.001, "mean": 0.0505, "p95": 0.095, "max": 0.1})
    assert summary([7.0]) == {"min": 7.0, "mean": 7.0, "p95": 7.0, "max": 7.0}
