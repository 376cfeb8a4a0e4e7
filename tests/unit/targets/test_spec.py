"""The grammar of targets."""

from __future__ import annotations

import pytest

from sidestage.targets.spec import CLUSTER_KINDS, TargetError, TargetSpec, parse


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("process/12", TargetSpec("process", "12")),
        ("container/db", TargetSpec("container", "db")),
        ("targetless", TargetSpec("targetless")),
        ("pod/orders-6f7-x2", TargetSpec("pod", "orders-6f7-x2")),
        (" deployment/orders ", TargetSpec("deployment", "orders")),
        ("deployment/orders/container/app", TargetSpec("deployment", "orders", "app")),
        ("deploy/orders", TargetSpec("deployment", "orders")),
        ("statefulsets/db", TargetSpec("statefulset", "db")),
        ("label/app=orders", TargetSpec("label", "app=orders")),
        ("label/app.kubernetes.io/name=orders,tier=web", TargetSpec("label", "app.kubernetes.io/name=orders,tier=web")),
        ("label/app=orders/container/app", TargetSpec("label", "app=orders", "app")),
        ("label/canary", TargetSpec("label", "canary")),
        ("service/v1.orders", TargetSpec("service", "v1.orders")),
    ],
)
def test_good(text: str, want: TargetSpec) -> None:
    assert parse(text) == want


@pytest.mark.parametrize("kind", CLUSTER_KINDS)
def test_every_kind_of_the_cluster_is_read_back_as_it_is_written(kind: str) -> None:
    name = "app=x" if kind == "label" else "x"
    spec = parse(f"{kind}/{name}/container/c", "ns")
    assert spec == TargetSpec(kind, name, "c", "ns")
    assert parse(str(spec), "ns") == spec
    assert spec.in_cluster


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("proces/12", "'process'"),
        ("process", "process/PID"),
        ("deployement/orders", "'deployment'"),
        ("deployment", "deployment/NAME"),
        ("deployment/", "deployment/NAME"),
        ("deployment/Orders", "sidestage ls"),
        ("deployment/orders/app", "deployment/NAME/container/NAME"),
        ("pod/a/container", "pod/a/container/NAME"),
        ("pod/a/container/", "pod/a/container/NAME"),
        ("pod/../../secrets", "sidestage ls"),
        ("label/", "label/KEY=VALUE"),
        ("label/a=b c", "label/KEY=VALUE"),
        ("targetless/x", "-t targetless"),
        ("", "process/PID"),
    ],
)
def test_bad_ones_name_the_cure(text: str, cure: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse(text)
    assert cure in caught.value.cure
