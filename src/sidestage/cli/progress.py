"""What the user is told while things go on, always on standard error: the program's output is its own.

On a terminal rich draws; elsewhere plain lines; with `--output json` one object a line, for tools:
{"type": "task"|"phase"|"done"|"say"|"warn"|"ready", ...}. Text that came from elsewhere is stripped of control characters.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    def __init__(self, output: str = "auto") -> None:
        self._json = output == "json"
        self._rich = output == "auto" and sys.stderr.isatty()
        self._started = time.monotonic()
        self._status: Any = None  # rich's, while a task is shown

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Shown while it lasts; an exception is its failure."""
        name = clean(name)
        if self._json:
            self._object("task", text=name)
            yield
            self._object("done", text=name, seconds=round(time.monotonic() - self._started, 3))
        elif self._rich:
            from rich.console import Console

            with Console(stderr=True).status(f"[dim]{_escape(name)}[/dim]") as self._status:
                try:
                    yield
                finally:
                    self._status = None
        else:
            yield

    def phase(self, text: str) -> None:
        """A step of a task; on a terminal it takes the place of the step before."""
        if self._json:
            self._object("phase", text=clean(text), seconds=round(time.monotonic() - self._started, 3))
        elif self._status is not None:
            self._status.update(f"[dim]{_escape(clean(text))}[/dim]")
        else:
            self.say(text)

    def say(self, text: str) -> None:
        self._line("say", clean(text), "dim")

    def warn(self, text: str) -> None:
        self._line("warn", clean(text), "yellow")

    def ready(self, what: str) -> None:
        """The program starts now."""
        self._line("ready", f"{clean(what)} ({(time.monotonic() - self._started) * 1000:.0f} ms)", "green")

    def _line(self, kind: str, text: str, style: str) -> None:
        if self._json:
            self._object(kind, text=text)
        elif self._rich:
            from rich.console import Console

            Console(stderr=True, highlight=False).print(f"[{style}]sidestage[/{style}] {_escape(text)}")
        else:
            print(f"sidestage: {text}", file=sys.stderr, flush=True)

    def _object(self, kind: str, **fields: object) -> None:
        print(json.dumps({"type": kind, **fields}), file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """Without control characters (C0, C1, DEL): remote text can't move the cursor or set the clipboard."""
    return "".join(c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) <= 159) else "?" for c in text)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
