"""From the configuration to what is asked of a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sidestage.cluster.plan import Plan
from sidestage.config import Config, tls
from sidestage.targets.spec import TargetSpec
from sidestage.views.incoming import IncomingRules

if TYPE_CHECKING:
    from sidestage.cluster.api import Api


def api(config: Config) -> Api:
    """The cluster that the configuration names. Raises TargetError."""
    from sidestage.cluster.connect import connect

    found = connect(
        config.kubeconfig, config.kube_context, config.target.namespace, config.accept_invalid_certificates, config.use_kubectl
    )
    for note in found.notes:
        print(f"sidestage: {note}", file=sys.stderr)
    return found


def cluster_plan(config: Config, spec: TargetSpec, session: str, incoming: IncomingRules, pool: str = "") -> Plan | None:
    """None for a target on this machine; targetless is in a cluster when one is named."""
    named = bool(config.kubeconfig or config.kube_context or spec.namespace)
    if not (spec.in_cluster or (spec.kind == "targetless" and named)):
        return None
    return Plan(
        spec, session, config.agent, features(config, incoming), config.kubeconfig, config.kube_context,
        config.accept_invalid_certificates, config.use_kubectl,
        {"heartbeat": config.agent.heartbeat, "silence": config.agent.silence}, pool,
    )  # fmt: skip


def shares(plan: Plan) -> bool:
    """Can others use the agent's Job? One in the target's own pod is of that alone, and so is the pod of targetless."""
    return plan.target.in_cluster and plan.agent.mode == "job"


def features(config: Config, incoming: IncomingRules) -> frozenset[str]:
    """What the agent needs rights for; the names are those of cluster/job.py."""
    feature = config.feature
    found = {"files"} if feature.fs.mode != "local" or tls.needs_files(config) else set()
    if feature.fs.mode == "write" or feature.fs.read_write:
        found |= {"files", "write"}
    if feature.network.outgoing.unix_streams:
        found.add("unix")
    if incoming.mode != "off":
        found.add(incoming.mode)
    return frozenset(found)
