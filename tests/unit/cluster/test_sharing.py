"""Who may share an agent's Job, and with which rights."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from sidestage.cluster import sharing
from sidestage.cluster.plan import Plan
from sidestage.cluster.pods import PodTarget
from sidestage.cluster.sharing import Access, Want
from sidestage.config.schema import Agent
from sidestage.targets.spec import TargetSpec

AGENT = Agent(image="python:3", tolerations=({"operator": "Exists"},), labels={"a": "b"}, image_pull_secrets=("one",))
WANT = Want(Access("", "", "shop", None, False), "shop", "node1", AGENT, frozenset({"files"}), "shop/pod/a", "pod", "s1")


def other(**changed: Any) -> Want:
    return dataclasses.replace(WANT, **changed)


@pytest.mark.parametrize(
    "changed, alike",
    [
        ({}, True),
        ({"session": "s2", "target": "shop/pod/b", "kind": "deployment", "features": frozenset({"steal"})}, True),
        ({"access": Access("", "", "", None, False)}, True),  # the namespace that is told is where targets are looked for
        ({"agent": dataclasses.replace(AGENT, heartbeat=1.0, silence=9.0, startup_timeout=5)}, True),
        ({"node": "node2"}, False),
        ({"namespace": "other"}, False),
        ({"access": Access("", "prod", "shop", None, False)}, False),
        ({"access": Access("/k", "", "shop", None, False)}, False),
        ({"agent": dataclasses.replace(AGENT, privileged=True)}, False),
        ({"agent": dataclasses.replace(AGENT, image="")}, False),
        ({"agent": dataclasses.replace(AGENT, disabled_capabilities=("NET_ADMIN",))}, False),
    ],
)
def test_who_is_alike(changed: dict[str, Any], alike: bool) -> None:
    assert WANT.alike(other(**changed)) is alike
    assert sharing.fits(other(**changed | {"features": WANT.features}), WANT) is alike


@pytest.mark.parametrize("needs, fits", [({"files"}, True), (set(), True), ({"files", "steal"}, False), ({"mirror"}, False)])
def test_a_job_fits_when_it_has_all_rights(needs: set[str], fits: bool) -> None:
    assert sharing.fits(other(features=frozenset(needs)), WANT) is fits


def test_together_they_have_the_rights_of_those_on_the_node_and_no_others() -> None:
    planned = [
        WANT, other(features=frozenset({"mirror"}), target="shop/pod/b"), other(features=frozenset({"steal"}), node="node2"),
        other(features=frozenset({"unix"}), namespace="other"),
    ]  # fmt: skip
    whole = WANT.together(planned)
    assert whole.features == {"files", "mirror"}
    assert whole.target == "shop/pod/a, shop/pod/b"
    assert sharing.shares(WANT, planned) == 2
    assert sharing.shares(other(node="node9"), planned) == 1


def test_a_want_arrives_as_it_was_sent() -> None:
    assert sharing.decode(sharing.encode(WANT)) == WANT


@pytest.mark.parametrize("data", [b"", b"[]", b'{"agent": {"imag": "x"}, "features": [], "access": []}', b'{"node": "n"}'])
def test_what_is_no_want_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        sharing.decode(data)


def test_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/dev")
    plan = Plan(TargetSpec("deployment", "orders", namespace="shop"), "s1", Agent(namespace="agents"), frozenset(), "~/a:b")
    found = sharing.want(plan, PodTarget("shop", "orders-1", "u", "node1", "app", "containerd://x", {}))
    assert found.access.kubeconfig == f"/home/dev/a:{os.getcwd()}/b"
    assert (found.namespace, found.node, found.target) == ("agents", "node1", "shop/pod/orders-1/container/app")
