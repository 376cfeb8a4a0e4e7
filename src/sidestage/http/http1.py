"""Where an HTTP/1 request or response ends (RFC 9112), sans-IO, strict: two opinions raise Ambiguous.

Nothing is normalised and nothing re-encoded: the reader only says how many of the bytes belong to a message. What a lenient
server may read in another way (bare LF, folded lines, two lengths, a length beside a transfer coding, ...) is refused here,
so that whoever routes by what this module says can't be made to disagree with the server behind it.
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Union

MAX_HEAD = 64 << 10  # bytes of a request line or status line with its fields; nginx takes 32 KiB, Go 1 MiB
MAX_CHUNK_LINE = 4 << 10  # bytes of a chunk's size with its extensions
MAX_TRAILERS = 16 << 10  # bytes of a trailer section
METHOD = rb"[A-Z][A-Z_-]{0,31}"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_FIELDS = rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*)\r\n"
_REQUEST = re.compile(rb"(" + METHOD + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: " + _VALUE + rb")?\r\n" + _FIELDS)
# One search for all that frames. `_` for `-`: gateways of the CGI tradition read both as one name.
_FRAMING = re.compile(
    rb"(?im)^(content[-_]length|transfer[-_]encoding|connection|upgrade|expect|host):([^\r]*)"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;" + _VALUE + rb")?\r\n")
_TRAILER = re.compile(_TOKEN + rb":" + _VALUE + rb"\r\n")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
# What the first bytes of a connection must be, as far as they have come, to be a request of HTTP/1.
_BEGINNING = re.compile(METHOD + rb"(?: (?:[\x21-\x7e]+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01](?:\r\n?)?)?)?)?)?)?)?)?)?)?)?)?\Z")


class Ambiguous(Exception):
    """No HTTP, broken HTTP, or HTTP that two readers may split in two ways."""


class Request(NamedTuple):
    raw: bytes  # from the request line to the empty line
    method: bytes
    target: bytes
    fields: bytes  # the field lines, each with its CRLF
    body: "Union[int, Chunked]"  # its length, or the reader of its chunks
    persistent: bool  # the connection goes on after it
    upgrade: bytes  # value of Upgrade, or empty
    expects: bool  # the client waits for 100 (Continue) before it sends the body


class Response(NamedTuple):
    raw: bytes
    status: int
    body: "Union[int, Chunked, None]"  # None: it ends with the connection
    persistent: bool


class Chunked:
    """Reads a body of chunks; `keep` collects what they carry."""

    __slots__ = ("_left", "_line", "_trailers", "data")

    def __init__(self) -> None:
        self._left = 0  # bytes of the chunk and its CRLF
        self._line = b""  # the beginning of a line that has not all come
        self._trailers = -1  # bytes of the trailer section so far; -1: not there yet
        self.data: Optional[bytearray] = None

    def keep(self) -> None:
        self.data = bytearray()

    def feed(self, data: bytes, at: int = 0) -> int:
        """The index behind the body's end, or -1: all of `data` from `at` on belongs to it. Raises Ambiguous."""
        end = len(data)
        while at < end:
            if self._left > 2:
                take = min(self._left - 2, end - at)
                if self.data is not None:
                    self.data += data[at : at + take]
                at += take
                self._left -= take
            elif self._left:  # the CRLF behind a chunk
                if data[at] != (13 if self._left == 2 else 10):
                    raise Ambiguous("a chunk longer than it says")
                at += 1
                self._left -= 1
            else:
                stop = data.find(b"\n", at)
                line = self._line + data[at : stop + 1 if stop >= 0 else end]
                if stop < 0:
                    if len(line) > MAX_CHUNK_LINE:
                        raise Ambiguous("a chunk's size without end")
                    self._line = line
                    return -1
                self._line = b""
                at = stop + 1
                if self._line_read(line):
                    return at
        return -1

    def _line_read(self, line: bytes) -> bool:
        """Takes a chunk's first line or a trailer; True at the end of all."""
        if self._trailers < 0:
            match = _CHUNK.fullmatch(line)
            if not match or len(line) > MAX_CHUNK_LINE:
                raise Ambiguous("not a chunk's size")
            size = int(match[1], 16)
            if size:
                self._left = size + 2
            else:
                self._trailers = 0
            return False
        if line == b"\r\n":
            return True
        self._trailers += len(line)
        if self._trailers > MAX_TRAILERS or not _TRAILER.fullmatch(line) or _FRAMING.match(line):
            raise Ambiguous("not a trailer")
        return False


