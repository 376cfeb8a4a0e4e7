"""Regular expressions of users, run beside other people's traffic: case-insensitive, and none may run for ever.

`re` backtracks, so a pattern such as `(a+)+b` takes exponential time. Inputs are cut off at MAX_INPUT; where the time may be
more than linear, a search is stopped by an alarm after MAX_TIME of the processor (sre looks for signals every 4096 steps,
Modules/_sre/sre_lib.h). The pattern is then out of use: it matches nothing any more, and its owner is told.
"""

from __future__ import annotations

import re
import signal
import threading
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

MAX_INPUT = 8 << 10  # characters of a line, path or value; longer ones match nothing
MAX_TIME = 0.05  # seconds of the processor for one request's lines
SHORT = 500  # characters for which the square is nothing
MAX_PATTERN = 2_000  # characters
MAX_CACHE = 64  # patterns that come out of documents
MAX_KNOWN = 1_024  # lines of up to SHORT characters of which a filter remembers what they say
MAX_KNOWN = 1_024  # lines of up to SHORT characters of which a filter remembers what they say
_QUANTIFIER = re.compile(r"(?<![\\(*+?}])[*+?{]")
_REPEATED_GROUP = re.compile(r"\)[*+{?]|\\[1-9]|\(\?P=")


class PatternError(ValueError):
    """Not a regular expression, as `re` says it."""


class _Slow(Exception):
    pass


class Pattern:
    __slots__ = ("_expired", "_find", "_linear", "_square", "_text")

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
        quantifiers = len(_QUANTIFIER.findall(text))
        self._linear = not quantifiers
        self._square = quantifiers < 2 and not _REPEATED_GROUP.search(text)

    def search(self, text: str) -> bool:
        return self.any((text,))

    def any(self, texts: Iterable[str]) -> bool:
        """Is it found in one of them?"""
        find = self._find
        if self._square:
            for text in texts:
                if len(text) <= SHORT or (self._linear and len(text) <= MAX_INPUT):
                    if find(text) is not None:
                        return True
                elif any(self.guarded((text,))):
                    return True
            return False
        return any(self.guarded(texts, one=True))

    def quick(self) -> Optional[Callable[[str], Any]]:
        """What finds it in a text that is no longer than SHORT, where that needs no guard."""
        return self._find if self._square else None

    def guarded(self, texts: Iterable[str], one: bool = False) -> List[bool]:
        """Of each of them, up to where the time ends: is it found there? `one`: the first is enough."""
        found: List[bool] = []
        if self._text in self._expired or not _alarm.arm():
            return found
        try:
            for text in texts:
                found.append(len(text) <= MAX_INPUT and self._find(text) is not None)
                if one and found[-1]:
                    break
            _alarm.disarm()
        except _Slow:
            self._expired.append(self._text)
        return found


class Lines:
    """Patterns that look at the same lines. Clients repeat theirs, so what a line said to all of them is remembered."""

    def __init__(self, expired: List[str]) -> None:
        self._expired = expired
        self._all: List[Tuple[int, Pattern]] = []
        self._quick: List[Tuple[int, Callable[[str], Any]]] = []
        self._slow: List[Tuple[int, Pattern]] = []
        self._known: Dict[str, int] = {}

    def add(self, pattern: Pattern) -> int:
        """The pattern's bit in what said() gives."""
        bit, find = 1 << len(self._all), pattern.quick()
        self._all.append((bit, pattern))
        if find is None:
            self._slow.append((bit, pattern))
        else:
            self._quick.append((bit, find))
        return bit

    def said(self, lines: Iterable[str]) -> int:
        """The bits of all patterns that are found in one of the lines."""
        known, bits, new = self._known, 0, []
        for line in lines:
            said = known.get(line)
            if said is None:
                new.append(line)
            else:
                bits |= said
        return bits | self._look(new) if new else bits

    def _look(self, lines: List[str]) -> int:
        short = [line for line in lines if len(line) <= SHORT]
        known: Dict[str, int] = {}
        for line in short:
            bits = 0
            for bit, find in self._quick:
                if find(line) is not None:
                    bits |= bit
            known[line] = bits
        expired = len(self._expired)
        for bit, pattern in self._slow:
            for line, found in zip(short, pattern.guarded(short)):
                known[line] |= found and bit
        bits = 0
        for said in known.values():
            bits |= said
        if len(short) < len(lines):
            long = [line for line in lines if len(line) > SHORT]
            for bit, pattern in self._all:
                bits |= pattern.any(long) and bit
        if len(self._expired) > expired or len(self._known) > MAX_KNOWN:
            self._known.clear()
        else:
            self._known.update(known)
        return bits


class _Alarm:
    """The timer of processor time and its signal, which nothing else here uses."""

    def __init__(self) -> None:
        self._armed = self._installed = False

    def arm(self) -> bool:
        """False in a thread other than the main one, which no signal interrupts."""
        if not self._installed:
            if threading.current_thread() is not threading.main_thread():
                return False
            signal.signal(signal.SIGVTALRM, self._ring)
            self._installed = True
        self._armed = True
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_TIME)
        return True

    def disarm(self) -> None:
        self._armed = False  # first: a signal may be on its way
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _ring(self, _number: int, _frame: object) -> None:
        if self._armed:
            self._armed = False
            raise _Slow


_alarm = _Alarm()


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
