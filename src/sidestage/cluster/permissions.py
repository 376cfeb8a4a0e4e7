"""What may we do? Asked of the API server itself, in one round trip where that suffices, and cured by a Role to apply.

A run asks only after a refusal (403), so that a good start costs nothing; `sidestage doctor` asks before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sidestage.cluster.api import Api, ApiError, ClusterError
from sidestage.cluster.kinds import KINDS
from sidestage.cluster.refusals import denied, explained, of_warnings

AUTHORIZATION = "/apis/authorization.k8s.io/v1"


class Need(NamedTuple):
    verb: str
    resource: str  # with its subresource: pods/exec
    group: str
    namespace: str
    why: str
    optional: bool = False  # without it something is slower or less told

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "") + f" in {self.namespace}"


def needs(kind: str, mode: str, namespace: str, agent_namespace: str = "") -> list[Need]:
    """For a target's kind and an agent's mode (`job`, `ephemeral`, `in-container`)."""
    there = agent_namespace or namespace if mode == "job" else namespace
    found = [Need("get", "pods", "", namespace, "the target")]
    if kind != "pod":
        found.append(Need("list", "pods", "", namespace, "the target's pods"))
    if kind == "cronjob":
        found += [Need("get", "cronjobs", "batch", namespace, "the target"), Need("list", "jobs", "batch", namespace, "the target")]
    elif kind in KINDS and kind != "pod":
        found.append(Need("get", KINDS[kind].plural, KINDS[kind].group, namespace, "the target"))
    if mode == "job":
        found += [
            Need("create", "jobs", "batch", there, "the agent's Job"),
            Need("delete", "jobs", "batch", there, "the agent's Job, at the end"),
            Need("list", "pods", "", there, "the agent's pod"),
            Need("watch", "pods", "", there, "the agent's pod"),
        ]
    elif mode == "ephemeral":
        found += [
            Need("patch", "pods/ephemeralcontainers", "", namespace, "the agent"),
            Need("watch", "pods", "", namespace, "the agent's start"),
        ]
    found += [
        Need("get", "pods/exec", "", there, "the agent's stream (WebSocket)"),
        Need("create", "pods/exec", "", there, "the agent's stream (Kubernetes 1.35 and later, and kubectl)"),
        Need("get", "pods/portforward", "", there, "bulk data at full speed", True),
        Need("create", "pods/portforward", "", there, "bulk data at full speed (Kubernetes 1.35 and later)", True),
        Need("list", "events", "", there, "the reason when an agent can't start", True),
    ]
    return list(dict.fromkeys(found))


def lacking(api: Api, wanted: Sequence[Need]) -> list[Need]:
    """Those that are not allowed. One request a namespace, and one more for each that its answer leaves open."""
    open_: list[Need] = []
    for namespace in dict.fromkeys(need.namespace for need in wanted):
        rules = _rules(api, namespace)
        open_ += [need for need in wanted if need.namespace == namespace and not any(_covers(rule, need) for rule in rules)]
    return [need for need in open_ if not _allowed(api, need)]


def dry_run(api: Api, path: str, item: dict[str, Any], doing: str) -> None:
    """Would the API server take `item`? All of admission is asked, nothing is stored. Raises ClusterError with the cure."""
    try:
        api.request("POST", path, query={"dryRun": "All"}, body=item)
    except ApiError as error:
        raise explained(error, doing) from error
    if refusal := of_warnings(api.warnings, doing):
        raise refusal


def _rules(api: Api, namespace: str) -> list[dict[str, Any]]:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    try:
        answer = api.request("POST", f"{AUTHORIZATION}/selfsubjectrulesreviews", body=body)
    except ApiError:
        return []  # each is then asked for
    return list((answer.get("status") or {}).get("resourceRules") or ())


def _covers(rule: dict[str, Any], need: Need) -> bool:
    resource, _, sub = need.resource.partition("/")
    names = {"*", need.resource} | ({f"*/{sub}"} if sub else {resource})
    return (
        not rule.get("resourceNames")
        and bool({"*", need.verb} & set(rule.get("verbs") or ()))
        and bool({"*", need.group} & set(rule.get("apiGroups") or ()))
        and bool(names & set(rule.get("resources") or ()))
    )


def _allowed(api: Api, need: Need) -> bool:
    """Exact where the rules are not: webhooks, node and other authorizers."""
    resource, _, sub = need.resource.partition("/")
    attributes = {"verb": need.verb, "resource": resource, "group": need.group, "namespace": need.namespace}
    if sub:
        attributes["subresource"] = sub
    body = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes},
    }  # fmt: skip
    answer = api.request("POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", body=body)
    return bool((answer.get("status") or {}).get("allowed"))


def who(api: Api) -> dict[str, Any]:
    """{kind, name} of ourselves as RBAC's subject; empty where the API server can't tell (before Kubernetes 1.28)."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
    except ApiError:
        return {}
    name = str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")
    if name.startswith("system:serviceaccount:"):
        _, _, namespace, account = name.split(":", 3)
        return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return {"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"} if name else {}


