"""The grammar of targets."""

from __future__ import annotations

import pytest

from sidestage.targets.spec import TargetError, TargetSpec, parse


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("process/12", TargetSpec("process", "12")),
        ("container/db", TargetSpec("container", "db")),
        ("targetless", TargetSpec("targetless")),
    ],
)
def test_good(text: str, want: TargetSpec) -> None:
    assert parse(text) == want


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("proces/12", "'process'"),
        ("process", "process/PID"),
        ("deployment/orders", "process/PID"),
        ("targetless/x", "-t targetless"),
        ("", "process/PID"),
    ],
)
def test_bad_ones_name_the_cure(text: str, cure: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse(text)
    assert cure in caught.value.cure
