"""What the user may write after `-t`: the grammar of targets, and nothing about how they are reached."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

LOCAL_KINDS = ("process", "container", "targetless")
CLUSTER_KINDS = (
    "pod", "deployment", "statefulset", "replicaset", "daemonset", "rollout", "job", "cronjob", "service", "label",
)  # fmt: skip


class TargetError(Exception):
    """A target that can't be used. `cause` says why, `cure` what to do next; both are one line."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure


@dataclass(frozen=True, slots=True)
class TargetSpec:
    kind: str
    name: str = ""


def parse(text: str) -> TargetSpec:
    """`process/4711`, `container/db` or `targetless`; raises TargetError for anything else."""
    kind, _, name = text.strip().partition("/")
    if kind in CLUSTER_KINDS:
        raise TargetError(
            f"target {text!r} needs a Kubernetes cluster, which this version can't reach yet",
            "use process/PID or container/NAME for a target on this machine",
        )
    if kind not in LOCAL_KINDS:
        near = difflib.get_close_matches(kind, LOCAL_KINDS, 1, 0.5)
        raise TargetError(
            f"unknown kind of target {kind!r} in {text!r}",
            f"did you mean {near[0]!r}?" if near else "use process/PID, container/NAME or targetless",
        )
    if kind == "targetless":
        if name:
            raise TargetError(f"targetless takes no name, got {text!r}", "write just: -t targetless")
    elif not name:
        raise TargetError(f"target {text!r} names no {kind}", f"write {kind}/{'PID' if kind == 'process' else 'NAME'}")
    return TargetSpec(kind, name)