def role(wanted: Iterable[Need], subject: dict[str, Any] | None = None) -> str:
    """A Role a namespace (YAML) with the needs' verbs, bound to `subject`: for `kubectl apply -f -`."""
    by_namespace: dict[str, list[Need]] = {}
    for need in wanted:
        by_namespace.setdefault(need.namespace, []).append(need)
    documents = []
    for namespace, some in by_namespace.items():
        verbs: dict[tuple[str, str], list[str]] = {}
        for need in some:
            verbs.setdefault((need.group, need.resource), []).append(need.verb)
        rules: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (group, resource), each in verbs.items():
            rules.setdefault((group, tuple(dict.fromkeys(each))), []).append(resource)
        head = f"metadata: {{name: sidestage, namespace: {namespace}}}"
        lines = ["apiVersion: rbac.authorization.k8s.io/v1", "kind: Role", head, "rules:"]
        for (group, each_verbs), resources in rules.items():
            lines.append(f'- {{apiGroups: ["{group}"], resources: [{", ".join(resources)}], verbs: [{", ".join(each_verbs)}]}}')
        documents.append("\n".join(lines))
        if subject:
            inner = ", ".join(f"{key}: {_quoted(value)}" for key, value in subject.items())
            documents.append("\n".join([
                "apiVersion: rbac.authorization.k8s.io/v1", "kind: RoleBinding", head,
                "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sidestage}", f"subjects: [{{{inner}}}]",
            ]))  # fmt: skip
    return "\n---\n".join(documents) + "\n"


def _quoted(value: str) -> str:
    import json

    return json.dumps(value)  # a JSON string is a YAML string


def explain(api: Api, error: ApiError, wanted: Sequence[Need]) -> ClusterError:
    """A 403 of the authorizer, with all that is missing besides, and the Role to apply. Other refusals as they are."""
    if error.status != 403 or (refused := denied(error)) is None:
        return error
    try:
        missing = [need for need in lacking(api, wanted) if not need.optional]
        subject = who(api)
    except ClusterError:
        missing, subject = [], {}
    first = f"{refused.verb} {refused.resource}" + (f" in namespace {refused.namespace!r}" if refused.namespace else "")
    also = dict.fromkeys(f"{need.verb} {need.resource}" for need in missing)
    also.pop(f"{refused.verb} {refused.resource}", None)
    cause = f"you may not {first}" + (f"; nor {', '.join(also)}" if also else "")
    if not missing:
        return ClusterError(cause, "ask the cluster's administrator for it")
    complete = role([need for need in wanted if need.namespace in {each.namespace for each in missing}], subject)
    return ClusterError(cause, "an administrator can allow it with `kubectl apply -f -` of:\n" + _indented(complete))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
