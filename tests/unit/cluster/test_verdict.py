"""Is the agent's pod on its way, there, or will it never be? Read off pods and events as a real cluster writes them."""

from __future__ import annotations

from typing import Any

import pytest

from sidestage.cluster import verdict
from sidestage.cluster.errors import ClusterError


def pod(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    if state is not None:
        status["containerStatuses"] = [{"name": "agent", "state": state}]
    return {"metadata": {"name": "agent-x", "namespace": "shop"}, "spec": {}, "status": status}


@pytest.mark.parametrize(
    "item, there",
    [
        (pod(), False),
        (pod({"waiting": {"reason": "ContainerCreating"}}, phase="Pending"), False),
        (pod({"waiting": {"reason": "PodInitializing"}}, phase="Pending"), False),
        (pod({"running": {"startedAt": "x"}}, phase="Running"), True),
        (pod({"running": {}}, phase="Pending"), True),  # the phase follows later
    ],
)
def test_under_way_or_there(item: dict[str, Any], there: bool) -> None:
    assert verdict.started(item, "agent") is there


@pytest.mark.parametrize(
    "item, cause, cure",
    [
        (pod({"waiting": {"reason": "ErrImagePull", "message": "not found"}}), "not found", "agent.image"),
        (pod({"waiting": {"reason": "ImagePullBackOff"}}), "ImagePullBackOff", "agent.image"),
        (pod({"waiting": {"reason": "ErrImageNeverPull"}}), "ErrImageNeverPull", "agent.image"),
        (pod({"waiting": {"reason": "CreateContainerConfigError", "message": "runAsNonRoot and image will run as root"}}),
         "runAsNonRoot", "security_context"),
        (pod({"waiting": {"reason": "CreateContainerError", "message": "no such file"}}), "no such file", "describe pod agent-x"),
        (pod({"waiting": {"reason": "RunContainerError", "message": "no cgroup"}}), "no cgroup", "describe pod"),
        (pod({"terminated": {"exitCode": 128, "reason": "StartError", "message": "failed to create containerd task: "
              'failed to create shim task: OCI runtime create failed: unable to start container process: exec: "python3": '
              'executable file not found in $PATH: unknown'}}),
         "has no Python (python3: executable file not found in $PATH)", "agent.python"),
        (pod({"waiting": {"reason": "CreateContainerError",
                          "message": 'x: exec: "/py": stat /py: no such file or directory: unknown'}}),
         "has no Python (/py: stat /py: no such file or directory)", "agent.python"),
        (pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "OOMKilled", "describe"),
        (pod({"terminated": {"exitCode": 1, "reason": "Error"}}), "ended with 1", "describe"),
        (pod(phase="Failed", reason="OutOfpods", message="Node didn't have enough resource: pods"), "OutOfpods", "-e"),
        (pod(phase="Failed", reason="DeadlineExceeded", message="too long"), "DeadlineExceeded", "describe"),
        (pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                          "message": "0/2 nodes are available: 2 Insufficient memory."}]), "Insufficient memory", "resources"),
        ({**pod(), "metadata": {"name": "agent-x", "deletionTimestamp": "now"}}, "deleted by somebody", "describe"),
    ],
)  # fmt: skip
def test_it_will_never_be(item: dict[str, Any], cause: str, cure: str) -> None:
    with pytest.raises(ClusterError) as caught:
        verdict.started(item, "agent")
    assert cause in caught.value.cause
    assert cure in caught.value.cure


def event(reason: str, message: str, kind: str = "Warning", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": at}


@pytest.mark.parametrize(
    "found, cause, cure",
    [
        (event("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted:latest": hostPID'), "hostPID", "ephemeral"),
        (event("FailedCreate", 'pods "x" is forbidden: exceeded quota: small, requested: cpu=1'), "exceeded quota", "quota"),
        (event("FailedScheduling", "0/2 nodes are available"), "0/2 nodes", "room"),
        (event("OutOfpods", "Node didn't have enough resource"), "OutOfpods", "room"),
    ],
)
def test_events_that_say_it_is_over(found: dict[str, Any], cause: str, cure: str) -> None:
    with pytest.raises(ClusterError) as caught:
        verdict.told([event("Pulled", "fine", "Normal"), found])
    assert cause in caught.value.cause
    assert cure in caught.value.cure


def test_other_warnings_are_told_and_waited_for() -> None:
    events = [event("FailedMount", "MountVolume.SetUp failed for volume x")]
    verdict.told(events)
    assert "MountVolume" in verdict.doing(pod(), events)
    assert verdict.doing(pod(), [event("Pulling", 'Pulling image "python"', "Normal")]) == 'Pulling image "python"'
    assert "pod to be made" in verdict.doing(None)


def test_a_node_that_starts_no_pods() -> None:
    assert verdict.node_trouble({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}) == ""
    gone = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "no word"}]}}
    assert verdict.node_trouble(gone) == "NodeStatusUnknown: no word"
