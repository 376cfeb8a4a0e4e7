"""From plain values to the schema's dataclasses, by small readers that say what they wanted.

A reader takes one value and returns it in its final form or raises `Bad`. A section is a dataclass whose fields carry their
reader in `metadata`; `expand` first turns its short forms (`fs: read`) into the long one, so that layers can be merged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from typing import Any, TypeVar

from sidestage.config.errors import Problem

T = TypeVar("T")
Report = Callable[[Problem], None]
Tree = dict[str, Any]


class Bad(ValueError):
    def __init__(self, cause: str, cure: str = "") -> None:
        super().__init__(cause)
        self.cause, self.cure = cause, cure


def key(read: Callable[[Any], Any], default: Any) -> Any:
    """A field that is read by `read`; a dict as default stands for a new one each time."""
    metadata = {"read": read}
    return field(default_factory=dict, metadata=metadata) if default == {} else field(default=default, metadata=metadata)


def section(kind: type) -> Any:
    return field(default=kind(), metadata={"section": kind})


def flag(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no"):
        return value.lower() in ("true", "1", "yes")  # from the environment
    if not isinstance(value, bool):
        raise Bad(f"wants true or false, not {value!r}")
    return value


def text(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise Bad(f"wants a text, not {value!r}")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """One or a list; in one text, `;` separates."""
    if value is None:
        return ()
    items = [item for item in value.split(";") if item] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise Bad(f"wants a text or a list of texts, not {value!r}")
    return tuple(items)


def regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise Bad(f"{value!r} is not a regular expression: {error}") from None
    return value


def regexes(value: Any) -> tuple[str, ...]:
    """As `texts`, but `;` is left alone: it may be meant."""
    return tuple(regex(item) for item in texts([value] if isinstance(value, str) else value))


def table(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Bad(f"wants a table of names and texts, not {value!r}")
    for name, item in value.items():
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise Bad(f"wants a text for {name!r}, not {item!r}", "put it in quotes")
    return {str(name): str(item) for name, item in value.items()}


def regex_table(value: Any) -> dict[str, str]:
    return {regex(name): item for name, item in table(value).items()}


def port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise Bad(f"wants a port from 1 to 65535, not {value!r}")
    return value


def ports(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise Bad(f"wants a list of ports, not {value!r}")
    return tuple(sorted({port(item) for item in value}))


def port_pairs(value: Any) -> dict[int, int]:
    """[[from, to], ...], each side at most once."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise Bad(f"wants a list of pairs such as [[8080, 80]], not {value!r}")
    pairs = {port(left): port(right) for left, right in value}
    if len(pairs) < len(value) or len(set(pairs.values())) < len(value):
        raise Bad("has one port twice on the same side of its pairs")
    return pairs


def choice(*allowed: str, not_yet: Mapping[str, str] | None = None) -> Callable[[Any], str]:
    """`not_yet`: values that exist elsewhere, with what to do until they exist here."""

    def read(value: Any) -> str:
        if value is False and "off" in allowed:
            value = "off"  # YAML 1.1 reads a bare off as false
        if isinstance(value, str) and value in (not_yet or {}):
            raise Bad(f"{value!r} is not supported yet", (not_yet or {})[value])
        if value not in allowed:
            raise Bad(f"wants {' or '.join(allowed)}, not {value!r}", _nearest(value, allowed))
        return str(value)

    return read


def expand(kind: type, value: Any) -> Any:
    """The long form of a section's value, as a new tree; what can't be expanded is left for `build` to refuse."""
    short = getattr(kind, "short", None)
    if short and not isinstance(value, dict):
        value = short(value)
    if not isinstance(value, dict):
        return value
    nested = {f.name: f.metadata["section"] for f in fields(kind) if "section" in f.metadata}
    return {name: expand(nested[name], item) if name in nested else item for name, item in value.items()}


def build(kind: type[T], tree: Any, path: str, report: Report, root: type) -> T:
    """The section `kind` out of its expanded tree; whatever is wrong goes to `report` and leaves the default."""
    if tree is None:
        return kind()
    if not isinstance(tree, dict):
        report(Problem(path, f"wants a table of keys, not {tree!r}"))
        return kind()
    known = {f.name: f.metadata for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    found: Tree = {}
    for name, value in tree.items():
        where = f"{path}.{name}" if path else str(name)
        metadata = known.get(str(name))
        if metadata is None:
            report(_unknown(kind, str(name), where, root))
        elif "section" in metadata:
            found[name] = build(metadata["section"], value, where, report, root)
        else:
            try:
                found[name] = metadata["read"](value)
            except Bad as bad:
                report(Problem(where, bad.cause, bad.cure))
    made = kind(**found)
    for cause, cure in getattr(made, "conflicts", tuple)():
        report(Problem(path, cause, cure))
    return made


def _unknown(kind: type, name: str, where: str, root: type) -> Problem:
    later = getattr(kind, "NOT_YET", ())
    if name in later:
        return Problem(where, "is not supported yet", "leave it out")
    near = _nearest(name, [f.name for f in fields(kind)])
    if not near:
        elsewhere = [path for path in paths(root) if path.rpartition(".")[2] == name]
        near = f"did you mean {elsewhere[0]!r}?" if elsewhere else ""
    return Problem(where, "unknown key", near or f"known here: {', '.join(f.name for f in fields(kind))}")


def _nearest(word: object, words: list[str] | tuple[str, ...]) -> str:
    import difflib  # 3 ms, and only when something is wrong

    near = difflib.get_close_matches(str(word).lower(), words, 1, 0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def paths(kind: type, prefix: str = "") -> list[str]:
    """Every dotted key below `kind`."""
    found = []
    for f in fields(kind):
        found.append(prefix + f.name)
        if "section" in f.metadata:
            found += paths(f.metadata["section"], f"{prefix}{f.name}.")
    return found
