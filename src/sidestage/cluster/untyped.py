"""YAML (and so JSON) as a tree of dicts, lists and texts: a name such as `no` or `1e3` remains one; who reads it knows the types.

Built from the parser's events: PyYAML's own composer recurses in C without a bound, and a deep file would end the process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 64  # a kubeconfig has 5 levels, and extensions are anybody's


def read(content: bytes) -> Any:
    """The first document; None if there is none. Raises ValueError."""
    if content.lstrip()[:1] == b"{":
        try:
            return json.loads(content)
        except RecursionError:
            raise ValueError("it nests too deeply") from None
        except ValueError:
            pass  # YAML's flow style
    import yaml  # 20 ms, needed by nothing else of a run

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # ten times faster with libyaml
    try:
        events = iter(yaml.parse(content, loader))
        anchors: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                return _value(next(events), events, anchors, 0)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    return None


def _value(event: Any, events: Iterator[Any], anchors: dict[str, Any], depth: int) -> Any:
    import yaml

    if depth > MAX_DEPTH:
        raise ValueError("it nests too deeply")
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise ValueError(f"nothing is anchored as {event.anchor!r}")
        return anchors[event.anchor]
    if isinstance(event, yaml.ScalarEvent):
        found: Any = event.value
    elif isinstance(event, yaml.SequenceStartEvent):
        found = []
        while not isinstance(each := next(events), yaml.SequenceEndEvent):
            found.append(_value(each, events, anchors, depth + 1))
    else:
        found = {}
        while not isinstance(each := next(events), yaml.MappingEndEvent):
            key = _value(each, events, anchors, depth + 1)
            if not isinstance(key, str):
                raise ValueError("a key is not a text")
            found[key] = _value(next(events), events, anchors, depth + 1)
    if event.anchor:
        anchors[event.anchor] = found
    return found
