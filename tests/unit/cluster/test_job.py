"""The objects that are created: least rights for the features asked, gone by themselves, the configuration over ours."""

from __future__ import annotations

from typing import Any

import pytest

from sidestage.cluster import job
from sidestage.config.schema import Agent


def made(
    agent: Agent | None = None, node: str = "node1", features: frozenset[str] = frozenset({"files", "mirror"})
) -> dict[str, Any]:
    return job.job(agent or Agent(), "abc", 1, namespace="shop", node=node, features=features, target="shop/pod/orders")


def container(item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = item["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    "features, wanted",
    [
        (set(), ["SYS_ADMIN", "SYS_PTRACE"]),
        ({"files"}, ["DAC_READ_SEARCH", "SYS_ADMIN", "SYS_PTRACE"]),
        ({"files", "mirror"}, ["DAC_READ_SEARCH", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"]),
        ({"steal"}, ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]),
        ({"unix"}, ["DAC_OVERRIDE", "SYS_ADMIN", "SYS_PTRACE"]),
        ({"write"}, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SYS_ADMIN", "SYS_PTRACE"]),
    ],
)
def test_only_the_rights_that_the_features_need(features: set[str], wanted: list[str]) -> None:
    security = container(made(features=frozenset(features)))["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": wanted}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security


def test_disabled_capabilities_are_not_asked_for() -> None:
    agent = Agent(disabled_capabilities=("SYS_ADMIN", "NET_RAW"))
    security = container(made(agent))["securityContext"]
    assert security["capabilities"]["add"] == ["DAC_READ_SEARCH", "SYS_PTRACE"]
    assert security["allowPrivilegeEscalation"] is False


def test_a_job_ends_and_goes_by_itself() -> None:
    spec = made(Agent(ttl=7))["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 7)
    assert 0 < spec["activeDeadlineSeconds"] <= 24 * 3600
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    *_, name, patience, another = container(made())["command"]
    assert name == job.guard_name("abc", 1)
    assert (int(patience) > 0, int(another)) == (True, 0)


@pytest.mark.parametrize("shares, cpu, memory, limit", [(0, 10, 32, 256), (1, 10, 32, 256), (3, 30, 96, 768), (50, 40, 128, 1024)])
def test_what_sessions_share_waits_for_the_next_and_has_room_for_all(shares: int, cpu: int, memory: int, limit: int) -> None:
    item = container(job.job(Agent(), "abc", 2, namespace="shop", node="node1", features=(), target="", shares=shares))
    assert bool(int(item["command"][-1])) == bool(shares)
    assert item["resources"]["requests"] == {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
    assert item["resources"]["limits"] == {"cpu": "2", "memory": f"{limit}Mi"}


def test_beside_a_target_it_is_on_its_node_whatever_the_taints() -> None:
    spec = made()["spec"]["template"]["spec"]
    assert (spec["nodeName"], spec["hostPID"]) == ("node1", True)
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["automountServiceAccountToken"] is False
    assert "hostNetwork" not in spec
    assert made(Agent(tolerations=()))["spec"]["template"]["spec"].get("tolerations") is None


def test_targetless_is_an_ordinary_pod() -> None:
    item = made(Agent(node_selector={"disk": "ssd"}), node="")
    spec = item["spec"]["template"]["spec"]
    assert not {"nodeName", "hostPID", "tolerations", "automountServiceAccountToken"} & spec.keys()
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert container(item)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container(item)["securityContext"]["allowPrivilegeEscalation"] is False


def test_what_the_configuration_says() -> None:
    agent = Agent(
        image="registry.example/python", image_pull_policy="Always", image_pull_secrets=("one",), service_account="agent",
        priority_class="high", labels={"team": "a", "sidecar.istio.io/inject": "true"}, annotations={"note": "x"},
        tolerations=({"key": "gpu"},), resources={"limits": {"cpu": None, "memory": "1Gi"}}, python="/py",
        security_context={"seccompProfile": {"type": "Unconfined"}, "readOnlyRootFilesystem": None},
    )  # fmt: skip
    item = made(agent)
    template = item["spec"]["template"]
    spec, own = template["spec"], container(item)
    assert (own["image"], own["imagePullPolicy"]) == ("registry.example/python", "Always")
    assert spec["imagePullSecrets"] == [{"name": "one"}]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("agent", False)
    assert (spec["priorityClassName"], spec["tolerations"]) == ("high", [{"key": "gpu"}])
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
    assert template["metadata"]["labels"][job.SESSION] == "abc"
    assert template["metadata"]["annotations"]["note"] == "x"
    assert own["resources"] == {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "1Gi"}}
    assert own["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    assert "readOnlyRootFilesystem" not in own["securityContext"]
    assert own["command"][0] == "/py"
    assert container(made(Agent(privileged=True)))["securityContext"]["privileged"] is True


def test_meshes_are_told_to_keep_out() -> None:
    meta = made()["spec"]["template"]["metadata"]
    for key, value in job.NO_MESH.items():
        assert meta["labels"][key] == meta["annotations"][key] == value


@pytest.mark.parametrize("restricted, user", [(True, 1000), (True, None), (False, None), (False, 1000)])
def test_an_ephemeral_container_fits_the_namespace(restricted: bool, user: int | None) -> None:
    item = job.ephemeral(
        Agent(), "abc", 2, target="app", features=frozenset({"files", "mirror"}), user=user, restricted=restricted
    )
    security = item["securityContext"]
    assert (item["name"], item["targetContainerName"]) == ("sidestage-abc-2", "app")
    assert security["allowPrivilegeEscalation"] is False
    if restricted:
        assert (security["capabilities"], security["runAsNonRoot"]) == ({"drop": ["ALL"]}, True)
        assert security.get("runAsUser") == user
    else:
        assert security["capabilities"]["add"] == ["DAC_READ_SEARCH", "NET_RAW", "SYS_PTRACE"]
        assert security["runAsUser"] == (0 if user is None else user)


def test_names_are_labels_in_kubernetes() -> None:
    longest = job.name_of("f" * 16, 999)
    assert len(longest) <= 57, "the job controller appends 6 characters to 63"
