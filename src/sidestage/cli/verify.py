"""`sidestage verify-config FILE` and `sidestage migrate FILE`: is a configuration right, and what does it come to?"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser
from sidestage.config import Config, ConfigError, load, positions
from sidestage.targets.spec import CLUSTER_KINDS, LOCAL_KINDS, TargetError, parse


def main(argv: list[str]) -> int:
    """Prints the configuration in force as JSON; raises UserError with every problem of the file."""
    parser = Parser(prog="sidestage verify-config", description=__doc__)
    parser.add_argument("file", metavar="FILE", nargs="?")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of configurations, for editors")
    parser.add_argument("--ide", action="store_true", help="one JSON object for editors: Success or Fail; exit status 0")
    given = parser.parse_args(argv)
    if given.schema:
        from sidestage.config.publish import json_schema

        print(json.dumps(json_schema(), indent=1))
        return 0
    if not given.file:
        raise UserError("verify-config takes a FILE", "write: sidestage verify-config FILE", 2)
    notes: list[str] = []
    try:
        settings = load(given.file, {}, say=notes.append)
        _begin(given.file, settings, notes.append)
    except ConfigError as error:
        if not given.ide:
            raise UserError(str(error), "docs/configuration.md lists the keys") from error
        print(json.dumps({"type": "Fail", "errors": error.located()}, indent=2))
        return 0
    resolved = changed(settings)
    if given.ide:
        print(json.dumps({
            "type": "Success", "config": resolved, "warnings": notes,
            "compatible_target_types": [*LOCAL_KINDS, *CLUSTER_KINDS],
        }, indent=2))  # fmt: skip
        return 0
    for note in notes:
        print(f"sidestage: {note}", file=sys.stderr)
    print(json.dumps(dataclasses.asdict(settings), indent=2))
    return 0


def _begin(file: str, settings: Config, say: Callable[[str], None]) -> None:
    """What `exec` looks at before it starts anything, as far as no command is needed. Raises ConfigError."""
    from sidestage.cli.incoming import incoming_rules
    from sidestage.cli.names import name_rules
    from sidestage.cli.policy import rules

    try:
        if settings.target.path:
            parse(settings.target.path, settings.target.namespace)
        name_rules(settings, say)
        rules(settings, ["-"], incoming_rules(settings, [], settings.target.path == "targetless"))
    except TargetError as error:
        raise _wrong(file, f"target.path: {error.cause}; {error.cure}") from error
    except UserError as error:
        raise _wrong(file, f"{error.cause}; {error.cure}") from error


def _wrong(file: str, problem: str) -> ConfigError:
    found = positions.lines(Path(file).suffix, Path(file).read_text(encoding="utf-8-sig"))
    line = positions.line_of(problem.partition(": ")[0], found)
    return ConfigError(file, [problem], {problem: line} if line else None)


def migrate(argv: list[str]) -> int:
    """Writes our file from mirrord's: the keys that differ from the defaults, in our names."""
    parser = Parser(prog="sidestage migrate", description=migrate.__doc__)
    parser.add_argument("file", metavar="FILE", nargs="?", default=".mirrord/mirrord.json")
    parser.add_argument("-o", "--output", metavar="FILE", default=".sidestage/sidestage.json", help="- is standard output")
    given = parser.parse_args(argv)
    notes: list[str] = []
    try:
        _refuse_template(given.file)
        settings = load(given.file, {}, {}, notes.append)
    except ConfigError as error:
        raise UserError(str(error), "correct or remove these keys, then migrate again") from error
    for note in notes:
        print(f"sidestage: left out: {note}", file=sys.stderr)
    text = json.dumps(changed(settings), indent=2) + "\n"
    if given.output == "-":
        print(text, end="")
        return 0
    file = Path(given.output)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise UserError(f"{file} is there already", "remove it, or choose another with -o") from None
    except OSError as error:
        raise UserError(f"{file}: can't be written: {error.strerror}", "choose another with -o") from error
    print(f"{file} is written; `sidestage verify-config {file}` shows it with all defaults")
    return 0


def _refuse_template(path: str) -> None:
    if os.path.isfile(path):
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if "{{" in text or "{%" in text:
            raise ConfigError(path, ["is a template; sidestage reads it as it is: copy it to .sidestage/sidestage.json"])


def changed(settings: Any, default: Any = None) -> dict[str, Any]:
    """The keys that differ from the defaults, nested as in a file."""
    default = Config() if default is None else default
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value, plain = getattr(settings, field.name), getattr(default, field.name)
        if value == plain:
            continue
        found[field.name] = changed(value, plain) if dataclasses.is_dataclass(value) else value
    return found


