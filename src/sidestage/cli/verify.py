"""`sidestage verify-config FILE`: what the file means with all defaults filled in, or everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from sidestage.cli.errors import UserError

USAGE = 2


def main(argv: Sequence[str]) -> int:
    """The settings as JSON on standard output. Raises UserError."""
    if argv and argv[0] in ("-h", "--help"):
        print("sidestage verify-config FILE    prints the settings that FILE results in, or what is wrong with it")
        return 0
    if len(argv) != 1:
        raise UserError("which file?", "write: sidestage verify-config .sidestage/sidestage.json", USAGE)
    from sidestage import config

    try:
        settings = config.load(argv[0], {}, {})
    except config.ConfigError as error:
        lines = "".join(f"\n  - {problem}" for problem in error.problems)
        raise UserError(f"{error.source} can't be used:{lines}", "nothing else is wrong with it") from error
    print(json.dumps(dataclasses.asdict(settings), indent=2))
    return 0
