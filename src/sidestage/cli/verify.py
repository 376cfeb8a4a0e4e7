"""`sidestage verify-config FILE`: is this configuration right, and what does it come to?"""

from __future__ import annotations

import dataclasses
import json

from sidestage.cli.errors import UserError
from sidestage.config import ConfigError, load


def main(argv: list[str]) -> int:
    """Prints the configuration in force as JSON; raises UserError with every problem of the file."""
    if len(argv) != 1:
        raise UserError("verify-config takes one file", "write: sidestage verify-config FILE", 2)
    try:
        settings = load(argv[0], {})
    except ConfigError as error:
        raise UserError(str(error), "docs/configuration.md lists the keys") from error
    print(json.dumps(dataclasses.asdict(settings), indent=2))
    return 0
