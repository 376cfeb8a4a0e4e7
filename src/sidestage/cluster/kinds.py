"""The kinds of targets as the API knows them, and their selectors as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sidestage.cluster.errors import ClusterError


class Kind(NamedTuple):
    prefix: str  # of the path: /api/v1 or /apis/GROUP/VERSION
    plural: str

    @property
    def group(self) -> str:
        return self.prefix.split("/")[2] if self.prefix.startswith("/apis/") else ""

    def path(self, namespace: str, name: str = "") -> str:
        """Of all in a namespace ("" stands for all namespaces), or of one. Names are checked by targets/spec.py."""
        place = f"{self.prefix}/namespaces/{namespace}/{self.plural}" if namespace else f"{self.prefix}/{self.plural}"
        return f"{place}/{name}" if name else place


KINDS = {
    "deployment": Kind("/apis/apps/v1", "deployments"),
    "rollout": Kind("/apis/argoproj.io/v1alpha1", "rollouts"),
    "statefulset": Kind("/apis/apps/v1", "statefulsets"),
    "daemonset": Kind("/apis/apps/v1", "daemonsets"),
    "replicaset": Kind("/apis/apps/v1", "replicasets"),
    "cronjob": Kind("/apis/batch/v1", "cronjobs"),
    "job": Kind("/apis/batch/v1", "jobs"),
    "service": Kind("/api/v1", "services"),
    "pod": Kind("/api/v1", "pods"),
}
OWNS_ITS_PODS = ("statefulset", "daemonset", "replicaset", "job")  # named as their pods' owner; a deployment's are a ReplicaSet's


def selector(kind: str, item: Mapping[str, Any]) -> str:
    """The selector of the pods of a workload or service, as the query parameter takes it. Raises ClusterError if it has none."""
    spec = item.get("spec") or {}
    name = item["metadata"]["name"]
    given = spec.get("selector")
    if kind == "service":
        if not given:
            raise ClusterError(
                f"service {name} selects no pods" + (" (ExternalName)" if spec.get("type") == "ExternalName" else ""),
                "name what is behind it: -t deployment/NAME or -t pod/NAME",
            )
        return labels(given)
    if kind == "rollout" and not given:  # it refers to a deployment
        told = (item.get("status") or {}).get("selector")
        if told:
            return str(told)
    if not given:
        raise ClusterError(f"{kind} {name} selects no pods", "name one of its pods: -t pod/NAME")
    terms = [labels(given.get("matchLabels") or {})] if given.get("matchLabels") else []
    for each in given.get("matchExpressions") or ():
        key, values = each["key"], ",".join(each.get("values") or ())
        terms.append({
            "In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}",
        }[each["operator"]])  # fmt: skip
    return ",".join(terms)


def labels(wanted: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(wanted.items()))
