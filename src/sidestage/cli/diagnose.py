"""`sidestage diagnose`: how fast a target can be worked with from here, and what limits that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from sidestage.cli import bare
from sidestage.cli.errors import UserError
from sidestage.cli.forward import forward
from sidestage.cli.limits import Measured, limits, summary
from sidestage.cli.options import Parser
from sidestage.cli.progress import Progress, clean
from sidestage.session import measure
from sidestage.session.bare import Bare
from sidestage.session.resolver import Resolver
from sidestage.views.resolve import Settings

PINGS = 100
TRIES = 5  # connects to one place
MAX_PLACES = 20


def parser() -> Parser:
    made = bare.parser("diagnose", __doc__)
    made.add_argument("--connect", action="append", default=[], metavar="HOST:PORT",
        help="also how long the target takes to look HOST up and to connect; repeatable")  # fmt: skip
    return made


def main(argv: list[str]) -> int:
    """Raises UserError."""
    given = parser().parse_args(argv)
    if len(given.connect) > MAX_PLACES:
        raise UserError(f"more than {MAX_PLACES} --connect", "ask for the others in another run")
    places = [(place.host, place.remote) for place in map(forward, given.connect)]
    progress = Progress(given.output)
    made = bare.settings(given, progress, {})
    spec = bare.target(made, "diagnose", targetless=True)
    start = time.perf_counter()
    with bare.plugged(made, spec, progress, ["diagnose"], [], given.debug) as session:
        found = {"target": str(spec), "start": time.perf_counter() - start} | _measure(session, progress, places)
    if given.output == "json":
        print(json.dumps(found, indent=2))
    else:
        print(clean("\n".join(_lines(found))))
    return 0


def _measure(session: Bare, progress: Progress, places: Sequence[tuple[str, int]]) -> dict[str, Any]:
    with progress.task(f"{PINGS} round trips"):
        pings = measure.pings(session, PINGS)
    rates, here, agent = {}, 0.0, 0.0
    for way, up in (("up", True), ("down", False)):
        with progress.task(f"bulk, {way}"):
            before, theirs, since = measure.used(session.agent_pid), measure.cpu(session), time.perf_counter()
            moved, seconds = measure.bulk(session, up=up)
            if not moved:
                raise UserError("the agent moves no bulk", "run again with --debug to see why")
            after, wall = measure.used(session.agent_pid), time.perf_counter() - since
            agent = max(agent, (measure.cpu(session) - theirs) / wall)
            here = max(here, *((after[pid] - before.get(pid, 0.0)) / wall for pid in after))
            rates[way] = {"bytes": moved, "seconds": seconds, "rate": moved / seconds}
    with progress.task("names and connects"):
        resolver = Resolver(session.loop, session.links, session.asked, lambda: session.target.get("nameservers", []))
        of = measure.wait(session, _settings(resolver))
        name = _known_name(of, session.target["hostname"])
        names = [{"server": server, "seconds": measure.question(session, server, name, of.timeout)} for server in of.nameservers]
        connects = [
            {"host": host, "port": port, "tries": [measure.connect(session, resolver, host, port) for _ in range(TRIES)]}
            for host, port in places
        ]
    bulk = len(session.links.bulk)
    known = Measured(tuple(pings), rates["up"]["rate"], rates["down"]["rate"], not session.agent_pid, bulk, here, agent)
    return {
        "ping": summary(pings), "up": rates["up"], "down": rates["down"], "links": 1 + bulk,
        "cpu": {"here": here, "agent": agent}, "names": names, "connects": connects, "limits": limits(known),
    }  # fmt: skip


def _settings(resolver: Resolver) -> Callable[[Callable[[Settings], None]], None]:
    return resolver.settings


def _known_name(of: Settings, hostname: str) -> str:
    """One that a cluster's own nameserver answers by itself; else the target's."""
    inside = [domain for domain in of.search if domain.startswith("svc.")]
    return f"kubernetes.default.{inside[0]}" if inside else hostname


def _lines(found: dict[str, Any]) -> list[str]:
    ping, cpu = found["ping"], found["cpu"]
    lines = [
        f"start        {found['start'] * 1000:.0f} ms until the agent beside {found['target']} has answered",
        "round trip   " + "  ".join(f"{name} {ping[name] * 1000:.2f}" for name in ("min", "mean", "p95", "max")) + f" ms ({PINGS})",
        *(f"{label} {found[way]['rate'] / 1e6:.1f} MB/s ({found[way]['bytes'] / 1e6:.0f} MB, one of {found['links']} links)"
          for way, label in (("up", "to there    "), ("down", "from there  "))),
        f"processor    {cpu['here']:.0%} of a core here, {cpu['agent']:.0%} there",
    ]  # fmt: skip
    for each in found["names"]:
        took = "no answer" if each["seconds"] is None else f"{each['seconds'] * 1000:.1f} ms"
        lines.append(f"nameserver   {each['server']}  {took}")
    lines += [f"connect      {each['host']}:{each['port']}  {_connected(each['tries'])}" for each in found["connects"]]
    return [*lines, *(f"limit        {text}" for text in found["limits"])]


def _connected(tries: Sequence[dict[str, Any]]) -> str:
    wrong = [each["error"] for each in tries if "error" in each]
    good = [each for each in tries if "connect" in each]
    said = [f"{len(wrong)} of {len(tries)} failed: {wrong[0]}"] if wrong else []
    if good:
        name, connect = (sum(each[what] for each in good) / len(good) * 1000 for what in ("name", "connect"))
        said.append(f"name {name:.1f} ms, connect {connect:.1f} ms")
    return "; ".join(said)
