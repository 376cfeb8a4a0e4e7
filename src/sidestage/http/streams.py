"""One client's streams of HTTP/2, and the connections (legs) that they are spread over."""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, List, NamedTuple, Optional

from sidestage.http.hpack import Decoder, Field
from sidestage.http.http2 import MAX_FRAME, SIZE, WINDOW, Blocks, Splitter
from sidestage.http.orders import REPLAY

MAX_LATE = 100  # streams that may still be answered after they were taken back


class Part(NamedTuple):
    """A piece of a request: data, or its trailers."""

    data: bytes
    trailers: Optional[List[Field]]
    end: bool


class Leg:
    """A connection to a program: what it allows us, and which of its streams is whose."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.last = -1  # the highest stream that was opened on it
        self.window = self.initial = WINDOW  # bytes that it takes, on the connection and on a new stream
        self.size = SIZE  # and in a frame
        self.updates: List[int] = []  # sizes of its decoder's table that it has yet to be told
        self.streams: Dict[int, Stream] = {}
        self.splitter, self.blocks, self.decoder = Splitter(), Blocks(), Decoder()
        self.splitter.limit = MAX_FRAME  # the client knows what it has allowed
        self.greeted = self.draining = False
        self.late: Dict[int, int] = {}  # the client's numbers of some streams that it took back
        self.unread = 0  # answers to its PINGs and SETTINGS while it reads nothing

    def number(self, wanted: int) -> int:
        """Takes the next number for a stream: `wanted` if it is still to be had."""
        self.last = max(wanted, self.last + 2)
        return self.last

    def take_updates(self) -> List[int]:
        """The smallest of them: what we write needs no table."""
        updates, self.updates = self.updates, []
        return [min(updates)] if updates else []


    def remember(self, stream: "Stream") -> None:
        if len(self.late) >= MAX_LATE:
            self.late.pop(next(iter(self.late)))
        self.late[stream.sid] = stream.cid


class Stream:
    """A request of the client and its answer. Without a leg it waits for its body to be decided."""

    __slots__ = ("aged", "answered", "begun", "cid", "down", "ended", "fields", "kept", "leg", "queue", "queued", "sid", "window")

    def __init__(self, cid: int, fields: List[Field], ended: bool) -> None:
        self.cid = self.sid = cid  # its number at the client, and on its leg
        self.fields = fields
        self.ended = ended  # the request is complete
        self.begun = self.answered = False  # the answer has begun; is complete
        self.leg: Optional[Leg] = None
        self.window = 0  # bytes that the leg takes
        self.queue: Deque[Part] = deque()
        self.queued = 0  # bytes in it
        self.kept: Optional[List[Part]] = []  # what came, to ask another; None: too long, or too late
        self.down = "pass"
        self.aged = False  # has waited for one turn of the timer

    def push(self, part: Part) -> None:
        self.queue.append(part)
        self.queued += len(part.data)
        self.ended = self.ended or part.end
        if self.kept is not None:
            self.kept.append(part)
            if sum(len(one.data) for one in self.kept) > REPLAY or len(self.kept) > REPLAY >> 8:
                self.kept = None

    def body(self) -> bytes:
        return b"".join(part.data for part in self.queue)


class Down(NamedTuple):
    """What waits for the client's window: data, or a frame behind it."""

    frame: bytes
    leg: Leg
    cid: int
    data: bytes
    end: bool
