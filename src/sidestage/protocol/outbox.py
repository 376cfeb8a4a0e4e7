"""What waits to be written: control first, then the channels by turns, a frame each, so that no bulk holds up another channel.

A channel's queue is bounded: beyond QUEUE `room` says 0, and `relieved` tells of the channel when half of that has left.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, List, Tuple

from sidestage.protocol import wire
from sidestage.protocol.messages import Buffer

QUEUE = 512 << 10  # bytes of one channel that wait here; its window may be many times that
_JOINED = 4096  # a payload up to this size is copied behind its header, which costs less than one buffer more


class Queue:
    """One channel's frames; they leave in order."""

    __slots__ = ("asked", "channel", "frames", "size")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.frames: Deque[Tuple[Buffer, ...]] = deque()
        self.size = 0
        self.asked = False  # its owner was told of little room, and waits for more


class Outbox:
    def __init__(self, greeting: bytes) -> None:
        self._control: List[Buffer] = [greeting]
        self._turns: Deque[Queue] = deque()  # those that have frames
        self._last = b""
        self._relieved: List[int] = []
        self.pending = len(greeting)  # bytes that wait to be taken

    def control(self, frame: bytes) -> None:
        self._control.append(frame)
        self.pending += len(frame)

    def controls(self) -> int:
        return len(self._control)

    def put(self, queue: Queue, *frame: Buffer) -> None:
        """A frame, in one part or more, that must not overtake those before it in its queue."""
        if not queue.frames:
            self._turns.append(queue)
        size = sum(map(len, frame))
        queue.frames.append(frame)
        queue.size += size
        self.pending += size

    def data(self, queue: Queue, payload: Buffer) -> None:
        header = wire.HEADER.pack(len(payload), wire.DATA, queue.channel)
        if len(payload) <= _JOINED:
            self.put(queue, b"".join((header, payload)))
        else:
            self.put(queue, header, payload)

    def last(self, frame: bytes) -> None:
        """The frame after all others."""
        self._last += frame
        self.pending += len(frame)

    def room(self, queue: Queue) -> int:
        room = max(QUEUE - queue.size, 0)
        queue.asked = queue.asked or room * 2 < QUEUE
        return room

    def take(self, limit: int) -> List[Buffer]:
        """Wire bytes for the next write: all control, then whole frames of the channels until `limit` is reached."""
        out, self._control = self._control, []
        size = sum(map(len, out))
        turns = self._turns
        while turns and size < limit:
            queue = turns.popleft()
            frame = queue.frames.popleft()
            length = sum(map(len, frame))
            out += frame
            size += length
            queue.size -= length
            if queue.frames:
                turns.append(queue)
            if queue.asked and queue.size * 2 <= QUEUE:
                queue.asked = False
                self._relieved.append(queue.channel)
        if self._last and not turns and size < limit:
            out.append(self._last)
            size += len(self._last)
            self._last = b""
        self.pending -= size
        return out

    def relieved(self) -> List[int]:
        """The channels that have room again, each told once."""
        relieved, self._relieved = self._relieved, []
        return relieved
