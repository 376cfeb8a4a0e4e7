"""The file of `sidestage up`: services, each plugged into a target of its own, and what they have in common.

Everything wrong is found at once, with file, line, service, key and the nearest right word, as in the configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sidestage.config import Config, ConfigError, positions
from sidestage.config.check import build, leaves, long_form

NAME = "sidestage-up.yaml"
MAX_SERVICES = 50
_SERVICE = re.compile(r"[A-Za-z0-9][\w.-]{0,40}")
_RESERVED = ("init",)
_TOP = ("default", "services")
TEMPLATE = """\
# sidestage up: several services of yours at once, each as if it ran in a pod of the cluster.
# `sidestage up` starts all, `sidestage up orders` one, `sidestage up --watch` starts a service again when its files change.

default:                       # for all services; each may say otherwise
  restart: never               # never | on-failure | always
  # config:                    # keys of the configuration, as in .sidestage/sidestage.yaml
  #   feature: {network: {incoming: mirror}}

services:
  orders:
    target: deployment/orders
    command: ./orders --port 8080
    # dir: services/orders     # where it runs; from this file's folder
    # env: {LOG_LEVEL: debug}  # over the target's
    # watch: ["**/*.py"]       # with --watch; from `dir`
  # web:
  #   target: deployment/web
  #   command: [npm, run, dev]
"""


@dataclass(frozen=True, slots=True)
class Service:
    """As it is written; only `command` is needed, and `target` where the configuration names none."""

    target: str = ""
    command: tuple[str, ...] = ()
    dir: str = ""
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    watch: tuple[str, ...] = ()
    restart: Literal["never", "on-failure", "always"] = "never"
    grace: float = 10.0  # seconds between SIGTERM and SIGKILL

    def overrides(self) -> dict[str, Any]:
        """Dotted key of the configuration -> value."""
        found = dict(_dotted(self.config))
        if self.target:
            found["target.path"] = self.target
        if self.env:
            found["feature.env.override"] = {**found.get("feature.env.override", {}), **self.env}
        return found


def load(path: Path) -> dict[str, Service]:
    """The services by name; raises ConfigError."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
        twice = _twice(yaml.compose(text, Loader=yaml.SafeLoader), "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"can't be read: {getattr(error, 'strerror', None) or error}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [" ".join(str(error).split())]) from error
    problems: list[str] = list(twice)
    found = parse(tree, path.parent, problems)
    if problems:
        lines = positions.lines(".yaml", text)
        raise ConfigError(str(path), problems, {problem: line for problem in problems if (line := _line(lines, problem))})
    return found


def parse(tree: Any, folder: Path, problems: list[str]) -> dict[str, Service]:
    """Pure but for a look whether folders are there."""
    if not isinstance(tree, dict):
        problems.append("services: there are none; `sidestage up init` writes a file to begin with")
        return {}
    problems += [f"{key}: unknown key" + _near(str(key), _TOP) for key in tree if key not in _TOP]
    default = tree.get("default") or {}
    if not isinstance(default, dict):
        problems.append("default: must be an object of keys")
        default = {}
    default = _service("default", default, problems)
    services = tree.get("services")
    if not isinstance(services, dict) or not services:
        problems.append("services: must be an object of at least one service")
        return {}
    if len(services) > MAX_SERVICES:
        problems.append(f"services: more than {MAX_SERVICES}")
        return {}
    found = {}
    for name, own in services.items():
        where = f"services.{name}"
        if not _SERVICE.fullmatch(str(name)) or name in _RESERVED:
            problems.append(f"{where}: can't be a service's name; use letters, digits, `-`, `_` and `.`")
        elif not isinstance(own, dict):
            problems.append(f"{where}: must be an object of keys: target, command, ...")
        else:
            before = len(problems)
            merged = _merged(default, _service(where, own, problems))
            if len(problems) == before:
                found[str(name)] = _made(where, merged, folder, problems)
    return found


def choose(services: Mapping[str, Service], wanted: list[str]) -> dict[str, Service]:
    """Those named, or all; raises ConfigError."""
    unknown = [name for name in wanted if name not in services]
    if unknown:
        raise ConfigError("up", [f"no service {name!r}{_near(name, tuple(services))}" for name in unknown])
    return {name: services[name] for name in wanted or services}


def _twice(node: Any, path: str) -> Iterator[str]:
    """Keys that stand twice in one place: YAML's readers take the last, and the first is lost without a word."""
    if node is None or node.id not in ("mapping", "sequence"):
        return
    seen = set()
    for number, item in enumerate(node.value):
        key, value = item if node.id == "mapping" else (None, item)
        below = f"{path}[{number}]" if key is None else f"{path}.{key.value}".removeprefix(".")
        if key is not None and key.value in seen and key.value != "<<":
            yield f"{below}: stands there twice"
        seen.add(key.value if key is not None else number)
        yield from _twice(value, below)


def _service(where: str, tree: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Checked, and with its `command` as a list."""
    tree = {str(key): value for key, value in tree.items()}
    if isinstance(tree.get("command"), str):
        try:
            tree["command"] = shlex.split(tree["command"])
        except ValueError as error:
            problems.append(f"{where}.command: {error}")
            return {}
    elif "command" in tree and isinstance(tree["command"], list):
        tree["command"] = [str(word) if isinstance(word, int | float) and not isinstance(word, bool) else word
                           for word in tree["command"]]  # fmt: skip
    found: list[str] = []
    build(Service, tree, where, found)
    if isinstance(tree.get("config"), dict):
        below: list[str] = []
        build(Config, tree["config"], "", below)
        found += [f"{where}.config.{problem}" for problem in below]
    problems += found
    return {} if found else tree


def _made(where: str, tree: dict[str, Any], folder: Path, problems: list[str]) -> Service:
    found: list[str] = []
    service: Service | None = build(Service, tree, where, found)
    problems += found
    if service is None:
        return Service()
    if not service.command:
        problems.append(f"{where}: no command")
    place = (folder / service.dir).resolve()
    if not place.is_dir():
        problems.append(f"{where}.dir: {service.dir}: no such folder")
    if not 0 <= service.grace <= 600:
        problems.append(f"{where}.grace: seconds from 0 to 600")
    return dataclasses.replace(service, dir=str(place))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _dotted(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    known = {name for name, _ in leaves(Config)}

    def walk(part: Any, path: str) -> Iterator[tuple[str, Any]]:
        part = long_form(path, part)
        if path in known or not isinstance(part, dict):
            yield path, part
        else:
            for key, value in part.items():
                yield from walk(value, f"{path}.{key}" if path else str(key))

    return walk(dict(tree), "")


def _line(lines: Mapping[str, int], problem: str) -> int | None:
    """Of the key that the problem begins with, or of what it stands in."""
    path = problem.partition(": ")[0]
    while path:
        if path in lines:
            return lines[path]
        path = path.rpartition(".")[0]
    return None


def _near(word: str, words: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, words, 1, 0.5)
    return f", did you mean {near[0]!r}?" if near else ""
