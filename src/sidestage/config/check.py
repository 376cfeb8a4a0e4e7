"""Checks a tree of plain values against the schema's annotations: all problems at once, each with the nearest right word."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from sidestage.config.forms import OTHER_FORMS, TARGET_KINDS
from sidestage.config.schema import MODE_SHORT, SHORT
from sidestage.config.texts import readable


def long_form(path: str, value: Any) -> Any:
    """A short form written out."""
    if isinstance(value, bool) and path in SHORT:
        return SHORT[path][value]
    if isinstance(value, str) and path in MODE_SHORT:
        return {"mode": value}
    return OTHER_FORMS[path](value) if path in OTHER_FORMS else value


def build(kind: type, tree: Any, path: str, problems: list[str]) -> Any:
    tree = long_form(path, tree)
    if tree is None:  # as a YAML file has it whose lines below are commented out
        return kind()
    if not isinstance(tree, dict):
        problems.append(f"{path}: must be an object of keys, not {tree!r}")
        return None
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        below = f"{path}.{key}" if path else str(key)
        if key not in hints:
            import difflib  # only for a message

            near = difflib.get_close_matches(str(key), [*hints, *(TARGET_KINDS if path == "target" else ())], 1, 0.5)
            problems.append(f"{below}: unknown key" + (f", did you mean {near[0]!r}?" if near else ""))
        elif value is not None:  # null is the default
            values[key] = _value(hints[key], value, below, problems)
    return None if problems else kind(**values)


def _value(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type", hint), value, path, problems)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _value(next(arg for arg in args if arg is not type(None)), value, path, problems)
    if origin is Literal:
        if not isinstance(value, bool) and str(value) in args:  # YAML reads 502 as a number
            return str(value)
        import difflib  # only for a message

        near = difflib.get_close_matches(str(value), args, 1, 0.5)
        problems.append(f"{path}: {value!r} is none of {', '.join(args)}" + (f"; did you mean {near[0]!r}?" if near else ""))
    elif origin is dict and args[1] is Any:  # Kubernetes checks it
        if isinstance(value, dict):
            return value
        problems.append(f"{path}: must be an object, not {value!r}")
    elif origin is dict:
        if isinstance(value, dict) and all(isinstance(item, str | int | float) for item in value.values()):
            return {_value(args[0], str(key), path, problems): str(item) for key, item in value.items()}
        problems.append(f"{path}: must map names to texts")
    elif origin is tuple:
        return _list(args, value, path, problems)
    elif isinstance(value, str) and issubclass(hint, str):
        try:
            return value if hint is str else readable(hint, value)
        except ValueError as error:
            problems.append(f"{path}: {error}")
    elif hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif hint is not float and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
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
    if isinstance(value, str) and isinstance(item, type) and issubclass(item, str):
        value = value.split(";")
    if not isinstance(value, list):
        problems.append(f"{path}: must be a list, not {value!r}")
        return None
    return tuple(_value(item, part, f"{path}[{n}]", problems) for n, part in enumerate(value))


def _said(hint: Any) -> str:
    if issubclass(hint, str):
        return "a text"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))


def leaves(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that has a value of its own, dotted, with its annotation."""
    for key, hint in typing.get_type_hints(kind).items():
        below = f"{path}.{key}" if path else key
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, below)
        else:
            yield below, hint
