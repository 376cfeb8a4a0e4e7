"""Globs, and changes that have come to rest."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sidestage.up.watch import Watch, translate


@pytest.mark.parametrize("glob, yes, no", [
    ("*.py", ["a.py"], ["a.pyc", "b/a.py"]), ("**/*.py", ["a.py", "b/a.py", "b/c/a.py"], ["a.txt"]),
    ("src/**", ["src/a", "src/b/c"], ["srca", "a"]), ("./a?.[x]", ["ab.[x]"], ["a/.[x]", "ab.x"]),
])  # fmt: skip
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    pattern = re.compile(translate(glob))
    assert [path for path in (*yes, *no) if pattern.fullmatch(path)] == yes


def test_a_change_is_told_when_it_rests(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "node_modules").mkdir()
    file = tmp_path / "sub" / "a.py"
    file.write_text("1")
    watch = Watch(str(tmp_path), ["**/*.py"])
    assert watch.look() is None
    (tmp_path / "b.txt").write_text("of no interest")
    (tmp_path / "node_modules" / "c.py").write_text("nor this")
    assert [watch.look(), watch.look()] == [None, None]
    file.write_text("22")
    assert watch.look() is None
    file.write_text("333")
    assert watch.look() is None
    assert [watch.look(), watch.look()] == ["sub/a.py", None]
    os.unlink(file)
    assert [watch.look(), watch.look(), watch.look()] == [None, "sub/a.py", None]
