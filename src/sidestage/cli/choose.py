"""Which target, when none is named and a human is there to ask."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sidestage.cli.cluster import api
from sidestage.cli.errors import UserError
from sidestage.cli.progress import clean
from sidestage.config import Config


def target(config: Config) -> str:
    """The path chosen on the terminal; raises UserError."""
    from sidestage.cli import picker
    from sidestage.cluster.listing import USUAL, Entry, listing
    from sidestage.targets.spec import TargetError

    def paths() -> Iterator[str]:
        for entry in listing(client, USUAL, client.namespace):
            if isinstance(entry, Entry) and entry.available:
                yield clean(entry.path)

    try:
        with api(config) as client:
            chosen = picker.pick(f"target in {client.namespace}", paths())
    except TargetError as error:
        raise UserError(f"no target, and none to choose from: {error.cause}", "name one with -t, or: " + error.cure) from error
    if chosen is None:
        raise UserError("no target was chosen", "name one: -t deployment/NAME, -t process/PID, -t container/NAME", 130)
    return chosen


def asked() -> bool:
    """Is there a human at a terminal to answer?"""
    return os.isatty(0) and os.isatty(2)
