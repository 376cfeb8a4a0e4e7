"""Choosing one of many lines on a terminal: type to narrow, arrows to move, Enter to take, Esc to leave.

`Picker` is the state, pure: keys in, lines out. `pick` is the terminal: it draws below the cursor and leaves nothing behind.
"""

from __future__ import annotations

import os
import select
import shutil
import termios
import time
import tty
from collections.abc import Iterable, Iterator

HEIGHT = 12  # lines of choices at most
ESCAPE_WAIT = 0.03  # seconds in which the rest of an arrow key's sequence must follow its ESC
REDRAW = 0.1  # seconds between drawings while choices still come in
MAX_QUERY = 100
CANCEL, CHOSEN, GO_ON = "cancel", "chosen", ""
_UP, _DOWN = (b"\x1b[A", b"\x1bOA", b"\x10"), (b"\x1b[B", b"\x1bOB", b"\x0e", b"\t")
_PAGE_UP, _PAGE_DOWN = (b"\x1b[5~",), (b"\x1b[6~",)


class Picker:
    def __init__(self, title: str) -> None:
        self.title, self.query, self.loading = title, "", True
        self._all: list[str] = []
        self._found: list[str] = []
        self._at = 0

    def add(self, item: str) -> None:
        self._all.append(item)
        if self.query:
            self._narrow()  # ranks may change
        else:
            self._found.append(item)

    @property
    def choice(self) -> str:
        return self._found[self._at] if self._found else ""

    def key(self, key: bytes) -> str:
        """One key as the terminal sends it."""
        if key in (b"\x1b", b"\x03", b"\x04"):  # Esc, Ctrl-C, Ctrl-D
            return CANCEL
        if key in (b"\r", b"\n"):
            return CHOSEN if self._found else GO_ON
        if key in _UP or key in _DOWN:
            self._move(-1 if key in _UP else 1)
        elif key in _PAGE_UP or key in _PAGE_DOWN:
            self._move(-HEIGHT if key in _PAGE_UP else HEIGHT, wrap=False)
        elif key in (b"\x7f", b"\x08"):
            self._ask(self.query[:-1])
        elif key == b"\x15":  # Ctrl-U
            self._ask("")
        elif key == b"\x17":  # Ctrl-W
            self._ask(self.query.rstrip()[: self.query.rstrip().rfind(" ") + 1])
        else:
            text = key.decode(errors="ignore")
            if text.isprintable():
                self._ask((self.query + text)[:MAX_QUERY])
        return GO_ON

    def view(self, width: int, height: int) -> list[str]:
        rows = max(1, min(HEIGHT, height - 3))
        first = max(0, min(self._at - rows // 2, len(self._found) - rows))
        lines = [f"{self.title}: {self.query}"]
        for n, item in enumerate(self._found[first : first + rows], first):
            lines.append(f"{'>' if n == self._at else ' '} {item}")
        count = f"{len(self._found)} of {len(self._all)}" + (" ..." if self.loading else "")
        lines.append(f"  {count}; Enter takes, Esc leaves")
        return [line[: width - 1] for line in lines]

    def _move(self, by: int, wrap: bool = True) -> None:
        if self._found:
            to = self._at + by
            self._at = to % len(self._found) if wrap else max(0, min(to, len(self._found) - 1))

    def _ask(self, query: str) -> None:
        self.query, self._at = query, 0
        self._narrow()

    def _narrow(self) -> None:
        scored = [(mark, n, item) for n, item in enumerate(self._all) if (mark := score(self.query, item)) is not None]
        self._found = [item for _, _, item in sorted(scored)]
        self._at = min(self._at, max(0, len(self._found) - 1))


def score(query: str, item: str) -> int | None:
    """How far `item` is from `query`, word by word; None if its letters aren't all there in order. Less is nearer."""
    total, low = 0, item.lower()
    for word in query.lower().split():
        at = low.find(word)
        if at >= 0:
            begins = at == 0 or not low[at - 1].isalnum()
            total += 0 if begins else 1
            continue
        first = last = -1
        for letter in word:
            last = low.find(letter, last + 1)
            if last < 0:
                return None
            first = last if first < 0 else first
        total += 2 + (last - first + 1 - len(word))
    return total


def pick(title: str, items: Iterable[str]) -> str | None:
    """The one chosen, or None. `items` may come slowly: what is there can be chosen already. Raises OSError without a terminal."""
    fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        return _loop(fd, Picker(title), iter(items))
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        os.close(fd)


def _loop(fd: int, picker: Picker, items: Iterator[str]) -> str | None:
    drawn, due = 0, 0.0
    try:
        while True:
            if picker.loading:
                item = next(items, None)
                if item is None:
                    picker.loading, due = False, 0.0
                else:
                    picker.add(item)
            if time.monotonic() >= due:
                drawn = _draw(fd, picker, drawn)
                due = time.monotonic() + REDRAW
            while select.select([fd], [], [], 0 if picker.loading else None)[0]:
                said = picker.key(read_key(fd))
                if said:
                    return picker.choice if said == CHOSEN else None
                drawn = _draw(fd, picker, drawn)
    finally:
        os.write(fd, _erase(drawn).encode())


def read_key(fd: int) -> bytes:
    """One key: a character of UTF-8, or an escape sequence. The end of the terminal is Esc."""
    first = os.read(fd, 1)
    if not first:
        return b"\x1b"
    if first == b"\x1b":
        key = first
        while len(key) < 8 and select.select([fd], [], [], ESCAPE_WAIT)[0]:
            key += os.read(fd, 1)
            if len(key) > 2 and (key[-1:].isalpha() or key[-1:] == b"~"):
                break
        return key
    more = 3 if first[0] >= 0xF0 else 2 if first[0] >= 0xE0 else 1 if first[0] >= 0xC0 else 0
    return first + (os.read(fd, more) if more else b"")


def _draw(fd: int, picker: Picker, drawn: int) -> int:
    width, height = shutil.get_terminal_size()
    lines = picker.view(width, height)
    column = len(lines[0]) + 1
    text = _erase(drawn) + "\r\n".join(lines)
    # Back to the end of the query, where the cursor belongs.
    os.write(fd, (text + f"\x1b[{len(lines) - 1}A\x1b[{column}G").encode())
    return len(lines)


def _erase(drawn: int) -> str:
    return "\r\x1b[J" if drawn else ""
