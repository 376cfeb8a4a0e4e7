"""A request and who answered it how; bodies are kept up to a limit."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field
from typing import Any

MAX_BODY = 1 << 20  # bytes kept of one body
TARGET, LOCAL = "target", "local"  # who answers

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Body:
    data: bytearray = field(default_factory=bytearray)
    size: int = 0  # of the whole, as it was sent

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if len(self.data) < MAX_BODY:
            self.data += data[: MAX_BODY - len(self.data)]

    @property
    def cut(self) -> bool:
        return self.size > len(self.data)


@dataclass(slots=True)
class Answer:
    status: int
    headers: Headers
    seconds: float  # from the end of the request's head to the first byte of the answer
    body: Body = field(default_factory=Body)
    trailers: Headers = field(default_factory=list)
    done: bool = False


@dataclass(slots=True)
class Exchange:
    number: int
    method: str
    path: str  # with its query
    headers: Headers
    body: Body = field(default_factory=Body)
    began: float = field(default_factory=time.monotonic)
    complete: bool = False  # the request has all come
    answers: dict[str, Answer] = field(default_factory=dict)
    version: str = "HTTP/1.1"

    @property
    def host(self) -> str:
        return header(self.headers, "host") or header(self.headers, ":authority")


def header(headers: Headers, name: str) -> str:
    """The first value, empty when there is none; names are case-insensitive."""
    return next((value for key, value in headers if key.lower() == name), "")


def plain(headers: Headers, body: Body) -> bytes:
    """A body without its content coding, as far as it was kept; as it came where the coding is unknown or broken."""
    coding = header(headers, "content-encoding").lower()
    data = bytes(body.data)
    if coding not in ("gzip", "x-gzip", "deflate"):
        return data
    try:
        return zlib.decompressobj(47 if "gzip" in coding else 15).decompress(data, MAX_BODY)
    except zlib.error:
        return data


def as_json(headers: Headers, body: Body) -> tuple[bool, Any]:
    """(is it JSON, its value)."""
    import json

    kind = header(headers, "content-type").partition(";")[0].strip().lower()
    if body.cut or not (kind == "application/json" or kind.endswith("+json")):
        return False, None
    try:
        return True, json.loads(plain(headers, body))
    except ValueError:
        return False, None
