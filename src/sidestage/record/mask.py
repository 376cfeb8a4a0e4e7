"""Secrets in what is recorded become x's of the same length, so that lengths and framing stay as they were.

Masked: values of variables and contents of files whose names speak of secrets, passwords in URLs, and the values of HTTP/1 header
fields whose names do. HTTP/2 compresses its header fields, so they can't be masked in place: such connections are left out.
"""

from __future__ import annotations

import re

from sidestage.exchange.secrets import secret

_IN_URL = re.compile(rb"(://[^:/@\s]*:)([^@\s]+)(?=@)")
_FILES = re.compile(
    r"(?i)/secrets?/|/run/secrets|\.(?:pem|key|p12|pfx|jks|kdbx)\Z|/(?:\.env|\.netrc|\.pgpass|id_[a-z0-9]+|[^/]*token[^/]*|"
    r"[^/]*password[^/]*|[^/]*credential[^/]*|[^/]*secret[^/]*)\Z"
)
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, 5.6.2: of bodies, few lines begin so
MAX_NAME = 64  # bytes of a header field's name that are looked at
MASK = b"x"


def environment(raw: bytes) -> bytes:
    """NUL-separated K=V."""
    return b"\0".join(map(_variable, raw.split(b"\0")))


def _variable(item: bytes) -> bytes:
    name, sep, value = item.partition(b"=")
    if sep and secret(name.decode(errors="replace")):
        return name + sep + MASK * len(value)
    return _IN_URL.sub(lambda match: match[1] + MASK * len(match[2]), item)


def is_secret_file(path: str) -> bool:
    return bool(_FILES.search(path))


class Headers:
    """Masks header fields' values in a stream of bytes that is cut anywhere."""

    def __init__(self) -> None:
        self._line = b""  # what came of the current line's beginning, as long as it may be a name
        self._masking = False

    def feed(self, data: bytes) -> bytes:
        return b"".join(map(self._piece, data.splitlines(keepends=True)))

    def _piece(self, piece: bytes) -> bytes:
        """A line, or a part of one."""
        ends = piece.endswith(b"\n")
        body = piece.rstrip(b"\r\n")
        if self._masking:
            masked = MASK * len(body) + piece[len(body) :]
        else:
            seen = self._line + body
            name, colon, _ = seen.partition(b":")
            if colon and _HEADER.fullmatch(name) and secret(name.decode()):
                self._masking = True
                clear = max(0, len(name) + 1 - len(self._line))
                masked = piece[:clear] + MASK * len(body[clear:]) + piece[len(body) :]
            else:
                masked = piece
                self._line = seen[: MAX_NAME + 1]
        if ends:
            self._line, self._masking = b"", False
        return masked
