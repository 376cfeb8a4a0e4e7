"""A recording in memory, arranged for playing: answers by question, files by path, channels by where they went. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FIRST = 128 << 10  # bytes of a file that an answer to `open` carries, as agent/files.py sends
LISTED = 400  # names in one answer to `readdir`

Args = dict[str, Any]


@dataclass(slots=True)
class Channel:
    """One connection as it was. `steps` are ("up"|"down", bytes), ("eof"|"reset", who), in order."""

    kind: str
    args: Args
    by: str
    accepted: Args | None = None
    errno: int = 0
    steps: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> str:
        return self.args["path"] if self.kind == "unix" else f"{self.args['host']}:{self.args['port']}"

    def bytes_of(self, way: str) -> bytes:
        return b"".join(data for step, data in self.steps if step == way)


@dataclass(slots=True)
class File:
    """What is known of a path: its `stat` and errors, and the parts of its content that were read."""

    opened: Args | None = None
    errno: int = 0
    parts: dict[int, bytes] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)

    def add(self, offset: int, data: bytes) -> None:
        if len(data) > len(self.parts.get(offset, b"")):
            self.parts[offset] = data

    def content(self, offset: int, size: int) -> bytes | None:
        """None: not recorded."""
        stat = (self.opened or {}).get("stat")
        end = min(offset + size, stat[7]) if stat else offset + size
        found = b""
        while offset + len(found) < end:
            at = offset + len(found)
            part = next((data[at - start :] for start, data in self.parts.items() if start <= at < start + len(data)), None)
            if part is None:
                return found or (b"" if stat and at >= stat[7] else None)
            found += part[: end - at]
        return found


@dataclass(slots=True)
class Reel:
    about: Args
    masked: bool
    answers: dict[str, list[tuple[Args, bytes, int]]] = field(default_factory=dict)  # question -> (result, raw, errno)
    files: dict[str, File] = field(default_factory=dict)
    channels: list[Channel] = field(default_factory=list)  # in the order of their beginnings

    def of(self, by: str, kind: str) -> list[Channel]:
        return [channel for channel in self.channels if (channel.by, channel.kind) == (by, kind)]


def question(op: str, args: Args) -> str:
    return op if op == "hello" else f"{op} {json.dumps(args, sort_keys=True)}"  # who says hello is another one each time


def load(entries: Iterable[Args]) -> Reel:
    """From what tape.read() gives."""
    lines = iter(entries)
    head = next(lines)
    reel = Reel(head["about"], head["masked"])
    asked: dict[int, tuple[str, Args]] = {}
    handles: dict[int, str] = {}
    channels: dict[str, Channel] = {}
    for entry in lines:
        kind = entry["k"]
        if kind == "call":
            asked[entry["n"]] = entry["op"], entry["args"]
        elif kind == "answer" and entry["n"] in asked:
            _answer(reel, handles, *asked.pop(entry["n"]), entry)
        elif kind == "open":
            channel = channels[entry["c"]] = Channel(entry["kind"], entry["args"], entry["by"])
            reel.channels.append(channel)
        elif entry.get("c") in channels:
            _step(channels[entry["c"]], kind, entry)
    return reel


def _answer(reel: Reel, handles: dict[int, str], op: str, args: Args, entry: Args) -> None:
    result, raw, errno = entry["result"], entry.get("raw", b""), entry["errno"]
    if op == "open":
        file = reel.files.setdefault(args["path"], File())
        file.opened, file.errno = (None, errno) if errno else (result, 0)
        if raw:
            file.add(0, raw)
        if result.get("handle"):
            handles[result["handle"]] = args["path"]
    elif op in ("read", "readdir", "close") and args.get("handle") in handles:
        file = reel.files[handles[args["handle"]]]
        if op == "read" and not errno:
            file.add(args["offset"], raw)
        elif op == "readdir" and not errno:
            known = {name for name, *_ in file.entries}
            file.entries += [item for item in result["entries"] if item[0] not in known]
    else:
        reel.answers.setdefault(question(op, args), []).append((result, raw, errno))


def _step(channel: Channel, kind: str, entry: Args) -> None:
    if kind == "accept":
        channel.accepted = entry["info"]
    elif kind == "refuse":
        channel.errno = entry["errno"]
    elif kind in ("up", "down"):
        channel.steps.append((kind, entry["data"]))
    elif kind in ("eof", "reset"):
        channel.steps.append((kind, entry["by"]))