def begins_http1(data: bytes) -> bool:
    """May a connection that begins with `data` be HTTP/1? Looks at no more than the first line."""
    stop = data.find(b"\n")
    line = data[: stop + 1] if stop >= 0 else data
    return len(line) <= MAX_HEAD and _BEGINNING.match(line) is not None


def head_end(data: bytes, start: int = 0, seen: int = 0) -> int:
    """The index behind a head's empty line, or -1 when it has not all come; `seen`: so much was looked at before, lest a head
    that comes byte by byte cost the square of its length. Raises Ambiguous."""
    end = data.find(b"\r\n\r\n", max(start, seen - 3)) + 4
    if end >= 4:
        if end - start > MAX_HEAD:
            raise Ambiguous("too long a head")
        return end
    if len(data) - start > MAX_HEAD or _BARE.search(data, max(start, seen - 1)):
        raise Ambiguous("too long a head, or lines that don't end by CRLF")
    return -1


def request(raw: bytes) -> Request:
    """Reads a whole head. Raises Ambiguous."""
    match = _REQUEST.fullmatch(raw)
    if not match:
        raise Ambiguous("not a request's head")
    method, target, minor, fields = match.groups()
    length: Optional[int] = None
    chunked = expects = False
    hosts = 0
    upgrade = connection = b""
    for name, value in _FRAMING.findall(fields):
        kind, value = name.lower(), value.strip(b" \t")
        if kind == b"host":
            hosts += 1
        elif kind == b"connection":
            connection += b"," + value.lower()
        elif kind == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise Ambiguous("more than one length, or no number")
            length = int(value)
        elif kind == b"transfer-encoding":
            if chunked or value.lower() != b"chunked" or minor == b"0":
                raise Ambiguous("a transfer coding other than chunked")
            chunked = True
        elif kind == b"upgrade":
            upgrade += value
        elif kind == b"expect":
            if value.lower() != b"100-continue":
                raise Ambiguous("an expectation other than 100-continue")
            expects = True
        elif b"_" in kind:
            raise Ambiguous("a name that some read as one of framing")
    if hosts != 1 and (minor == b"1" or hosts):
        raise Ambiguous("not one Host")
    if chunked and length is not None:
        raise Ambiguous("a length beside a transfer coding")
    return Request(
        raw, method, target, fields, Chunked() if chunked else length or 0, _persistent(connection, minor), upgrade, expects
    )


def response(raw: bytes, method: bytes) -> Response:
    """Reads a whole head, of an answer to `method`. Raises Ambiguous."""
    match = _RESPONSE.fullmatch(raw)
    if not match:
        raise Ambiguous("not a response's head")
    minor, status, fields = match[1], int(match[2]), match[3]
    length: Optional[int] = None
    coding: Optional[bytes] = None
    connection = b""
    for name, value in _FRAMING.findall(fields):
        kind, value = name.lower(), value.strip(b" \t")
        if kind == b"connection":
            connection += b"," + value.lower()
        elif kind == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise Ambiguous("more than one length, or no number")
            length = int(value)
        elif kind == b"transfer-encoding":
            if coding is not None or value.lower() != b"chunked" or minor == b"0":
                raise Ambiguous("a transfer coding other than chunked")
            coding = value
    body: Union[int, Chunked, None]
    if method == b"HEAD" or status < 200 or status in (204, 304) or (method == b"CONNECT" and status < 300):
        body = 0  # RFC 9112 6.3, whatever the fields say
    elif coding is not None:
        if length is not None:
            raise Ambiguous("a length beside a transfer coding")
        body = Chunked()
    else:
        body = length
    return Response(raw, status, body, _persistent(connection, minor) and body is not None)


