"""The file of a recording: gzip'd lines of JSON, the first says what it is; bytes are base64.

    {"sidestage": 1, "about": {...}, "masked": true}
    {"t": seconds, "k": kind, ...}

Kinds: `call` {n, op, args, raw}, `answer` {n, result, raw, errno}; of channels `open` {c, by: laptop|agent, kind, args},
`accept` {c, info}, `refuse` {c, errno}, `up` (to the target) and `down` {c, data}, `eof` and `reset` {c, by}; `event` {name, args}.
Nothing is lost of what crossed the link but time below a microsecond, so it can be played again.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
import zlib
from collections.abc import Iterator
from typing import Any

VERSION = 1
MAX_BYTES = 1 << 30  # of a tape; then it ends, and that is said
FLUSH = 1.0  # seconds; what came later may be missing after a kill
_BYTES = ("raw", "data")


class TapeError(Exception):
    """No tape, or one of a later version."""


class Tape:
    """A tape that is being written. Only its owner may read the file. Raises OSError."""

    def __init__(self, path: str, about: dict[str, Any], masked: bool) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._raw = os.fdopen(fd, "wb")
        self._file = gzip.GzipFile(fileobj=self._raw, mode="wb", compresslevel=3, filename="", mtime=0)
        self._start = self._flushed = time.monotonic()
        self.full = False
        self._line({"sidestage": VERSION, "about": about, "masked": masked})

    def put(self, kind: str, /, **fields: Any) -> None:
        if self.full:
            return
        now = time.monotonic()
        for name in _BYTES:
            if name in fields:
                fields[name] = base64.b64encode(fields[name]).decode()
        self._line({"t": round(now - self._start, 6), "k": kind, **fields})
        if now - self._flushed > FLUSH:
            self._flushed = now
            self._file.flush(zlib.Z_SYNC_FLUSH)
            self._raw.flush()
            self.full = self._raw.tell() > MAX_BYTES

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def _line(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")


def read(path: str) -> Iterator[dict[str, Any]]:
    """The first line, then each entry with its bytes; a tape that was cut ends where it is cut. Raises OSError, TapeError."""
    with gzip.open(path, "rb") as file:
        try:
            head = json.loads(file.readline())
            version = head["sidestage"]
        except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise TapeError(f"{path} is no recording of sidestage") from error
        if version != VERSION:
            raise TapeError(f"{path} is of version {version}, this sidestage reads {VERSION}")
        yield head
        try:
            for line in file:
                entry = json.loads(line)
                for name in _BYTES:
                    if name in entry:
                        entry[name] = base64.b64decode(entry[name])
                yield entry
        except (EOFError, ValueError, zlib.error):
            return
