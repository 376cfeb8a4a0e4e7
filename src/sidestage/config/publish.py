"""The configuration for others: a JSON Schema for editors, and a page of the manual. Both follow from schema.py and words.py."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from sidestage.config import environment, words
from sidestage.config.check import leaves
from sidestage.config.forms import TARGET_KINDS
from sidestage.config.schema import MODE_SHORT, SHORT, Config


def json_schema() -> dict[str, Any]:
    """Draft 2020-12; takes what load() takes, but for null instead of a default."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sidestage",
        "description": "What a local program is plugged into, and how.",
        **_object(Config, ""),
    }


def _object(kind: Any, path: str) -> dict[str, Any]:
    properties = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        below = f"{path}.{field.name}" if path else field.name
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            properties[field.name] = _section(hint, below)
        else:
            properties[field.name] = {"description": words.KEYS[below], **_value(hint), "default": _default(field)}
    if not path:
        properties["$schema"] = {"type": "string"}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _section(hint: Any, path: str) -> dict[str, Any]:
    """An object, and the short forms that may stand for it."""
    forms = [_object(hint, path)]
    if path in SHORT:
        forms.append({"type": "boolean"})
    if path in MODE_SHORT:
        forms.append(_value(typing.get_type_hints(hint)["mode"]))
    if path == "target":
        forms.append({"type": "string"})
        forms.append({"type": "object", "properties": {kind: {"type": ["string", "object"]} for kind in TARGET_KINDS}})
    shape = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return {"description": words.SECTIONS[path], **shape}


def _value(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = _value(next(arg for arg in args if arg is not type(None)))
        return {"anyOf": [inner, {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is dict:
        return {"type": "object", "additionalProperties": {} if args[1] is Any else {"type": ["string", "number", "boolean"]}}
    if origin is tuple and args[-1] is Ellipsis:
        several = {"type": "array", "items": _value(args[0])}
        return {"anyOf": [several, {"type": "string"}]} if several["items"] == {"type": "string"} else several
    if origin is tuple:
        return {"type": "array", "prefixItems": [_value(arg) for arg in args], "minItems": len(args), "maxItems": len(args)}
    if issubclass(hint, str):
        return {"type": "string"}
    return {"type": {bool: "boolean", int: "integer", float: "number"}[hint]}


def _default(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return list(field.default) if isinstance(field.default, tuple) else field.default


def reference() -> str:
    """The page: a table a section."""
    lines = [
        "# Configuration",
        "",
        "The file is `.sidestage/sidestage.json`, `.toml` or `.yaml`, or what `-f` names; else `.mirrord/mirrord.json` is read.",
        "No key is required, unknown ones are errors. A key is set, in this order, by its flag (`sidestage exec --help`), by its",
        "environment variable, by the file, by its default. Lists in variables are separated by `;`, pairs of ports are `8080:80`,",
        "maps are JSON. A file may be a template: `{{ get_env(name=\"USER\") }}`, `{{ key }}`, `{{ git_branch }}`.",
        "`null` stands for the default. Regular expressions are Python's, with `(?<name>...)` as in Rust and JavaScript too.",
        "",
        "`sidestage verify-config FILE` checks a file and shows it with all defaults, `--schema` prints the JSON Schema;",
        "`sidestage migrate` writes our file from mirrord's.",
    ]  # fmt: skip
    section = None
    defaults = dict(_defaults(Config(), ""))
    for path, hint in leaves(Config):
        above = path.rpartition(".")[0]
        if above != section:
            section = above
            lines += ["", f"## {above or 'At the top'}", ""]
            if above in words.SECTIONS:
                lines += [words.SECTIONS[above], ""]
            lines += ["| key | what it is | default | variable |", "|---|---|---|---|"]
        default = defaults[path]
        shown = "" if default in ("", (), {}, None) else f"`{json.dumps(default)}`"
        choices = f" One of {', '.join(f'`{arg}`' for arg in get_args(hint))}." if get_origin(hint) is Literal else ""
        text = (words.KEYS[path] + choices).replace("|", "\\|")
        lines.append(f"| `{path.rpartition('.')[2]}` | {text} | {shown} | `{environment.name(path)}` |")
    return "\n".join(lines) + "\n"


def _defaults(value: Any, path: str) -> Any:
    for field in dataclasses.fields(value):
        below = f"{path}.{field.name}" if path else field.name
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from _defaults(inner, below)
        else:
            yield below, inner
