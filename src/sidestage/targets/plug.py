"""What the session gets of a target, wherever that is: an agent that has been started, and its streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Plug(Protocol):
    """`start` has returned: the agent is on its way."""

    max_data: int  # bytes in a data frame on the control stream: few where it is slow and shared
    news: int  # a descriptor that is readable when there is news, or -1

    def wait_ready(self, say: Callable[[str, str], None]) -> int:
        """Until the agent has gone to its target: its control stream, ours to close. Raises TargetError.

        `say(kind, text)` tells the user meanwhile: `phase` or `say`.
        """
        ...

    def read_news(self) -> tuple[dict[str, Any], list[int]]:
        """One message {ev, ...} and its descriptors; an empty one at the end of it all."""
        ...

    def send(self, op: str, **args: Any) -> None: ...
    def close(self) -> None:
        """The end of the agent; everything is removed."""
        ...
