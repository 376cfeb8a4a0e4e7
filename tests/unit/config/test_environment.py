"""Every key has an environment variable, and its value is what the file would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidestage.config import Config, ConfigError, load
from sidestage.config.check import leaves
from sidestage.config.environment import name


def test_no_two_keys_share_a_variable() -> None:
    paths = [path for path, _ in leaves(Config)]
    assert len({name(path) for path in paths}) == len(paths)


@pytest.mark.parametrize(
    "variable, text, key, value",
    [
        ("SIDESTAGE_FEATURE_FS_MODE", "local", "feature.fs.mode", "local"),
        ("SIDESTAGE_FEATURE_HOSTNAME", "false", "feature.hostname", False),
        ("SIDESTAGE_FEATURE_ENV_EXCLUDE", "A;B*", "feature.env.exclude", ("A", "B*")),
        ("SIDESTAGE_FEATURE_NETWORK_INCOMING_PORTS", "80;443", "feature.network.incoming.ports", (80, 443)),
        ("SIDESTAGE_FEATURE_NETWORK_INCOMING_PORT_MAPPING", "1:2;3:4", "feature.network.incoming.port_mapping", ((1, 2), (3, 4))),
        ("SIDESTAGE_FEATURE_ENV_OVERRIDE", '{"A": "1"}', "feature.env.override", {"A": "1"}),
        ("SIDESTAGE_AGENT_SILENCE", "12.5", "agent.silence", 12.5),
        ("SIDESTAGE_KEY", "mine", "key", "mine"),
    ],
)
def test_values(variable: str, text: str, key: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: Any = load(None, {}, {variable: text})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    "variable, text, said",
    [
        ("SIDESTAGE_FEATURE_HOSTNAME", "maybe", "true or false"),
        ("SIDESTAGE_FEATURE_FS_MODE", "loacl", "'local'"),
        ("SIDESTAGE_FEATURE_NETWORK_INCOMING_PORTS", "http", "whole number"),
        ("SIDESTAGE_FEATURE_ENV_OVERRIDE", "A=1", "names"),
        ("SIDESTAGE_AGENT_SILENCE", "1.2.3", "a number"),
    ],
)
def test_wrong_values_are_named(variable: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        load(None, {}, {variable: text})


def test_a_misspelt_variable_is_told_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    assert load(None, {}, {"SIDESTAGE_FEATURE_FS_MODES": "local", "SIDESTAGE_CACHE": "/x"}, told.append) == Config()
    (only,) = told
    assert "SIDESTAGE_FEATURE_FS_MODE?" in only


def test_flag_over_variable_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text(json.dumps({"feature": {"fs": "local", "hostname": False}}))
    found = load("c.json", {"feature.fs.mode": "read"}, {"SIDESTAGE_FEATURE_FS_MODE": "localwithoverrides"})
    assert (found.feature.fs.mode, found.feature.hostname) == ("read", False)
