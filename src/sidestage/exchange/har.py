"""HAR 1.2 of exchanges, as browsers and their friends open it: http://www.softwareishard.com/blog/har-12-spec/.

Each exchange is an entry. What is not known is -1, as the format wants; bodies that were cut say so.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

from sidestage.exchange import secrets
from sidestage.exchange.model import Answer, Body, Exchange, Headers, header, plain

Json = dict[str, Any]


def head(version: str) -> Json:
    """The log without its entries."""
    return {"version": "1.2", "creator": {"name": "sidestage", "version": version}}


def entry(exchange: Exchange, answer: Answer, *, peer: tuple[str, int], local: tuple[str, int], ended: float, keep: bool) -> Json:
    """`ended` is of the monotonic clock; with `keep`, secrets stay."""
    wait, whole = answer.seconds * 1000, (ended - exchange.began) * 1000
    hide: Callable[[Headers], Headers] = list if keep else secrets.headers
    path = exchange.path if keep else secrets.path(exchange.path)
    host = exchange.host or (f"[{local[0]}]" if ":" in local[0] else local[0]) + f":{local[1]}"
    request: Json = {
        "method": exchange.method, "url": path if "://" in path else f"http://{host}{path}", "httpVersion": exchange.version,
        "cookies": _cookies(header(exchange.headers, "cookie"), keep), "headers": _pairs(hide(exchange.headers)),
        "queryString": _pairs(parse_qsl(path.partition("?")[2], keep_blank_values=True)),
        "headersSize": -1, "bodySize": exchange.body.size,
    }  # fmt: skip
    if exchange.body.size:
        kind = header(exchange.headers, "content-type")
        request["postData"] = {"mimeType": kind, **_text(exchange.headers, exchange.body, "text")}
    return {
        "startedDateTime": _date(exchange.began), "time": round(whole, 3), "request": request,
        "response": {
            "status": answer.status, "statusText": _phrase(answer.status), "httpVersion": exchange.version,
            "cookies": [each for name, value in answer.headers if name.lower() == "set-cookie" for each in _cookies(value, keep)],
            "headers": _pairs(hide(answer.headers)), "redirectURL": header(answer.headers, "location"), "headersSize": -1,
            "bodySize": answer.body.size, "content": {
                "mimeType": header(answer.headers, "content-type") or "x-unknown",
                **_text(answer.headers, answer.body, "content"),
            },
        },
        "cache": {}, "timings": {"send": 0, "wait": round(wait, 3), "receive": round(max(0.0, whole - wait), 3)},
        "serverIPAddress": local[0], "connection": str(peer[1]), "_clientIPAddress": peer[0],
    }  # fmt: skip


class Writer:
    """A file that is whole after each entry, so that it can be opened even if nobody is left to end it."""

    END = b"\n]}}\n"

    def __init__(self, fd: int, version: str) -> None:
        """`fd` stays the caller's, and can be truncated. Raises OSError, as `add` does."""
        self._fd, self._first = fd, True
        self._write(b'{"log": ' + json.dumps(head(version)).encode()[:-1] + b', "entries": [' + self.END)

    def add(self, made: Json) -> None:
        os.ftruncate(self._fd, os.lseek(self._fd, -len(self.END), os.SEEK_CUR))
        self._write((b"\n" if self._first else b",\n") + json.dumps(made).encode() + self.END)
        self._first = False

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]


def _pairs(found: Headers) -> list[Json]:
    return [{"name": name, "value": value} for name, value in found]


def _cookies(text: str, keep: bool) -> list[Json]:
    try:
        found = SimpleCookie(text)
    except CookieError:
        return []
    return [{"name": each.key, "value": each.value if keep else secrets.HIDDEN} for each in found.values()]


def _text(headers: Headers, body: Body, place: str) -> Json:
    """A body decoded, as text where it is text. HAR knows base64 for answers only: other requests are given as Latin-1."""
    data = plain(headers, body)
    found: Json = {"size": len(data)} if place == "content" else {}
    if body.cut:
        found["comment"] = f"only the beginning of {body.size} bytes"
    try:
        return found | {"text": data.decode()}
    except UnicodeDecodeError:
        if place == "content":
            return found | {"text": base64.b64encode(data).decode(), "encoding": "base64"}
        return found | {"text": data.decode("latin-1"), "_encoding": "latin-1"}


def _date(monotonic: float) -> str:
    return datetime.fromtimestamp(time.time() - (time.monotonic() - monotonic), UTC).isoformat(timespec="milliseconds")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
