"""`diagnose` on a target of this machine: what it says is measured, and adds up."""

from __future__ import annotations

import json

from sidestage.agent import measure
from tests.testkit.target import NAMESERVER, Target
from tests.testkit.verb import once


def test_as_an_object(staging: Target) -> None:
    places = ["--connect", "db:7000", "--connect", "10.77.0.20:7999", "--connect", "nobody.staging.internal:1"]
    done = once(["diagnose", "-t", f"process/{staging.pid}", "--output", "json", *places], timeout=120)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    ping = found["ping"]
    assert 0 < ping["min"] <= ping["mean"] <= ping["max"]
    assert ping["min"] <= ping["p95"] <= ping["max"]
    for way in ("up", "down"):
        assert (1 << 20) <= found[way]["bytes"] <= measure.MAX
        assert found[way]["rate"] > 1e6
    assert (found["cpu"]["here"] > 0, found["cpu"]["agent"] > 0) == (True, True)
    ((server, seconds),) = [(each["server"], each["seconds"]) for each in found["names"]]
    assert (server, 0 < seconds < 5) == (NAMESERVER, True)
    good, refused, unknown = (each["tries"] for each in found["connects"])
    assert all(each["address"] == "10.77.0.20" and each["connect"] > 0 for each in good)
    assert {each["error"] for each in refused} == {"connection refused"}
    assert {each["error"] for each in unknown} == {"name not known there"}
    assert found["limits"][0].startswith("bulk: ")


def test_as_lines(staging: Target) -> None:
    done = once(["diagnose", "-t", f"process/{staging.pid}", "--connect", "db:7000"], timeout=120)
    assert done.code == 0, done.err
    heads = [line.split("  ")[0] for line in done.out.splitlines()]
    assert heads[:7] == ["start", "round trip", "to there", "from there", "processor", "nameserver", "connect"]
    assert heads[7] == "limit"
