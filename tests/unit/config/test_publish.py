"""What is published of the configuration is what is in force: every key described, the schema takes what load() takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sidestage.config import ConfigError, load, publish, words
from sidestage.config.check import leaves
from sidestage.config.schema import Config

ROOT = Path(__file__).parents[3]


def test_every_key_is_described_once() -> None:
    assert {path for path, _ in leaves(Config)} == words.KEYS.keys()
    sections = {path.rpartition(".")[0] for path in words.KEYS}
    sections |= {section.rpartition(".")[0] for section in sections}
    assert sections - {""} == words.SECTIONS.keys()


@pytest.mark.parametrize("name, text", [
    ("docs/configuration.md", publish.reference()),
    ("docs/sidestage.schema.json", json.dumps(publish.json_schema(), indent=1) + "\n"),
    ("extension/vscode/schema.json", json.dumps(publish.json_schema(), indent=1) + "\n"),
])  # fmt: skip
def test_the_published_files_are_of_today(name: str, text: str) -> None:
    assert (ROOT / name).read_text() == text, "./run docs writes them"


RIGHT: list[Any] = [
    {},
    {"target": "deployment/x"},
    {"target": {"path": "pod/x", "namespace": "n"}},
    {"target": {"deployment": "x", "container": "y"}},
    {"feature": {"fs": "local", "env": False, "network": {"incoming": "steal", "dns": False}}},
    {"feature": {"fs": {"mode": "read", "local": "/x"}, "diff": True}},
    {"feature": {"network": {"incoming": {"ports": [80], "port_mapping": [[8080, 80]]}}}},
    {"agent": {"labels": {"a": "b"}, "tolerations": None, "disabled_capabilities": ["NET_RAW"]}},
]
WRONG: list[Any] = [
    {"targt": "x"},
    {"feature": {"fs": "raed"}},
    {"feature": {"hostname": "yes"}},
    {"feature": {"network": {"incoming": {"port_mapping": [[1, 2, 3]]}}}},
    {"agent": {"mode": "jobs"}},
    [],
]


@pytest.mark.parametrize("tree", RIGHT, ids=str)
def test_what_is_right_is_right_for_both(tree: Any, tmp_path: Path) -> None:
    jsonschema.Draft202012Validator(publish.json_schema()).validate(tree)
    (tmp_path / "c.json").write_text(json.dumps(tree))
    load(str(tmp_path / "c.json"), {}, {})


@pytest.mark.parametrize("tree", WRONG, ids=str)
def test_what_is_wrong_is_wrong_for_both(tree: Any, tmp_path: Path) -> None:
    assert not jsonschema.Draft202012Validator(publish.json_schema()).is_valid(tree)
    (tmp_path / "c.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError):
        load(str(tmp_path / "c.json"), {}, {})


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(publish.json_schema())
