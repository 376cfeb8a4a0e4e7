"""Finds, reads and checks the configuration.

Precedence: flag, then environment variable (environment.py), then file, then default. A file may be a template (template.py)
and may be mirrord's (foreign.py). All errors at once, each with file, line, key and the nearest right word.
"""

from __future__ import annotations

import json
import os
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sidestage.config import environment, foreign, http_filter, tls
from sidestage.config.check import build, long_form
from sidestage.config.schema import Config

PLACES = (
    *(f".sidestage/sidestage.{suffix}" for suffix in ("json", "toml", "yaml", "yml")),
    *(f".mirrord/mirrord.{suffix}" for suffix in ("json", "toml", "yaml", "yml")),
)


class ConfigError(Exception):
    """`problems` is a list of lines, each naming key, cause and cure; `source` is the file, or what else they are in.

    `lines` has the line of a problem, `elsewhere` what it is in instead of the file.
    """

    def __init__(
        self, source: str, problems: list[str], lines: Mapping[str, int] | None = None, elsewhere: Mapping[str, str] | None = None
    ) -> None:
        self.source, self.problems, self.lines, self.elsewhere = source, problems, dict(lines or {}), dict(elsewhere or {})
        super().__init__("\n  ".join(self.located()))

    def located(self) -> list[str]:
        """Each problem behind `file:line:`, as compilers write it."""
        return [f"{self.elsewhere.get(problem) or self._place(problem)}: {problem}" for problem in self.problems]

    def _place(self, problem: str) -> str:
        line = self.lines.get(problem)
        return f"{self.source}:{line}" if line else self.source


def load(
    path: str | None,
    overrides: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = lambda text: None,
) -> Config:
    """The configuration in force; raises ConfigError.

    `overrides` maps dotted keys to values, as flags give them; `say` hears of keys without effect.
    """
    file = find(path or environ.get("SIDESTAGE_CONFIG_FILE"))
    variables = environment.overrides(environ, say)
    given = {**variables, **overrides}
    text, tree = read(file, given.get("key"), environ) if file else ("", {})
    problems: list[str] = []
    theirs = foreign.adapt(tree, problems, lambda note: say(f"{file}: {note}")) if file else {}
    for key, value in given.items():
        _set(tree, key.split("."), value)
    config = build(Config, tree, "", problems)
    problems += [] if problems else _contradictions(config)
    if problems:
        sources = {key: environment.name(key) for key in variables} | dict.fromkeys(overrides, "flags")
        elsewhere = {problem: sources[key] for problem in problems if (key := _key(problem).partition("[")[0]) in sources}
        raise ConfigError(str(file) if file else "flags", problems, _lines(file, text, problems, theirs), elsewhere)
    for note in _idle(config):
        say(note)
    return typing.cast("Config", config)


def find(path: str | None) -> Path | None:
    """The file to read: the one named, else the only one of PLACES; ours come before mirrord's."""
    if path:
        file = Path(path).expanduser()
        if not file.exists() or file.is_dir():  # a pipe will do, as of a shell's <(...)
            raise ConfigError(path, ["no such file"])
        return file
    for folder in (".sidestage", ".mirrord"):
        found = [file for name in PLACES if name.startswith(folder) and (file := Path(name)).is_file()]
        if len(found) > 1:
            raise ConfigError(folder, [f"{' and '.join(file.name for file in found)}: keep one, or choose with -f"])
        if found:
            return found[0]
    return None


def read(file: Path, key: str | None = None, environ: Mapping[str, str] = os.environ) -> tuple[str, dict[str, Any]]:
    """A file's text, rendered where it is a template, and its tree. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), [f"can't be read: {error}"]) from error
    try:
        if "{{" in text or "{%" in text:
            from sidestage.config import template

            text = template.render(text, key, environ, lambda rendered: _parse(file.suffix, rendered))
        tree = _parse(file.suffix, text)
    except ValueError as error:
        problem = " ".join(str(error).split())
        lines = re.findall(r"\bline (\d+)", problem)  # each of the parsers says so; YAML's first says where its context began
        raise ConfigError(str(file), [problem], {problem: int(lines[-1])} if lines else None) from error
    except RecursionError:
        raise ConfigError(str(file), ["it nests too deeply"]) from None
    if tree is None:
        return text, {}
    if not isinstance(tree, dict):
        raise ConfigError(str(file), ["must be an object of keys"])
    return text, tree


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


def _lines(file: Path | None, text: str, problems: list[str], theirs: Mapping[str, str]) -> dict[str, int]:
    if file is None:
        return {}
    from sidestage.config import positions

    found = positions.lines(file.suffix, text)
    return {problem: line for problem in problems if (line := positions.line_of(theirs.get(key := _key(problem), key), found))}


def _key(problem: str) -> str:
    return problem.partition(": ")[0]


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1], 1):
        below = long_form(".".join(keys[:depth]), tree.get(key, {}))
        tree[key] = tree = dict(below) if isinstance(below, dict) else {}
    tree[keys[-1]] = value


def _contradictions(config: Any) -> list[str]:
    env, network = config.feature.env, config.feature.network
    found = []
    if env.include and env.exclude:
        found.append("feature.env: include and exclude exclude each other; keep one")
    if network.incoming.ports is not None and network.incoming.ignore_ports:
        found.append("feature.network.incoming: ports and ignore_ports exclude each other; keep one")
    if network.outgoing.filter.remote and network.outgoing.filter.local:
        found.append("feature.network.outgoing.filter: remote and local exclude each other; keep one")
    if config.target.path == "targetless" and network.incoming.mode == "steal":
        found.append("feature.network.incoming.mode: targetless gets nothing to steal; name a target")
    if config.target.path == "targetless" and config.agent.mode != "job":
        found.append(f"agent.mode: {config.agent.mode} is beside a target, and targetless has none; use job")
    if not 0 < config.agent.heartbeat * 2 <= config.agent.silence:
        found.append("agent: silence must be at least twice heartbeat, or a healthy link is given up; both are seconds")
    for name in ("port_mapping", "listen_ports"):
        for column in zip(*getattr(network.incoming, name), strict=True):
            if len(set(column)) != len(column):
                found += [f"feature.network.incoming.{name}: a port stands in it twice"]
    return found + http_filter.problems(config) + tls.problems(config)


def _idle(config: Config) -> list[str]:
    """What is right and has no effect beside the rest."""
    agent, found = config.agent, []
    if agent.node_selector and config.target.path not in ("", "targetless"):
        found.append("agent.node_selector has no effect: the agent runs where the target does")
    if agent.namespace and agent.mode != "job":
        found.append(f"agent.namespace has no effect: in mode {agent.mode} the agent is in the target's pod")
    return found
