"""What the user may write after `-t`: the grammar of targets, and nothing about how they are reached."""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCAL_KINDS = ("process", "container", "targetless")
CLUSTER_KINDS = (
    "pod", "deployment", "statefulset", "replicaset", "daemonset", "rollout", "job", "cronjob", "service", "label",
)  # fmt: skip
ALIASES = {
    "po": "pod", "deploy": "deployment", "sts": "statefulset", "rs": "replicaset", "ds": "daemonset", "cj": "cronjob",
    "svc": "service",
    **{f"{kind}s": kind for kind in CLUSTER_KINDS},
}  # fmt: skip
# What Kubernetes takes as a name (RFC 1123), and as a label=value or label of a selector.
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?(=[-A-Za-z0-9_.]{0,63})?")


class TargetError(Exception):
    """A target that can't be used. `cause` says why, `cure` what to do next; both are one line."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure


@dataclass(frozen=True, slots=True)
class TargetSpec:
    kind: str
    name: str = ""  # of a label: its selector, `app=orders,tier=web`
    container: str = ""  # of the pod; empty: one is chosen
    namespace: str = ""  # empty: the kubeconfig context's

    @property
    def in_cluster(self) -> bool:
        return self.kind in CLUSTER_KINDS

    def __str__(self) -> str:
        named = f"{self.kind}/{self.name}" if self.name else self.kind
        return f"{named}/container/{self.container}" if self.container else named


def parse(text: str, namespace: str = "") -> TargetSpec:
    """`process/4711`, `deployment/orders/container/app`, `targetless`, ...; raises TargetError for anything else."""
    kind, _, name = text.strip().partition("/")
    kind = ALIASES.get(kind, kind)
    if kind in CLUSTER_KINDS:
        return _cluster(kind, name, text, namespace)
    if kind not in LOCAL_KINDS:
        import difflib  # only for a message

        near = difflib.get_close_matches(kind, (*LOCAL_KINDS, *CLUSTER_KINDS), 1, 0.5)
        raise TargetError(
            f"unknown kind of target {kind!r} in {text!r}",
            f"did you mean {near[0]!r}?" if near else "use deployment/NAME, pod/NAME, process/PID, container/NAME or targetless",
        )
    if kind == "targetless":
        if name:
            raise TargetError(f"targetless takes no name, got {text!r}", "write just: -t targetless")
    elif not name:
        raise TargetError(f"target {text!r} names no {kind}", f"write {kind}/{'PID' if kind == 'process' else 'NAME'}")
    return TargetSpec(kind, name, namespace=namespace if kind == "targetless" else "")


def _cluster(kind: str, rest: str, text: str, namespace: str) -> TargetSpec:
    name, mark, container = rest.partition("/container/")
    if not mark and name.endswith("/container"):
        name, mark = name.removesuffix("/container"), "/"
    if mark and not NAME.fullmatch(container):
        raise TargetError(f"target {text!r} names no container", f"write {kind}/{name or 'NAME'}/container/NAME")
    if kind == "label":
        if not name or not all(LABEL.fullmatch(part) for part in name.split(",")):
            raise TargetError(f"target {text!r} is no label", "write label/KEY=VALUE, or several with commas between")
    elif not NAME.fullmatch(name):
        raise TargetError(
            f"target {text!r} names no {kind}" if not name else f"{name!r} in target {text!r} can't be a name in Kubernetes",
            f"write {kind}/NAME or {kind}/NAME/container/NAME; `sidestage ls` shows what is there",
        )
    return TargetSpec(kind, name, container, namespace)
