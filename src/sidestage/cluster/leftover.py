"""Agents in a cluster that belong to nobody any more: found by their labels, judged, removed.

Nothing should be there: an agent ends with its session, and its Job goes a second later. What can stay is a Job whose controller or
node did not do its work, or one with a long agent.ttl.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidestage.cluster import job
from sidestage.cluster.api import Api, ApiError, path_of
from sidestage.cluster.targets import pages

USER, TARGET = "sidestage.dev/user", "sidestage.dev/target"
SELECTOR = ",".join(f"{name}={value}" for name, value in job.LABELS.items())


@dataclass(frozen=True, slots=True)
class Leftover:
    namespace: str
    name: str  # of the Job
    session: str
    user: str  # user@machine
    target: str
    age: float  # seconds
    state: str  # running | succeeded | failed | pending


def jobs(api: Api, namespace: str) -> Iterator[Leftover]:
    """All of sidestage; `namespace` "" stands for all. Raises ApiError."""
    scope = ("namespaces", namespace) if namespace else ()
    now = time.time()
    for item in pages(api, path_of("apis", "batch", "v1", *scope, "jobs"), {"labelSelector": SELECTOR}):
        yield read(item, now)


def read(item: dict[str, Any], now: float) -> Leftover:
    meta, status = item["metadata"], item.get("status") or {}
    notes, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    made = datetime.fromisoformat(meta["creationTimestamp"]).timestamp()
    state = next((name for name in ("active", "succeeded", "failed") if status.get(name)), "pending")
    return Leftover(
        meta["namespace"], meta["name"], labels.get(job.SESSION, ""), notes.get(USER, ""), notes.get(TARGET, ""),
        max(0.0, now - made), "running" if state == "active" else state,
    )  # fmt: skip


def ours(found: Leftover, me: str, living: Collection[str]) -> bool:
    """Of this user on this machine, whose session has ended."""
    return found.user == me and found.session not in living


def remove(api: Api, found: Leftover) -> bool:
    """With its pod; False when it has gone by itself meanwhile. Raises ApiError."""
    path = path_of("apis", "batch", "v1", "namespaces", found.namespace, "jobs", found.name)
    try:
        api.request("DELETE", path, query={"propagationPolicy": "Background"})
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True
