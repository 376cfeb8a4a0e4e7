"""Which files of a service have changed: by looking again and again, so that it works on every file system.

A change is told when it has come to rest: the next look finds nothing new.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence

EVERY = 0.5  # seconds between looks; longer where a look is long
SHARE = 0.1  # of the time at most is spent on looking
MAX_FILES = 20_000
SKIPPED = frozenset({"node_modules", "__pycache__"})  # besides folders that begin with a dot

Seen = dict[str, tuple[int, int]]


class Watch:
    def __init__(self, folder: str, globs: Sequence[str]) -> None:
        self._folder = folder
        self._pattern = re.compile("|".join(f"(?:{translate(glob)})" for glob in globs))
        self._seen = self._look()
        self._changed: str | None = None
        self.pause = EVERY
        self.full = len(self._seen) >= MAX_FILES

    def look(self) -> str | None:
        """A file that has changed, once it rests."""
        start = time.monotonic()
        now = self._look()
        self.pause = max(EVERY, (time.monotonic() - start) / SHARE)
        if now != self._seen:
            differs = set(now.items()) ^ set(self._seen.items())
            self._changed = min(path for path, _ in differs)
            self._seen = now
            return None
        changed, self._changed = self._changed, None
        return changed

    def _look(self) -> Seen:
        found: Seen = {}
        for path in self._files():
            if self._pattern.fullmatch(path):
                try:
                    info = os.stat(os.path.join(self._folder, path))
                except OSError:
                    continue  # gone in this moment
                found[path] = (info.st_mtime_ns, info.st_size)
                if len(found) >= MAX_FILES:
                    break
        return found

    def _files(self) -> Iterator[str]:
        for place, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
            below = os.path.relpath(place, self._folder)
            yield from names if below == "." else (f"{below}/{name}" for name in names)


def translate(glob: str) -> str:
    """A regular expression; `**` is any number of folders, and * and ? stay in one."""
    out, at = "", 0
    glob = glob.removeprefix("./")
    while at < len(glob):
        if glob.startswith("**/", at):
            out, at = out + r"(?:[^/]+/)*", at + 3
        elif glob.startswith("**", at):
            out, at = out + r".*", at + 2
        elif glob[at] in "*?":
            out, at = out + (r"[^/]*" if glob[at] == "*" else r"[^/]"), at + 1
        else:
            out, at = out + re.escape(glob[at]), at + 1
    return out
