"""Regular expressions of users, run beside other people's traffic: case-insensitive, and none may run for ever.

`re` backtracks, so a pattern such as `(a+)+b` takes exponential time. Inputs are cut off at MAX_INPUT; a pattern with more
than one unbounded repeat is stopped by an alarm after MAX_TIME (sre looks for signals every 4096 steps, Modules/_sre/sre_lib.h)
and is then out of use: it matches nothing any more, and its owner is told.
"""

from __future__ import annotations

import re
import signal
import threading
from typing import Any, Callable, Dict, List, NoReturn

MAX_INPUT = 8 << 10  # characters of a line, path or value; longer ones match nothing
MAX_TIME = 0.05  # seconds for one text
MAX_PATTERN = 2_000  # characters
MAX_CACHE = 64  # patterns that come out of documents
_UNBOUNDED = re.compile(r"(?<!\\)(?:\\\\)*(?:[*+]|\{\d*,\d*\})")


class PatternError(ValueError):
    """Not a regular expression, as `re` says it."""


class _Slow(Exception):
    pass


class Pattern:
    __slots__ = ("_expired", "_find", "_guarded", "_text")

    def __init__(self, text: str, expired: List[str], whole: bool = False) -> None:
        """When it has run too long, its text is added to `expired`. Raises PatternError."""
        if len(text) > MAX_PATTERN:
            raise PatternError(f"longer than {MAX_PATTERN} characters")
        try:
            compiled = re.compile(text, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise PatternError(str(error)) from None
        self._text, self._expired = text, expired
        self._find: Callable[[str], Any] = compiled.fullmatch if whole else compiled.search
        self._guarded = len(_UNBOUNDED.findall(text)) > 1 or bool(re.search(r"\\[1-9]|\(\?P=", text))

    def search(self, text: str) -> bool:
        if len(text) > MAX_INPUT:
            return False
        if not self._guarded:
            return self._find(text) is not None
        return self._search_guarded(text)

    def _search_guarded(self, text: str) -> bool:
        if self._text in self._expired or threading.current_thread() is not threading.main_thread():
            return False
        try:
            previous = signal.signal(signal.SIGALRM, _alarm)
            try:
                signal.setitimer(signal.ITIMER_REAL, MAX_TIME)
                found = self._find(text) is not None
                signal.setitimer(signal.ITIMER_REAL, 0)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, previous)
        except _Slow:
            self._expired.append(self._text)
            return False
        return found


class Engine:
    """`search(pattern, text, whole)` for patterns that a query or a document names."""

    def __init__(self, expired: List[str]) -> None:
        self._expired = expired
        self._cache: Dict[Any, Any] = {}

    def search(self, pattern: str, text: str, whole: bool) -> bool:
        key = (pattern, whole)
        if key not in self._cache:
            if len(self._cache) >= MAX_CACHE:
                self._cache.clear()
            try:
                self._cache[key] = Pattern(pattern, self._expired, whole)
            except PatternError:
                self._cache[key] = None
        found = self._cache[key]
        return found is not None and bool(found.search(text))


def _alarm(_number: int, _frame: object) -> NoReturn:
    raise _Slow
