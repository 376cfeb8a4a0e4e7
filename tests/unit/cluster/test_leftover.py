"""Which Jobs of a cluster are judged to be left over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sidestage.cluster import job
from sidestage.cluster.leftover import Leftover, ours, read
from sidestage.config.schema import Agent

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC).timestamp()


def made(session: str, status: dict[str, int]) -> Leftover:
    item = job.job(Agent(), session, 1, namespace="shop", node="node1", features=[], target="shop/orders")
    item["metadata"]["creationTimestamp"] = "2026-01-02T11:00:00Z"
    return read(item | {"status": status}, NOW)


@pytest.mark.parametrize("status, state", [
    ({"active": 1}, "running"), ({"succeeded": 1}, "succeeded"), ({"failed": 1}, "failed"), ({}, "pending"),
])  # fmt: skip
def test_a_job_is_read(status: dict[str, int], state: str) -> None:
    found = made("a" * 16, status)
    assert found == Leftover("shop", f"sidestage-{'a' * 16}", "a" * 16, job.owner(), "shop/orders", 3600.0, state)


def test_whose_it_is() -> None:
    found = made("a" * 16, {"active": 1})
    assert ours(found, job.owner(), [])
    assert not ours(found, job.owner(), ["a" * 16])
    assert not ours(found, "somebody@elsewhere", [])
