"""`sidestage ext`: for editors that start programs themselves; what to put before a program's command line.

The conversation is that of mirrord's `ext`, as far as it makes sense for a wrapper: lines of JSON on standard output, NewTask and
FinishedTask; the message of the last one is JSON in a string, {command, environment, env_to_unset}. On failure standard error ends
with `Error: {"message": ..., "help": ...}`. Nothing is started: the session begins with the program. docs/editors.md
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser
from sidestage.config import ConfigError, load
from sidestage.targets.spec import TargetError, parse

ROOT = "sidestage preparing to launch"


def main(argv: list[str]) -> int:
    parser = Parser(prog="sidestage ext", description="what an editor puts before a program's command line")
    parser.add_argument("-f", "--config-file", metavar="FILE")
    parser.add_argument("-t", "--target", metavar="TARGET")
    parser.add_argument("-n", "--namespace", metavar="NS")
    parser.add_argument("-k", "--key", metavar="KEY")
    parser.add_argument("-e", "--executable", metavar="PATH", help="taken for the sake of callers that know it; not needed")
    given = parser.parse_args(argv)
    _say("NewTask", name=ROOT, parent=None)
    try:
        command = _command(given)
    except UserError as error:
        _say("FinishedTask", name=ROOT, success=False, message=None)
        print("Error: " + json.dumps({"message": error.cause, "help": error.cure}), file=sys.stderr)
        return error.exit_code
    message = json.dumps({"command": command, "environment": {}, "env_to_unset": []})
    _say("FinishedTask", name=ROOT, success=True, message=message)
    return 0


def _command(given: Any) -> list[str]:
    flags = {"target.path": given.target, "target.namespace": given.namespace, "key": given.key}
    try:
        settings = load(
            given.config_file, {name: value for name, value in flags.items() if value},
            say=lambda text: _say("Warning", message=text),
        )  # fmt: skip
    except ConfigError as error:
        raise UserError(str(error), "`sidestage verify-config FILE` checks it") from error
    if not settings.target.path:
        raise UserError("no target", "choose one, with -t or in the configuration; `sidestage ls --output rich` lists them")
    try:
        parse(settings.target.path, settings.target.namespace)
    except TargetError as error:
        raise UserError(error.cause, error.cure) from error
    command = [sys.executable, "-m", "sidestage", "exec"]
    if given.config_file:
        command += ["-f", os.path.abspath(given.config_file)]
    for flag, value in ("-t", given.target), ("-n", given.namespace), ("-k", given.key):
        command += [flag, value] if value else []
    return [*command, "--"]


def _say(kind: str, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)
