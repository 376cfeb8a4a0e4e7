"""Frames in and out: whatever slices, the same bytes; whatever is queued, control first and the channels by turns."""

from __future__ import annotations

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as s

from sidestage.protocol import wire
from sidestage.protocol.inbox import Inbox
from sidestage.protocol.outbox import QUEUE, Outbox, Queue

HELLO = wire.PREAMBLE.pack(wire.MAGIC, wire.VERSION)
LONG = wire.MAX_RECORD + 1000


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack("!IBI", len(payload), kind, channel) + payload


sizes = s.sampled_from([0, 1, 9, 300, wire.MAX_RECORD, wire.MAX_RECORD + 1, LONG, 3 * LONG])
lists = s.lists(s.tuples(s.sampled_from([wire.DATA, wire.REPLY]), s.integers(1, 3), sizes), max_size=6)


@settings(deadline=None)
@example([(wire.DATA, 1, LONG), (wire.DATA, 2, 5), (wire.REPLY, 3, LONG)], [1])
@given(lists, s.lists(s.integers(1000, 2 * LONG), min_size=1))
def test_any_slices_are_the_same_frames(frames: list[tuple[int, int, int]], steps: list[int]) -> None:
    told = [(kind, channel, bytes([65 + n]) * size) for n, (kind, channel, size) in enumerate(frames)]
    stream = HELLO + b"".join(frame(*one) for one in told)
    inbox, at, got = Inbox(), 0, list[tuple[int, int, bytes]]()
    while at < len(stream):
        step = steps[at % len(steps)]
        got += [(kind, channel, bytes(payload)) for kind, channel, payload in inbox.feed(stream[at : at + step])]
        at += step
    pieces = iter(got)
    for kind, channel, payload in told:
        found = next(pieces)
        if kind == wire.DATA and len(payload) > wire.MAX_RECORD:  # in one piece or more, none of them empty
            while len(found[2]) < len(payload):
                more = next(pieces)
                assert found[:2] == more[:2] and more[2]
                found = (*found[:2], found[2] + more[2])
        assert found == (kind, channel, payload)
    assert not list(pieces)


def test_reads_can_be_aligned_with_frames() -> None:
    inbox = Inbox()
    assert inbox.wanted() == 0
    list(inbox.feed(HELLO + frame(wire.DATA, 1, bytes(LONG))[:-LONG]))
    assert inbox.wanted() == LONG + wire.HEADER.size
    list(inbox.feed(bytes(LONG - 10)))
    assert inbox.wanted() == 0  # the rest is short: read what there is
    list(inbox.feed(bytes(10) + frame(wire.REPLY, 1, bytes(LONG))[:20]))
    assert inbox.wanted() == LONG - 11 + wire.HEADER.size


def test_long_payloads_are_views_and_short_ones_keep_nothing_alive() -> None:
    inbox = Inbox()
    ((_, _, long),) = inbox.feed(HELLO + frame(wire.DATA, 1, bytes(LONG)))
    assert isinstance(long, memoryview)
    _, (_, _, short) = inbox.feed(frame(wire.DATA, 1, bytes(LONG)) + frame(wire.DATA, 2, bytes(100)))
    assert isinstance(short, bytes)


def taken(box: Outbox, limit: int) -> bytes:
    return b"".join(box.take(limit))


def test_channels_take_turns_and_control_overtakes() -> None:
    box, bulk, small = Outbox(HELLO), Queue(1), Queue(2)
    for n in range(4):
        box.data(bulk, bytes([n]) * 5000)
    box.data(small, b"a")
    box.data(small, b"b")
    box.last(b"bye")
    assert taken(box, 1) == HELLO
    assert taken(box, 1) == frame(wire.DATA, 1, b"\0" * 5000)
    box.control(b"ping")
    assert taken(box, 1) == b"ping"
    assert taken(box, 1) == frame(wire.DATA, 2, b"a")
    assert taken(box, 1) == frame(wire.DATA, 1, b"\1" * 5000)
    assert taken(box, 1) == frame(wire.DATA, 2, b"b")
    assert taken(box, 1 << 20) == frame(wire.DATA, 1, b"\2" * 5000) + frame(wire.DATA, 1, b"\3" * 5000) + b"bye"
    assert box.pending == 0 and taken(box, 1 << 20) == b""


def test_a_channel_is_told_when_there_is_room_again_and_once() -> None:
    box, queue, other = Outbox(b""), Queue(7), Queue(8)
    box.data(other, bytes(QUEUE // 4))
    assert box.room(other) > QUEUE // 2  # enough: need not be told
    while box.room(queue):
        box.data(queue, bytes(box.room(queue) // 2 + 1))
    taken(box, QUEUE // 4)
    assert box.relieved() == []
    while box.pending:
        taken(box, 1)
    assert box.relieved() == [7] and box.relieved() == [] and box.room(queue) == QUEUE


@given(s.lists(s.tuples(s.integers(0, 3), s.integers(0, 6000)), max_size=40), s.integers(0, 9000))
def test_each_channel_leaves_whole_and_in_order(puts: list[tuple[int, int]], limit: int) -> None:
    box, queues = Outbox(b""), [Queue(n) for n in range(4)]
    for n, (which, size) in enumerate(puts):
        box.data(queues[which], bytes([n]) * size)
    out = b""
    while box.pending:
        before = box.pending
        part = taken(box, limit or 1)
        assert len(part) == before - box.pending
        out += part
    got = [(channel, bytes(payload)) for _, channel, payload in Inbox().feed(HELLO + out)]
    for which in range(4):
        wanted = [bytes([n]) * size for n, (channel, size) in enumerate(puts) if channel == which]
        assert [payload for channel, payload in got if channel == which] == wanted
    assert not any(queue.size for queue in queues)