def lines(fields: bytes) -> List[str]:
    """Each field as `Name: value`."""
    parts = [line.partition(":") for line in fields.decode("latin-1").split("\r\n")[:-1]]
    return [f"{name}: {value.strip()}" for name, _, value in parts]


def _persistent(connection: bytes, minor: bytes) -> bool:
    """RFC 9112 9.3."""
    if not connection:
        return minor == b"1"
    options = [option.strip() for option in connection.split(b",")]
    return b"close" not in options and (minor == b"1" or b"keep-alive" in options)


def without_upgrade(raw: bytes) -> bytes:
    """A request's head that asks for no other protocol."""
    line, _, rest = raw.partition(b"\r\n")
    kept = [line]
    for field in rest.split(b"\r\n")[:-2]:
        name, _, value = field.partition(b":")
        if name.lower() == b"connection":
            options = [option.strip() for option in value.split(b",")]
            options = [option for option in options if option.lower() not in (b"upgrade", b"http2-settings")]
            field = name + b": " + b", ".join(options) if options else b""
        elif name.lower() in (b"upgrade", b"http2-settings"):
            field = b""
        if field:
            kept.append(field)
    return b"\r\n".join(kept) + b"\r\n\r\n"


class Answer:
    """Reads what answers one request: interim responses, and the final one."""

    __slots__ = ("_chunks", "_head", "_left", "_method", "persistent", "state", "status")
    HEAD, LENGTH, CHUNKS, END, DONE, SWITCHED = range(6)  # what comes next; END: all, until the connection's end

    def __init__(self, method: bytes) -> None:
        self._method = method
        self._head = b""  # the beginning of a head
        self._left = 0
        self._chunks = Chunked()
        self.state, self.status, self.persistent = self.HEAD, 0, True

    def begun(self) -> bytes:
        """The beginning of a head that has not been passed on; it is taken away."""
        begun, self._head = self._head, b""
        return begun

    def feed(self, data: bytes) -> "tuple[bytes, int]":
        """What has come, with an earlier beginning, and how much of it to pass on. Stops behind the answer's end, and behind
        the head of an answer that switches protocols. Raises Ambiguous; then `begun()` has all that was not passed on."""
        seen = len(self._head)
        if seen:
            data = self._head + data
        self._head = data
        at, size = 0, len(data)
        while at < size and self.state < self.DONE:
            if self.state == self.HEAD:
                end = head_end(data, at, seen)
                if end < 0:
                    self._head = data[at:]
                    return data, at
                self._read(response(data[at:end] if end < size or at else data, self._method))
                at = end
            elif self.state == self.LENGTH:
                take = min(self._left, size - at)
                at += take
                self._left -= take
                if not self._left:
                    self.state = self.DONE
            elif self.state == self.CHUNKS:
                end = self._chunks.feed(data, at)
                at = end if end >= 0 else size
                if end >= 0:
                    self.state = self.DONE
            else:
                at = size
        self._head = b""
        return data, at

    def _read(self, head: Response) -> None:
        self.status = head.status
        if head.status == 101 or (self._method == b"CONNECT" and 200 <= head.status < 300):
            self.state = self.SWITCHED
        elif head.status >= 200:
            self.persistent = head.persistent
            if head.body is None:
                self.state = self.END
            elif isinstance(head.body, int):
                self.state, self._left = self.LENGTH if head.body else self.DONE, head.body
            else:
                self.state, self._chunks = self.CHUNKS, head.body
