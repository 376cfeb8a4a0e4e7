"""Who may share an agent's Job: what each asks for, and which Job fits. Pure.

A Job is shared by sessions of one `sidestage up` whose targets' pods are on one node, whose Jobs would be in one namespace of one
cluster, and whose configuration of the agent's pod is the same. It has the rights that any of them needs, and no more: a session
that comes later with wider needs gets another Job.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sidestage.cluster.plan import Plan
from sidestage.cluster.pods import PodTarget
from sidestage.config.check import build
from sidestage.config.schema import Agent

# Keys that are about one session, not about the pod that it runs in.
OF_A_SESSION = ("heartbeat", "silence", "startup_timeout", "max_body_buffer_size", "max_body_buffer_timeout")


class Access(NamedTuple):
    """How the API is reached; connect.py's arguments."""

    kubeconfig: str
    context: str
    namespace: str
    insecure: bool | None
    kubectl: bool


@dataclass(frozen=True, slots=True)
class Want:
    access: Access
    namespace: str  # of the Job
    node: str
    agent: Agent
    features: frozenset[str]
    target: str  # for those who look at the Job
    kind: str  # of the target, as it was asked for
    session: str

    def alike(self, other: Want) -> bool:
        """Could one pod serve both, but for its rights?"""
        return self._place() == other._place()

    def _place(self) -> tuple[Any, ...]:
        kubeconfig, context, _, insecure, kubectl = self.access
        agent = dataclasses.replace(self.agent, **{name: getattr(_DEFAULT, name) for name in OF_A_SESSION})
        return kubeconfig, context, insecure, kubectl, self.namespace, self.node, agent

    def together(self, others: Iterable[Want]) -> Want:
        """For all of `others` that are alike as well: every right, every target."""
        alike = [self, *(each for each in others if self.alike(each))]
        features = frozenset[str]().union(*(each.features for each in alike))
        targets = ", ".join(dict.fromkeys(each.target for each in alike))
        return dataclasses.replace(self, features=features, target=targets)


_DEFAULT = Agent()


def want(plan: Plan, chosen: PodTarget) -> Want:
    return Want(
        access(plan), plan.agent.namespace or chosen.namespace, chosen.node, plan.agent, plan.features,
        f"{chosen.namespace}/{chosen}", plan.target.kind, plan.session,
    )  # fmt: skip


def access(plan: Plan) -> Access:
    """Paths are absolute: services may run in folders of their own."""
    files = [os.path.abspath(os.path.expanduser(each)) for each in plan.kubeconfig.split(os.pathsep) if each]
    return Access(os.pathsep.join(files), plan.context, plan.target.namespace, plan.insecure, plan.kubectl)


def fits(wanted: Want, made: Want) -> bool:
    """Will a Job that was made for `made` do?"""
    return wanted.alike(made) and wanted.features <= made.features


def shares(wanted: Want, planned: Collection[Want]) -> int:
    return max(1, sum(wanted.alike(each) for each in planned))


def encode(wanted: Want) -> bytes:
    fields = {each.name: getattr(wanted, each.name) for each in dataclasses.fields(wanted)}
    return json.dumps(fields | {"agent": dataclasses.asdict(wanted.agent), "features": sorted(wanted.features)}).encode()


def decode(data: bytes) -> Want:
    """Raises ValueError."""
    fields = json.loads(data)
    problems: list[str] = []
    agent = build(Agent, fields["agent"], "agent", problems)
    if problems:
        raise ValueError("; ".join(problems))
    return Want(**fields | {"agent": agent, "features": frozenset(fields["features"]), "access": Access(*fields["access"])})
