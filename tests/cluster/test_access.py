"""Logging in to a real API server in each way that a kubeconfig has, with kubectl as the oracle; rights; refusals of admission."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidestage.cluster import kubeconfig, permissions
from sidestage.cluster.api import Api, ApiError, ClusterError
from sidestage.cluster.connect import connect
from sidestage.cluster.kinds import KINDS
from sidestage.cluster.targets import resolve
from sidestage.targets.spec import parse
from tests.testkit.cluster import Cluster, eventually

ACCOUNT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
"""
POD = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "localhost/static:1", "imagePullPolicy": "Never"}]}
HOST = {**POD, "hostPID": True}


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> dict[str, Any]:
    return dict(yaml.safe_load(cluster.kubeconfig.read_text()))


@pytest.fixture(scope="module")
def token(cluster: Cluster, namespace: str) -> str:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=ACCOUNT)
    return cluster.kubectl("create", "token", "-n", namespace, "robot").strip()


@pytest.fixture
def client(cluster: Cluster, namespace: str) -> Iterator[Api]:
    with connect(str(cluster.kubeconfig), namespace=namespace) as api:
        yield api


def written(folder: Path, admin: dict[str, Any], user: dict[str, Any], namespace: str = "") -> str:
    """A kubeconfig like the admin's, but of another user."""
    tree = json.loads(json.dumps(admin))
    tree["users"] = [{"name": each["name"], "user": user} for each in tree["users"]]
    for each in tree["contexts"]:
        each["context"]["namespace"] = namespace
    file = folder / "config"
    file.write_text(yaml.safe_dump(tree))
    return str(file)


def ways(admin: dict[str, Any], token: str, folder: Path) -> dict[str, dict[str, Any]]:
    user = admin["users"][0]["user"]
    (folder / "token").write_text(token)
    for name in ("certificate", "key"):
        (folder / name).write_bytes(base64.b64decode(user[f"client-{name}-data"]))
    kind = {"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1"}
    certificate = {f"client{name.title()}Data": (folder / name).read_text() for name in ("certificate", "key")}
    answers = {
        "token": {**kind, "status": {"token": token, "expirationTimestamp": "2126-01-01T00:00:00Z"}},
        "certificate": {**kind, "status": certificate},
    }
    for name, answer in answers.items():
        (folder / f"{name}.json").write_text(json.dumps(answer))
    plugin = {"apiVersion": kind["apiVersion"], "command": "cat", "interactiveMode": "Never", "env": None}
    return {
        "certificate data": user,
        "certificate files": {"client-certificate": "certificate", "client-key": "key"},
        "token": {"token": token},
        "token file": {"tokenFile": "token"},
        "plugin with a token": {"exec": {**plugin, "args": [str(folder / "token.json")]}},
        "plugin with a certificate": {"exec": {**plugin, "args": [str(folder / "certificate.json")]}},
        "impersonation": {**user, "as": "jane", "as-groups": ["devs", "ops"], "as-user-extra": {"reason": ["a b"]}},
        "impersonation by a token's owner": {"token": token, "as": "jane"},
        "a token that is none": {"token": "none"},
    }


