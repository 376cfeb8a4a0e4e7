"""From what was measured to what limits it: pure, so that each sentence has its test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FULL = 0.8  # of a core: one of our processes can do no more
FAR = 0.020  # seconds of a round trip from which a program that asks one thing after the other feels it
UNSTEADY = 4.0  # p95 by min of round trips
UNSTEADY_LEAST = 0.005  # seconds between both
SLOW = 20e6  # bytes a second, below which a line is worth a word


@dataclass(frozen=True, slots=True)
class Measured:
    pings: tuple[float, ...]
    up: float  # bytes a second
    down: float
    in_cluster: bool
    bulk: int  # links beside the control link
    here: float  # of a core, the busiest of our processes on this machine
    agent: float


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """min, mean, p95 and max, by nearest rank."""
    ordered = sorted(seconds)
    rank = max(0, -(-95 * len(ordered) // 100) - 1)
    return {"min": ordered[0], "mean": sum(ordered) / len(ordered), "p95": ordered[rank], "max": ordered[-1]}


def limits(found: Measured) -> list[str]:
    """The heaviest first; what limits bulk always has one."""
    trips = summary(found.pings)
    said = []
    if found.in_cluster and not found.bulk:
        said.append(
            "bulk goes over the exec stream, as no port-forward to the agent's pod is to be had: it needs the verb `create` (and, "
            "since Kubernetes 1.35, `get`) on pods/portforward"
        )
    if found.here >= FULL:
        said.append(f"bulk: the processor of this machine ({found.here:.0%} of a core)")
    if found.agent >= FULL:
        said.append(f"bulk: the processor beside the target ({found.agent:.0%} of a core; agent.resources sets its share)")
    if not said:
        slow = min(found.up, found.down) < SLOW
        if found.in_cluster:
            said.append("bulk: the line to the API server, through which all goes" + (", which is slow" if slow else ""))
        else:
            said.append("bulk: this machine, on which other work goes on" if slow else "bulk: nothing in particular")
    if trips["min"] >= FAR:
        said.append(f"round trips: the distance; what a program asks one by one costs {trips['min'] * 1000:.0f} ms each")
    if trips["p95"] > UNSTEADY * trips["min"] and trips["p95"] - trips["min"] > UNSTEADY_LEAST:
        between = f"{trips['min'] * 1000:.1f} to {trips['p95'] * 1000:.1f} ms"
        said.append(f"round trips: they vary ({between}): a busy line, or busy machines")
    return said
