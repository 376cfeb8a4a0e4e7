"""Environment variables: every key has one, SIDESTAGE_ and the key's path in capitals, as SIDESTAGE_FEATURE_FS_MODE.

SIDESTAGE_TARGET stands for SIDESTAGE_TARGET_PATH. Lists are separated by `;`, pairs of ports written 8080:80, maps as JSON
objects, booleans as true or false.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from sidestage.config.check import leaves
from sidestage.config.schema import Config

PREFIX = "SIDESTAGE_"
# Only below these is a variable without a key taken for a misspelt one: others may be anybody's.
_SECTIONS = ("FEATURE_", "AGENT_", "SKIP_", "TARGET")


def name(path: str) -> str:
    """The variable of a dotted key."""
    return PREFIX + path.upper().replace(".", "_")


def overrides(environ: Mapping[str, str], say: Callable[[str], None]) -> dict[str, Any]:
    """Dotted keys and values of the variables that are set; `say` hears of misspelt ones."""
    ours = [variable for variable in environ if variable.startswith(PREFIX)]
    if not ours:
        return {}
    known = {name(path): (path, hint) for path, hint in leaves(Config)}
    known[f"{PREFIX}TARGET"] = known[name("target.path")]
    found: dict[str, Any] = {}
    for variable in ours:
        if variable in known:
            path, hint = known[variable]
            found[path] = _value(hint, environ[variable])
        elif variable.removeprefix(PREFIX).startswith(_SECTIONS):
            import difflib  # only for a message

            near = difflib.get_close_matches(variable, known, 1, 0.6)
            say(f"{variable} is no key's variable and has no effect" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def _value(hint: Any, text: str) -> Any:
    """As the file would give it; what doesn't fit is left as text, and the schema's check says so."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _value(next(arg for arg in args if arg is not type(None)), text)
    if hint is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if hint is int:
        return int(text) if text.isdecimal() else text
    if hint is float:
        return float(text) if text.replace(".", "", 1).isdecimal() else text
    if origin is tuple and args[-1] is Ellipsis:
        return [_value(args[0], part) for part in text.split(";") if part]
    if origin is tuple:
        return [_value(int, part) for part in text.split(":")]
    if hint is str or origin not in (dict, list):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