WAYS = [
    "certificate data", "certificate files", "token", "token file", "plugin with a token", "plugin with a certificate",
    "impersonation", "impersonation by a token's owner", "a token that is none",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_we_are_who_kubectl_is(way: str, cluster: Cluster, admin: dict[str, Any], token: str, tmp_path: Path) -> None:
    file = written(tmp_path, admin, ways(admin, token, tmp_path)[way])
    command = [str(cluster.program), "--kubeconfig", file, "auth", "whoami", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with connect(file) as api:
        if done.returncode:
            with pytest.raises(ApiError) as caught:
                api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
            assert caught.value.status in (401, 403)
            assert (caught.value.status == 401) is ("Unauthorized" in done.stderr)
            return
        ours = api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
    theirs = json.loads(done.stdout)
    drop = "authentication.kubernetes.io/credential-id"  # of each certificate and connection
    for told in (ours, theirs):
        told["status"]["userInfo"].get("extra", {}).pop(drop, None)
    assert ours["status"] == theirs["status"]


def test_in_a_pod_its_service_account_is_used(admin: dict[str, Any], token: str, namespace: str, tmp_path: Path) -> None:
    found = admin["clusters"][0]["cluster"]
    host, _, port = found["server"].removeprefix("https://").rpartition(":")
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(found["certificate-authority-data"]))
    (tmp_path / "token").write_text(token)
    (tmp_path / "namespace").write_text(namespace)
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    access = kubeconfig.in_cluster(environ, folder=str(tmp_path))
    assert access is not None
    with Api(access) as api:
        assert permissions.who(api) == {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"certificate-authority-data": ""}, "not to be trusted"),
        ({"tls-server-name": "other.example"}, "not to be trusted"),
        ({"server": "https://127.0.0.1:1"}, "refused"),
        ({"certificate-authority-data": "", "insecure-skip-tls-verify": True}, ""),
        ({"tls-server-name": "kubernetes.default.svc"}, ""),
    ],
)
def test_trust(change: dict[str, Any], said: str, cluster: Cluster, admin: dict[str, Any], tmp_path: Path) -> None:
    tree = json.loads(json.dumps(admin))
    tree["clusters"][0]["cluster"].update(change)
    file = written(tmp_path, tree, tree["users"][0]["user"])
    with connect(file) as api:
        if said:
            with pytest.raises(ClusterError, match=said):
                api.request("GET", "/version")
        else:
            assert "gitVersion" in api.request("GET", "/version")
    if "not to be trusted" in said:
        with connect(file, insecure=True) as api:
            assert "gitVersion" in api.request("GET", "/version")


# --- rights


def as_user(folder: Path, admin: dict[str, Any], name: str, namespace: str) -> str:
    return written(folder, admin, {**admin["users"][0]["user"], "as": name, "as-groups": ["system:authenticated"]}, namespace)


@pytest.mark.parametrize("mode", ["job", "ephemeral", "in-container"])
def test_the_role_that_is_printed_is_what_lacked(
    mode: str, cluster: Cluster, admin: dict[str, Any], tmp_path: Path, namespace: str
) -> None:
    user = f"jane-{mode}"
    with connect(as_user(tmp_path, admin, user, namespace)) as api:
        wanted = permissions.needs("deployment", mode, namespace)
        assert permissions.lacking(api, wanted) == wanted
        with pytest.raises(ApiError) as caught:
            resolve(api, parse("deployment/nothing"))
        said = permissions.explain(api, caught.value, wanted)
        assert said.cause.startswith(f"you may not get deployments in namespace '{namespace}'; nor ")
        role = "\n".join(line.removeprefix("    ") for line in said.cure.splitlines()[1:])
        role = role.replace("name: sidestage", f"name: {user}")
        cluster.kubectl("apply", "-f", "-", stdin=role)
        # The authorizer hears of it by a watch of its own.
        eventually("the rights", lambda: permissions.lacking(api, wanted) == [])
        with pytest.raises(ClusterError, match="there is no deployment 'nothing'"):
            resolve(api, parse("deployment/nothing"))


