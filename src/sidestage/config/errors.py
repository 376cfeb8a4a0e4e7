"""Errors in a configuration: all that were found, each with its place and its cure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    key: str  # dotted path, empty for the file as a whole
    cause: str
    cure: str = ""
    source: str = ""  # the file, variable or flag that says it
    line: int = 0  # 0: not known

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        text = ": ".join(part for part in (place, self.key, self.cause) if part)
        return f"{text} ({self.cure})" if self.cure else text


class ConfigError(Exception):
    """Nothing was started: the configuration can't be used. `cause` and `cure` are what a user reads."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.cause)

    @property
    def cause(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0]._replace(cure=""))
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} problems in the configuration:{lines}"

    @property
    def cure(self) -> str:
        if len(self.problems) == 1 and self.problems[0].cure:
            return self.problems[0].cure
        return "see `sidestage verify-config FILE`, and docs/config.md for all keys"
