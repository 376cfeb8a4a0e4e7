"""What is missing, the Role that cures it, and refusals known by the API server's own words."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from sidestage.cluster import permissions, refusals
from sidestage.cluster.api import Api
from sidestage.cluster.errors import ApiError
from sidestage.cluster.permissions import Need, lacking, needs, role
from sidestage.targets.spec import CLUSTER_KINDS


class Fake:
    """An authorizer: `rules` is what it lists, `allowed` what it grants besides when asked for one thing."""

    warnings: list[str]

    def __init__(self, rules: list[dict[str, Any]], allowed: tuple[tuple[str, str], ...] = (), reviews: bool = True) -> None:
        self.rules, self.allowed, self.reviews, self.asked = rules, allowed, reviews, list[str]()

    def request(self, method: str, path: str, *, body: Any) -> Any:
        kind = path.rsplit("/", 1)[-1]
        self.asked.append(kind)
        if kind == "selfsubjectrulesreviews":
            if not self.reviews:
                raise ApiError(403, "Forbidden", "no")
            return {"status": {"resourceRules": self.rules, "incomplete": True}}
        if kind == "selfsubjectreviews":
            return {"status": {"userInfo": {"username": "jane"}}}
        wanted = body["spec"]["resourceAttributes"]
        name = wanted["resource"] + (f"/{wanted['subresource']}" if "subresource" in wanted else "")
        return {"status": {"allowed": (wanted["verb"], name) in self.allowed}}


def rule(verbs: str, groups: str, resources: str, **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(), "apiGroups": groups.split(" "), "resources": resources.split(), **more}


GET_POD = Need("get", "pods", "", "ns", "x")
EXEC = Need("create", "pods/exec", "", "ns", "x")
JOB = Need("create", "jobs", "batch", "ns", "x")


@pytest.mark.parametrize(
    "rules, missing",
    [
        ([], [GET_POD, EXEC, JOB]),
        ([rule("*", "*", "*")], []),
        ([rule("get create", "", "pods pods/exec"), rule("create", "batch", "*")], []),
        ([rule("get", "", "pods"), rule("create", "", "*/exec"), rule("*", "batch", "jobs")], []),
        ([rule("get", "", "pods", resourceNames=["a"])], [GET_POD, EXEC, JOB]),
        ([rule("create", "", "pods jobs")], [GET_POD, EXEC, JOB]),
        ([rule("*", "*", "pods")], [EXEC, JOB]),
    ],
)
def test_what_the_rules_leave_open(rules: list[dict[str, Any]], missing: list[Need]) -> None:
    fake = Fake(rules)
    assert lacking(cast(Api, fake), [GET_POD, EXEC, JOB]) == missing
    assert len(fake.asked) == 1 + len(missing), "one round trip where the rules suffice"


def test_another_authorizer_is_asked_for_what_the_rules_do_not_tell() -> None:
    assert lacking(cast(Api, Fake([], (("create", "pods/exec"),))), [GET_POD, EXEC]) == [GET_POD]
    assert lacking(cast(Api, Fake([], (("get", "pods"),), reviews=False)), [GET_POD, EXEC]) == [EXEC]


@pytest.mark.parametrize("mode", ["job", "ephemeral", "in-container"])
@pytest.mark.parametrize("kind", [*CLUSTER_KINDS, "targetless"])
def test_the_role_grants_all_that_is_needed(kind: str, mode: str) -> None:
    wanted = needs(kind, mode, "shop", "agents" if mode == "job" else "")
    documents = list(yaml.safe_load_all(role(wanted, {"kind": "User", "name": "a: b"})))
    assert [each["kind"] for each in documents] == ["Role", "RoleBinding"] * (2 if mode == "job" else 1)
    for namespace in {need.namespace for need in wanted}:
        (granted,) = [each["rules"] for each in documents if each["kind"] == "Role" and each["metadata"]["namespace"] == namespace]
        there = [need for need in wanted if need.namespace == namespace]
        assert lacking(cast(Api, Fake(granted)), there) == []
        rest = [dict(each, verbs=each["verbs"][1:]) for each in granted]
        assert lacking(cast(Api, Fake(rest)), there) != [], "nothing is granted twice"
    assert documents[1]["subjects"] == [{"kind": "User", "name": "a: b"}]


def test_least_privileges_of_the_modes() -> None:
    modes = ("job", "ephemeral", "in-container")
    verbs = {mode: {(need.verb, need.resource) for need in needs("pod", mode, "ns")} for mode in modes}
    assert ("create", "jobs") in verbs["job"]
    assert not {resource for _, resource in verbs["in-container"]} - {"pods", "pods/exec", "pods/portforward", "events"}
    assert not {each for each in verbs["in-container"] if each[0] in ("create", "patch", "delete")} - {
        ("create", "pods/exec"), ("create", "pods/portforward"),
    }  # fmt: skip


RBAC = ApiError(
    403, "Forbidden",
    'pods "a" is forbidden: User "jane" cannot create resource "pods/exec" in API group "" in the namespace "shop"',
)  # fmt: skip


def test_a_refusal_of_rbac_names_all_that_is_missing_and_the_role() -> None:
    fake = Fake([rule("get list watch", "", "pods"), rule("get", "", "pods/exec")])
    said = permissions.explain(cast(Api, fake), RBAC, needs("deployment", "in-container", "shop"))
    assert said.cause == "you may not create pods/exec in namespace 'shop'; nor get deployments"
    assert "kubectl apply" in said.cure
    text = "\n".join(line.removeprefix("    ") for line in said.cure.splitlines()[1:])
    assert [each["kind"] for each in yaml.safe_load_all(text)] == ["Role", "RoleBinding"]
    assert '"jane"' in text


def test_other_refusals_are_left_as_they_are() -> None:
    for error in (ApiError(404, "NotFound", "x"), ApiError(403, "Forbidden", "exceeded quota: q")):
        assert permissions.explain(cast(Api, Fake([])), error, []) is error


@pytest.mark.parametrize(
    "text, word",
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostPID=true)', "--in-container"),
        ('jobs.batch "x" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: 1, limited: 1', "another namespace"),
        ('pods "x" is forbidden: [maximum cpu usage per Container is 500m, but limit is 1]', "LimitRange"),
        ('pods "x" is forbidden: unable to validate against any security context constraint: [...]', "OpenShift"),
        ("admission webhook \"validate.kyverno.svc-fail\" denied the request: no", "policy"),
        ("jobs.batch \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "policy"),
        ('failed calling webhook "x": failed to call webhook: Post "https://...": no endpoints', "down"),
        ('pods "x" is forbidden: error looking up service account n/agent: serviceaccount "agent" not found', "service_account"),
        ('pods "x" is forbidden: no PriorityClass with name high was found', "priority_class"),
        ('unable to create new content in namespace x because it is being terminated', "being deleted"),
        ('Back-off pulling image "x"', "agent.image"),
        ('ErrImageNeverPull: Container image "x" is not present with pull policy of Never', "agent.image"),
        ("0/2 nodes are available: 2 Insufficient memory. preemption: 0/2 nodes are available", "agent.resources"),
        ("container has runAsNonRoot and image will run as root", "security_context"),
    ],
)  # fmt: skip
def test_refusals_are_known_by_their_words(text: str, word: str) -> None:
    assert word in refusals.cure(text)
    said = refusals.explained(ApiError(403, "Forbidden", text), "the agent's Job")
    assert said.cause.startswith("the agent's Job was refused: ")
    assert word in said.cure


def test_words_of_rbac_are_no_admission() -> None:
    assert refusals.explained(RBAC, "x") is RBAC
    assert refusals.denied(RBAC) == ("create", "pods/exec", "", "shop")
    assert refusals.cure("something else") == ""


def test_pod_security_warns_of_a_job() -> None:
    found = refusals.of_warnings(["deprecated", 'would violate PodSecurity "baseline:latest": hostPID'], "the agent's Job")
    assert found is not None
    assert "hostPID" in found.cause
    assert refusals.of_warnings(["deprecated"], "x") is None
