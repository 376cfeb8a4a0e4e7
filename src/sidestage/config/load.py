"""Finds, reads and checks the configuration; all errors at once, each with file, key and the nearest right word.

Precedence: flag, then environment (SIDESTAGE_TARGET, SIDESTAGE_CONFIG_FILE), then file, then default.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from sidestage.config.schema import MODE_SHORT, NOT_YET, SHORT, Config

FOLDER = ".sidestage"
NAMES = ("sidestage.json", "sidestage.toml", "sidestage.yaml", "sidestage.yml")


class ConfigError(Exception):
    """`problems` is a list of lines, each naming key, cause and cure."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__(f"{source}: " + "; ".join(problems))
        self.source, self.problems = source, problems


def load(path: str | None, overrides: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in force; `overrides` maps dotted keys to values. Raises ConfigError."""
    file = _find(path or environ.get("SIDESTAGE_CONFIG_FILE"))
    tree = _read(file) if file else {}
    source = str(file) if file else "flags"
    if environ.get("SIDESTAGE_TARGET"):
        tree["target"] = environ["SIDESTAGE_TARGET"]
    for key, value in overrides.items():
        _set(tree, key.split("."), value)
    problems: list[str] = []
    config = _build(Config, tree, "", problems)
    problems += [] if problems else _contradictions(config)
    if problems:
        raise ConfigError(source, problems)
    return typing.cast("Config", config)


def _find(path: str | None) -> Path | None:
    if path:
        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigError(path, ["no such file"])
        return file
    found = [file for name in NAMES if (file := Path(FOLDER, name)).is_file()]
    if len(found) > 1:
        raise ConfigError(FOLDER, [f"{' and '.join(file.name for file in found)}: keep one, or choose with -f"])
    return found[0] if found else None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), [f"can't be read: {error}"]) from error
    try:
        tree = _parse(file.suffix, text)
    except ValueError as error:
        raise ConfigError(str(file), [" ".join(str(error).split())]) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(str(file), ["must be an object of keys"])
    return tree


def _parse(suffix: str, text: str) -> Any:
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    return json.loads(text)


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1], 1):
        below = _long(".".join(keys[:depth]), tree.get(key, {}))
        tree[key] = tree = dict(below) if isinstance(below, dict) else {}
    tree[keys[-1]] = value


def _long(path: str, value: Any) -> Any:
    """A short form written out."""
    if isinstance(value, bool) and path in SHORT:
        return SHORT[path][value]
    if isinstance(value, str) and path in MODE_SHORT:
        return {"mode": value}
    return value


def _build(kind: type, tree: Any, path: str, problems: list[str]) -> Any:
    tree = _long(path, tree)
    if not isinstance(tree, dict):
        problems.append(f"{path}: must be an object of keys, not {tree!r}")
        return None
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        below = f"{path}.{key}" if path else str(key)
        if below in NOT_YET:
            problems.append(f"{below}: {NOT_YET[below]}")
        elif key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1, 0.5)
            problems.append(f"{below}: unknown key" + (f", did you mean {near[0]!r}?" if near else ""))
        else:
            values[key] = _value(hints[key], value, below, problems)
    return None if problems else kind(**values)


def _value(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type", hint), value, path, problems)
    if isinstance(value, str) and f"{path}={value}" in NOT_YET:
        problems.append(f"{path}: {NOT_YET[f'{path}={value}']}")
        return None
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _value(next(arg for arg in args if arg is not type(None)), value, path, problems)
    if origin is Literal:
        if value in args:
            return value
        near = difflib.get_close_matches(str(value), args, 1, 0.5)
        problems.append(f"{path}: {value!r} is none of {', '.join(args)}" + (f"; did you mean {near[0]!r}?" if near else ""))
    elif origin is dict:
        if isinstance(value, dict) and all(isinstance(item, str | int | float) for item in value.values()):
            return {str(key): str(item) for key, item in value.items()}
        problems.append(f"{path}: must map names to texts")
    elif origin is tuple:
        return _list(args, value, path, problems)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    else:
        problems.append(f"{path}: must be {_said(hint)}, not {value!r}")
    return None


def _list(args: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    item = args[0]
    if args[-1] is not Ellipsis:  # a pair
        if isinstance(value, list) and len(value) == len(args):
            return tuple(_value(kind, part, path, problems) for kind, part in zip(args, value, strict=True))
        problems.append(f"{path}: must be a pair of ports, like [8080, 80]")
        return None
    if isinstance(value, str) and item is str:
        value = value.split(";")
    if not isinstance(value, list):
        problems.append(f"{path}: must be a list, not {value!r}")
        return None
    return tuple(_value(item, part, f"{path}[{n}]", problems) for n, part in enumerate(value))


def _said(hint: Any) -> str:
    return {str: "a text", int: "a whole number", bool: "true or false"}.get(hint, str(hint))


def _contradictions(config: Any) -> list[str]:
    env, network = config.feature.env, config.feature.network
    found = []
    if env.include and env.exclude:
        found.append("feature.env: include and exclude exclude each other; keep one")
    if network.incoming.ports is not None and network.incoming.ignore_ports:
        found.append("feature.network.incoming: ports and ignore_ports exclude each other; keep one")
    if network.outgoing.filter.remote and network.outgoing.filter.local:
        found.append("feature.network.outgoing.filter: remote and local exclude each other; keep one")
    for name in ("port_mapping", "listen_ports"):
        for column in zip(*getattr(network.incoming, name), strict=True):
            if len(set(column)) != len(column):
                found += [f"feature.network.incoming.{name}: a port stands in it twice"]
    return found
