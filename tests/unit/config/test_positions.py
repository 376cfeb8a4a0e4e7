"""Errors name the line in each format."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidestage.config import ConfigError, load

JSON = '{\n\t"feature": {\n\t\t"fs": {"mod": "read"},\n\t\t"network": {\n\t\t\t"incoming": {"ports": [80,\n"x"]}}}}'
TOML = '[feature.fs]\nmod = "read"\n[feature.network]\nincoming = { ports = [80, "x"] }\n'
YAML = "feature:\n  fs:\n    mod: read\n  network:\n    incoming:\n      ports:\n      - 80\n      - x\n"


@pytest.mark.parametrize("name, text, want", [("c.json", JSON, [3, 6]), ("c.toml", TOML, [2, 4]), ("c.yaml", YAML, [3, 8])])
def test_each_format(name: str, text: str, want: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    with pytest.raises(ConfigError) as error:
        load(name, {}, {})
    heads = [line.split(": ")[0] for line in error.value.located()]
    assert heads == [f"{name}:{line}" for line in want]
