"""The Role in docs/kubernetes.md is enough for every kind of target and every mode, and no verb of it is for nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidestage.cluster.kinds import KINDS
from sidestage.cluster.permissions import Need, needs

TEXT = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
MODES = ("job", "ephemeral", "in-container")


def granted() -> set[tuple[str, str, str]]:
    """(group, resource, verb)"""
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "kind: Role" in block]
    rules: list[dict[str, Any]] = yaml.safe_load(block)["rules"]
    return {
        (group, resource, verb)
        for rule in rules for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }  # fmt: skip


def right(need: Need) -> tuple[str, str, str]:
    return need.group, need.resource, need.verb


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [*KINDS, "label"])
def test_it_is_enough(kind: str, mode: str) -> None:
    assert {right(need) for need in needs(kind, mode, "staging")} <= granted()


def test_nothing_in_it_is_for_nothing() -> None:
    used = {right(need) for mode in MODES for kind in (*KINDS, "label") for need in needs(kind, mode, "staging")}
    listed = {(kind.group, kind.plural, "list") for kind in KINDS.values()}  # by `sidestage ls`
    assert granted() <= used | listed
