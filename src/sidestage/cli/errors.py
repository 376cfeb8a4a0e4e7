"""The one kind of error that a user sees: what happened, and what to do next."""

from __future__ import annotations


class UserError(Exception):
    """`cause` and `cure` are a line each; `exit_code` is never 0."""

    def __init__(self, cause: str, cure: str = "", exit_code: int = 1) -> None:
        super().__init__(cause)
        self.cause, self.cure, self.exit_code = cause, cure, exit_code

    def __str__(self) -> str:
        return f"sidestage: {self.cause}" + (f"\n  {self.cure}" if self.cure else "")
