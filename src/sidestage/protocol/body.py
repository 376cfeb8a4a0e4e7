"""Payloads of frames: JSON objects, with raw bytes behind them where a call or its answer carries some.

What the peer sent is checked here, so that no other error than ProtocolError comes of it.
"""

from __future__ import annotations

import json
from typing import Any

from sidestage.protocol import wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import Args, Buffer

EIO, MAX_ERRNO = 5, 4095  # include/linux/err.h
_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder each time
_decode = json.JSONDecoder().raw_decode  # json.loads would look for white space first, which takes as long


def dump(value: Args) -> bytes:
    return _encode(value).encode()


def failure(errno: int, text: str) -> bytes:
    # getaddrinfo(3) has errors of its own, negative ones, which Python gives as errno
    return dump({"errno": errno if 0 < errno <= MAX_ERRNO else EIO, "text": text})


def head(value: Args) -> bytes:
    """What comes before raw bytes."""
    data = dump(value)
    return wire.LENGTH.pack(len(data)) + data


def load(data: Buffer) -> Args:
    try:
        string = bytes(data).decode()
        value, end = _decode(string)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"malformed JSON: {error}") from error
    if not isinstance(value, dict) or end != len(string):
        raise ProtocolError("JSON that is no object, or more than one")
    return value


def split(payload: Buffer) -> "tuple[Args, Buffer]":
    """Of a long payload the raw bytes are a view."""
    if len(payload) < wire.LENGTH.size:
        raise ProtocolError("short payload")
    end = wire.LENGTH.size + wire.LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise ProtocolError("JSON longer than its frame")
    return load(payload[wire.LENGTH.size : end]), payload[end:]


def text(head: Args, key: str) -> str:
    value: Any = head.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"{key!r} is missing or no text")
    return value


def obj(head: Args, key: str) -> Args:
    value: Any = head.get(key)
    if not isinstance(value, dict):
        raise ProtocolError(f"{key!r} is missing or no object")
    return value


def errno_of(head: Args) -> int:
    value: Any = head.get("errno")
    if type(value) is not int or not 0 < value <= MAX_ERRNO:  # a bool is an int
        raise ProtocolError("'errno' is missing or no error number")
    return value
