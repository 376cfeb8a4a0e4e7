"""Where `dump` puts what it sees: lines for people, a HAR of exchanges, or packets. Each counts what --count is about."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

from sidestage.cli.progress import clean
from sidestage.exchange import har, pcapng, secrets
from sidestage.exchange.http2 import PREFACE
from sidestage.exchange.model import TARGET, Answer, Exchange, Headers, plain
from sidestage.exchange.observer import Observer
from sidestage.session.tap import CLIENT, SERVER, Connection

MAX_EARLY = 64 << 10  # bytes of a server that speaks first, until the client says which protocol it is
SHOWN = 4096  # bytes of a body
CHUNK = 160  # bytes of a piece that is no HTTP
_METHOD = re.compile(rb"[A-Z]{3,20} \S")

Count = Callable[[], None]


class Exchanges:
    """Connections as HTTP exchanges, where they are HTTP; others in pieces."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._readers: dict[Connection, _Reader] = {}

    def began(self, connection: Connection) -> None:
        self._readers[connection] = _Reader(self, connection)

    def data(self, connection: Connection, side: int, data: bytes) -> None:
        self._readers[connection].data(side, data)

    def ended(self, connection: Connection, side: int, whole: bool) -> None:
        self._readers[connection].ended(side, whole)

    def over(self, connection: Connection) -> None:
        reader = self._readers.pop(connection)
        if reader.silent:
            return  # a probe of the kubelet, once a second
        reader.over()
        if not reader.http:
            self._count()

    def finished(self, connection: Connection, exchange: Exchange) -> None:
        self.exchange(connection, exchange, exchange.answers[TARGET])
        self._count()

    # -- for those who show --

    def exchange(self, connection: Connection, exchange: Exchange, answer: Answer) -> None:
        raise NotImplementedError

    def piece(self, connection: Connection, side: int, data: bytes) -> None:
        return

    def closed(self, connection: Connection, sizes: list[int], whole: bool) -> None:
        return

    def close(self) -> None:
        return


class _Reader:
    def __init__(self, owner: Exchanges, connection: Connection) -> None:
        self._owner, self._connection = owner, connection
        self._observer: Observer | None = None
        self._known = False
        self._early = b""
        self._sizes = [0, 0]
        self._whole = True

    @property
    def http(self) -> bool:
        return self._observer is not None

    @property
    def silent(self) -> bool:
        """Nobody has said a word."""
        return self._whole and not any(self._sizes)

    def data(self, side: int, data: bytes) -> None:
        self._sizes[side] += len(data)
        if not self._known and side == SERVER and len(self._early) < MAX_EARLY:
            self._early += data
            return
        if not self._known:
            self._known = True
            if side == CLIENT and (_METHOD.match(data) or PREFACE.startswith(data[: len(PREFACE)])):
                self._observer = Observer(self._told, (TARGET,))
                self._observer.client(data)
                data, side = self._early, SERVER
            elif self._early:
                self._owner.piece(self._connection, SERVER, self._early)
            self._early = b""
        if not data:
            return
        if self._observer and not self._observer.gone:
            if side == CLIENT:
                self._observer.client(data)
            else:
                self._observer.answer(TARGET, data)
        else:
            self._owner.piece(self._connection, side, data)

    def ended(self, side: int, whole: bool) -> None:
        self._whole &= whole
        if self._observer and side == SERVER:
            if whole:
                self._observer.answer_eof(TARGET)
            else:
                self._observer.lost(TARGET)

    def over(self) -> None:
        if self._early:
            self._owner.piece(self._connection, SERVER, self._early)
        if not self._observer or self._observer.gone:
            self._owner.closed(self._connection, self._sizes, self._whole)

    def _told(self, what: str, exchange: Exchange, _side: str) -> None:
        if what == "done":
            self._owner.finished(self._connection, exchange)


