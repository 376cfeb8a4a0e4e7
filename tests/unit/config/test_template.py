"""Files that are templates: mirrord's words, the session's key, the branch; and nothing that runs code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sidestage.config import ConfigError, load


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def target(text: str, key: str | None = None, **environ: str) -> str:
    Path("c.json").write_text(json.dumps({"target": "process/1", "feature": {"env": {"override": {"A": "@"}}}}).replace("@", text))
    return load("c.json", {"key": key} if key else {}, environ).feature.env.override["A"]


@pytest.mark.parametrize(
    "text, value",
    [
        ("{{ get_env(name='X') }}", "x y"),
        ("{{ get_env(name='NONE', default='d') }}", "d"),
        ("{{ get_env(name='X') | upper }}", "X Y"),
        ("{{ get_env(name='X') | replace(from=' ', to='-') }}", "x-y"),
        ("{{ get_env(name='X') | slugify }}", "x-y"),
        ("{{ missing | default(value='z') }}", "z"),
        ("{% if get_env(name='X') == 'x y' %}yes{% else %}no{% endif %}", "yes"),
        ("{{ key }}", "mine"),
    ],
)
def test_words(text: str, value: str) -> None:
    assert target(text, "mine", X="x y") == value


def test_the_files_own_key_is_used() -> None:
    Path("c.json").write_text('{"key": "{{ get_env(name=\'WHO\') }}-1", "feature": {"env": {"override": {"A": "{{ key }}"}}}}')
    found = load("c.json", {}, {"WHO": "ann"})
    assert (found.key, found.feature.env.override["A"]) == ("ann-1", "ann-1")


def test_without_a_key_there_is_a_random_one() -> None:
    assert target("{{ key }}") != target("{{ key }}")


def test_the_branch() -> None:
    subprocess.run(["git", "init", "-q", "-b", "feat/x"], check=True)
    assert target("{{ git_branch }}") == "feat/x"


@pytest.mark.parametrize(
    "text, said",
    [
        ("{{ get_env(name='NONE') }}", "NONE"),
        ("{{ nothing }}", "nothing"),
        ("{{ git_branch }}", "git_branch"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% if %}", "template"),
        ("{{ cycler }}", "cycler"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        target(text)
