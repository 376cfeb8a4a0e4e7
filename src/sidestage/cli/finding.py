"""One line of `sidestage doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    name: str
    state: str  # ok | lack (something is slower or left out) | fatal (exec can't work)
    detail: str
    cure: str = ""