class Lines(Exchanges):
    """For people; with `http`, exchanges alone and all of each. `keep`: secrets too."""

    def __init__(self, count: Count, *, http: bool, keep: bool, objects: bool) -> None:
        super().__init__(count)
        self._http, self._keep, self._objects = http, keep, objects

    def exchange(self, connection: Connection, exchange: Exchange, answer: Answer) -> None:
        path = exchange.path if self._keep else secrets.path(exchange.path)
        if self._objects:
            self._object("exchange", connection, method=exchange.method, host=exchange.host, path=path, status=answer.status,
                         size=answer.body.size, ms=round(answer.seconds * 1000, 3), version=exchange.version,
                         headers=self._headers(exchange.headers), answer_headers=self._headers(answer.headers))  # fmt: skip
            return
        size = f"{answer.body.size} B"
        self._line(connection, "->", f"{exchange.method} {path}  {answer.status}  {size}  {answer.seconds * 1000:.1f} ms")
        if self._http:
            self._message(">", exchange.headers, plain(exchange.headers, exchange.body))
            self._message("<", [("status", f"{answer.status}"), *answer.headers], plain(answer.headers, answer.body))

    def piece(self, connection: Connection, side: int, data: bytes) -> None:
        if self._http:
            return
        if self._objects:
            self._object("data", connection, side=("client", "target")[side], size=len(data), text=_text(data[:CHUNK]))
            return
        cut = " ..." if len(data) > CHUNK else ""
        self._line(connection, ("->", "<-")[side], f"{len(data)} B  {_text(data[:CHUNK])}{cut}")

    def closed(self, connection: Connection, sizes: list[int], whole: bool) -> None:
        if self._http:
            return
        if self._objects:
            self._object("closed", connection, sent=sizes[CLIENT], answered=sizes[SERVER], whole=whole)
            return
        self._line(connection, "--", f"{'closed' if whole else 'reset'}, {sizes[CLIENT]} B and {sizes[SERVER]} B answered")

    def _line(self, connection: Connection, arrow: str, text: str) -> None:
        now = time.time()
        clock = f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03}"
        print(clean(f"{clock}  {_name(connection.peer)} {arrow} :{connection.local[1]}  {text}"), flush=True)

    def _message(self, mark: str, headers: Headers, body: bytes) -> None:
        lines = [f"{name}: {value}" for name, value in self._headers(headers)]
        if body:
            lines += ["", *_text(body[:SHOWN], keep="\n").split("\n")]
            if len(body) > SHOWN:
                lines.append(f"... and {len(body) - SHOWN} B")
        print(clean("\n".join(f"  {mark} {line}".rstrip() for line in lines)), flush=True)

    def _headers(self, headers: Headers) -> Headers:
        return headers if self._keep else secrets.headers(headers)

    def _object(self, kind: str, connection: Connection, **fields: Any) -> None:
        about = {"type": kind, "time": round(time.time(), 6), "peer": list(connection.peer), "local": list(connection.local)}
        print(json.dumps(about | fields), flush=True)


class Har(Exchanges):
    """`fd` is a file that can be truncated."""

    def __init__(self, count: Count, fd: int, version: str, *, keep: bool) -> None:
        super().__init__(count)
        self._keep = keep
        self._writer = har.Writer(fd, version)

    def exchange(self, connection: Connection, exchange: Exchange, answer: Answer) -> None:
        now = time.monotonic()
        made = har.entry(exchange, answer, peer=connection.peer, local=connection.local, ended=now, keep=self._keep)
        self._writer.add(made)


class Packets:
    def __init__(self, count: Count, fd: int, version: str) -> None:
        self._count = count
        self._file = pcapng.Pcapng(lambda data: _write(fd, data), f"sidestage {version}")
        self._flows: dict[Connection, pcapng.Flow] = {}

    def began(self, connection: Connection) -> None:
        self._flows[connection] = self._file.flow(connection.peer, connection.local, time.time())

    def data(self, connection: Connection, side: int, data: bytes) -> None:
        self._flows[connection].data(side, data, time.time())

    def ended(self, connection: Connection, side: int, whole: bool) -> None:
        flow = self._flows[connection]
        if whole:
            flow.end(side, time.time())
        else:
            flow.abort(side, time.time())

    def over(self, connection: Connection) -> None:
        del self._flows[connection]
        self._count()

    def close(self) -> None:
        return


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _name(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _text(data: bytes, keep: str = "") -> str:
    """On one line, or with the line ends in `keep`; what is no text as hexadecimal."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 4:  # else a character that was cut
            return data[:64].hex(" ") + (" ..." if len(data) > 64 else "")
        text = data[: error.start].decode()
    if sum(not (char.isprintable() or char in "\r\n\t") for char in text) > len(text) // 8:
        return data[:64].hex(" ") + (" ..." if len(data) > 64 else "")
    return text.replace("\r", "") if keep else text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
