"""On which line of a file each key stands; read only when there is something wrong with it."""

from __future__ import annotations

import re
from typing import Any

_TABLE = re.compile(r"\s*\[\[?\s*([\w.\-\"]+)\s*\]\]?")
_PAIR = re.compile(r"\s*([\w.\-\"]+)\s*=")


def lines(suffix: str, text: str) -> dict[str, int]:
    """Dotted key (`a.b[0].c`) -> line, from 1. Empty for a text that can't be read."""
    if suffix == ".toml":
        return _toml(text)
    import yaml

    try:
        # JSON is YAML but for tabs, and those don't move lines.
        root = yaml.compose(text.replace("\t", " ") if suffix == ".json" else text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    found: dict[str, int] = {}
    _walk(root, "", found)
    return found


def line_of(key: str, found: dict[str, int]) -> int | None:
    """The key's, or that of the section above it where a short form stands for both."""
    while key and key not in found:
        key = key.rpartition(".")[0]
    return found.get(key)


def _walk(node: Any, path: str, found: dict[str, int]) -> None:
    if node is None:
        return
    if node.id == "mapping":
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            found[below] = key.start_mark.line + 1
            _walk(value, below, found)
    elif node.id == "sequence":
        for n, value in enumerate(node.value):
            found[f"{path}[{n}]"] = value.start_mark.line + 1
            _walk(value, f"{path}[{n}]", found)


def _toml(text: str) -> dict[str, int]:
    """By tables and pairs, a line each, as TOML is written; keys inside an inline table have the line of their pair."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.match(line):
            table = match[1].replace('"', "")
            found.setdefault(table, number)
        elif match := _PAIR.match(line):
            key = match[1].replace('"', "")
            path = f"{table}.{key}" if table else key
            found[path] = number
            for inner in re.findall(r"[{,]\s*([\w\-]+)\s*=", line):
                found.setdefault(f"{path}.{inner}", number)
    return found