def test_doctor_tells_of_rights_and_of_the_way_that_is_open(
    cluster: Cluster, admin: dict[str, Any], tmp_path: Path, namespace: str
) -> None:
    role = permissions.role(permissions.needs("deployment", "in-container", namespace), {"kind": "User", "name": "ann"})
    cluster.kubectl("apply", "-f", "-", stdin=role.replace("name: sidestage", "name: ann"))
    file = as_user(tmp_path, admin, "ann", namespace)

    def told() -> dict[str, Any]:
        command = [sys.executable, "-m", "sidestage", "doctor", "--kubeconfig", file, "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return {found["name"]: found for found in json.loads(done.stdout)["findings"]}

    eventually("the rights", lambda: "--in-container" in told()["rights"]["cure"])
    found = told()
    assert found["cluster"]["state"] == "ok"
    assert "version v1." in found["cluster"]["detail"]
    assert f"create jobs.batch in {namespace}" in found["rights"]["detail"]
    assert "pods/exec" not in found["rights"]["detail"]
    assert "agent" not in found


# --- admission


def job(namespace: str, pod: dict[str, Any], name: str = "x") -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": {"spec": pod}}}


def test_pod_security_is_foreseen(cluster: Cluster, client: Api) -> None:
    with cluster.namespace(f"{client.namespace}-locked", "pod-security.kubernetes.io/enforce=baseline") as locked:
        path = KINDS["job"].path(locked)
        permissions.dry_run(client, path, job(locked, POD), "the agent's Job")
        with pytest.raises(ClusterError, match=r"will be refused.*hostPID") as caught:
            permissions.dry_run(client, path, job(locked, HOST), "the agent's Job")
        assert "--in-container" in caught.value.cure
        with pytest.raises(ClusterError, match=r"was refused.*hostPID") as caught:
            item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": HOST}
            permissions.dry_run(client, KINDS["pod"].path(locked), item, "the agent's pod")
        assert "--in-container" in caught.value.cure
        assert cluster.get("jobs,pods", "-n", locked)["items"] == [], "a dry run stores nothing"


def test_quotas_limits_and_policies_are_known(cluster: Cluster, client: Api) -> None:
    objects = [
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "0"}}},
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
         "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}},
    ]  # fmt: skip
    with cluster.namespace(f"{client.namespace}-tight") as tight:
        for each in objects:
            cluster.kubectl("apply", "-n", tight, "-f", "-", stdin=json.dumps(each))

        def refused(path: str, item: dict[str, Any]) -> ClusterError | None:
            try:
                permissions.dry_run(client, path, item, "the agent")
            except ClusterError as error:
                return error
            return None

        # The quota's controller must have counted first.
        said = eventually("the quota", lambda: refused(KINDS["job"].path(tight), job(tight, POD)))
        assert "exceeded quota: q" in said.cause
        assert "another namespace" in said.cure
        hungry = {**POD, "containers": [{**POD["containers"][0], "resources": {"limits": {"memory": "1Gi"}}}]}  # type: ignore[dict-item]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": hungry}
        said = eventually("the limits", lambda: refused(KINDS["pod"].path(tight), pod))
        assert "LimitRange" in said.cure
        account = {**pod, "spec": {**POD, "serviceAccountName": "nobody"}}
        assert "agent.service_account" in permissions_cure(refused(KINDS["pod"].path(tight), account))
        priority = {**pod, "spec": {**POD, "priorityClassName": "nothing"}}
        assert "agent.priority_class" in permissions_cure(refused(KINDS["pod"].path(tight), priority))


def permissions_cure(error: ClusterError | None) -> str:
    assert error is not None
    return error.cure


def test_an_admission_policy_is_quoted(cluster: Cluster, client: Api) -> None:
    name = f"{client.namespace}-policy"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    base = "admissionregistration.k8s.io/v1"
    policy = {
        "apiVersion": base, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [
            {"expression": "has(object.metadata.labels) && 'team' in object.metadata.labels", "message": "every Job needs a team"}
        ]},
    }  # fmt: skip
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": client.namespace}}}
    binding = {
        "apiVersion": base, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": selector},
    }  # fmt: skip
    for each in (policy, binding):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(each))
    try:
        def refused() -> ClusterError | None:
            try:
                permissions.dry_run(client, KINDS["job"].path(client.namespace), job(client.namespace, POD), "the agent's Job")
            except ClusterError as error:
                return error
            return None

        said = eventually("the policy", refused)
        assert "every Job needs a team" in said.cause
        assert "policy" in said.cure
    finally:
        for each in (binding, policy):
            cluster.kubectl("delete", str(each["kind"]), name)
