"""What a mux tells its owner: one small class an event."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Union

Args = Dict[str, Any]
Buffer = Union[bytes, bytearray, memoryview]  # a view when it is long


class Called(NamedTuple):
    call: int
    op: str
    args: Args
    raw: Buffer


class Replied(NamedTuple):
    call: int
    result: Args
    raw: Buffer


class CallFailed(NamedTuple):
    call: int
    errno: int
    text: str


class Opened(NamedTuple):
    channel: int
    kind: str
    args: Args


class Accepted(NamedTuple):
    channel: int
    info: Args


class Refused(NamedTuple):
    channel: int
    errno: int
    text: str


class Data(NamedTuple):
    channel: int
    data: Buffer


class Eof(NamedTuple):
    channel: int


class Reset(NamedTuple):
    channel: int


class Credit(NamedTuple):
    channel: int
    writable: int


class Noticed(NamedTuple):
    name: str
    args: Args


class Pong(NamedTuple):
    token: int


class Bye(NamedTuple):
    pass


Event = Union[
    Called, Replied, CallFailed, Opened, Accepted, Refused, Data, Eof, Reset, Credit, Noticed, Pong, Bye
]
