"""The environment the program gets."""

from __future__ import annotations

import pytest

from sidestage.views.env import EnvRules, compose, parse, parse_env_file, taken


def test_parse_keeps_values_with_equals_and_newlines_and_drops_what_is_no_variable() -> None:
    raw = b"A=1\0B=x=y\nz\0=odd\0novalue\0C=\0BASH_FUNC_x%%=() { evil; }\0"
    assert parse(raw) == {"A": "1", "B": "x=y\nz", "C": ""}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "NODE_OPTIONS", "BASH_ENV", "GIT_SSH_COMMAND", "PYTHONSTARTUP", "PATH"])
def test_what_runs_code_here_is_only_taken_by_its_exact_name(name: str) -> None:
    assert not taken(name, EnvRules())
    assert not taken(name, EnvRules(include=("*",)))
    assert taken(name, EnvRules(include=(name,)))


def test_include_and_exclude_are_wildcards() -> None:
    assert taken("DB_HOST", EnvRules(include=("DB_*",)))
    assert not taken("API_KEY", EnvRules(include=("DB_*",)))
    assert not taken("API_KEY", EnvRules(exclude=("*_KEY",)))
    assert not taken("DB_HOST", EnvRules(enabled=False))


def test_order_remote_then_file_then_mapping_then_override_then_unset() -> None:
    rules = EnvRules(
        from_file={"B": "file", "C": "file"},
        mapping=(("^C$", "mapped"), ("^[CD]$", "second")),
        override={"E": "forced"},
        unset=("aws_profile",),
    )
    got = compose(
        {"HOME": "/home/me", "A": "local", "AWS_PROFILE": "me"},
        {"A": "remote", "B": "remote", "C": "remote", "D": "remote", "E": "remote", "HOME": "/"},
        rules,
    )
    assert got == {"HOME": "/home/me", "A": "remote", "B": "file", "C": "mapped", "D": "second", "E": "forced"}


def test_env_file() -> None:
    text = "# note\nexport A=1\nB = 'x y' \nC=\"#no\"\nD=v # why\nbad line\n=x\n"
    assert parse_env_file(text) == {"A": "1", "B": "x y", "C": "#no", "D": "v"}


def test_what_is_hidden_is_this_machines_only() -> None:
    rules = EnvRules(hidden=("AWS_PROFILE", "AWS_TOKEN"))
    assert compose({"AWS_PROFILE": "mine", "AWS_TOKEN": "mine", "A": "1"}, {"AWS_PROFILE": "pods"}, rules) == {
        "AWS_PROFILE": "pods",
        "A": "1",
    }
