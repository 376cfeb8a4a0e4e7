"""All that can be a target, kind by kind and page by page: big clusters have tens of thousands of pods.

One kind after the other: asked for all at once, a busy API server answers none in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sidestage.cluster import pods
from sidestage.cluster.api import Api, ApiError
from sidestage.cluster.job import SESSION
from sidestage.cluster.kinds import KINDS
from sidestage.cluster.targets import pages

# What is shown without being asked for; a ReplicaSet is nearly always a deployment's.
USUAL = ("deployment", "rollout", "statefulset", "daemonset", "cronjob", "job", "service", "pod")


@dataclass(frozen=True, slots=True)
class Entry:
    namespace: str
    path: str  # what -t takes
    available: bool  # something is ready behind it


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A kind that could not be listed."""

    kind: str
    why: str


def listing(api: Api, kinds: Sequence[str], namespace: str) -> Iterator[Entry | Unlisted]:
    """`namespace` "" stands for all. Kinds that the cluster hasn't are left out; those that we may not list are told."""
    for kind in kinds:
        try:
            for item in pages(api, KINDS[kind].path(namespace)):
                yield from entries(kind, item)
        except ApiError as error:
            if error.status != 404:
                yield Unlisted(kind, error.message)


def entries(kind: str, item: dict[str, Any]) -> Iterator[Entry]:
    """One for the object, and one for each of its containers if it has several of its own; none for our agents."""
    meta = item["metadata"]
    if SESSION in (meta.get("labels") or {}):
        return
    if kind == "pod" and item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return
    path, ready = f"{kind}/{meta['name']}", available(kind, item)
    yield Entry(meta["namespace"], path, ready)
    names = [each["name"] for each in _containers(kind, item) if each["name"] not in pods.SIDECARS]
    if len(names) > 1:
        for name in names:
            yield Entry(meta["namespace"], f"{path}/container/{name}", ready)


def available(kind: str, item: dict[str, Any]) -> bool:
    status, spec = item.get("status") or {}, item.get("spec") or {}
    if kind == "pod":
        return pods.ready(item)
    if kind == "service":
        return bool(spec.get("selector"))
    if kind == "daemonset":
        return bool(status.get("numberReady"))
    if kind in ("job", "cronjob"):
        return bool(status.get("active"))
    return bool(status.get("readyReplicas"))


def _containers(kind: str, item: dict[str, Any]) -> list[dict[str, Any]]:
    spec = item.get("spec") or {}
    if kind == "cronjob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if kind != "pod":
        spec = (spec.get("template") or {}).get("spec") or {}
    return list(spec.get("containers") or ())


def namespaces(api: Api) -> list[str]:
    """Their names; only our own if we may not list them."""
    try:
        return sorted(str(item["metadata"]["name"]) for item in pages(api, "/api/v1/namespaces", metadata=True))
    except ApiError:
        return [api.namespace]
