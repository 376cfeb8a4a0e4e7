"""Every frame as bytes, whole and byte by byte; every way to break the protocol; and bytes that nobody meant."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as s

from sidestage.protocol import wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import (
    Accepted,
    Args,
    Bye,
    Called,
    CallFailed,
    Credit,
    Data,
    Eof,
    Event,
    Noticed,
    Opened,
    Pong,
    Refused,
    Replied,
    Reset,
)  # fmt: skip
from sidestage.protocol.mux import Mux

PREAMBLE = b"SIDESTG\n\x00\x01"


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    return struct.pack("!IBI", len(payload), kind, channel) + payload


def head(value: object, raw: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("!I", len(text)) + text + raw


def laptop() -> Mux:
    """With a call (1) that waits, channels of its own: 1 opening, 3 open, 5 forgotten; and of the agent's: 2 asked, 4 open."""
    mux = Mux("laptop")
    mux.call("env", {})
    for _ in range(3):
        mux.open("tcp", {})
    mux.feed(PREAMBLE + b"".join(frame(wire.OPEN, n, b'{"kind":"mirror","args":{}}') for n in (2, 4)))
    mux.feed(frame(wire.ACCEPT, 3, b"{}") + frame(wire.RESET, 5))
    mux.accept(4, {})
    mux.take(1 << 30)
    return mux


FRAMES: list[tuple[bytes, Event | None]] = [
    (frame(1, 7, head({"op": "open", "args": {"path": "/\udcff"}}, b"\0raw")), Called(7, "open", {"path": "/\udcff"}, b"\0raw")),
    (frame(2, 1, head({"eof": True}, b"A=1\0")), Replied(1, {"eof": True}, b"A=1\0")),
    (frame(3, 1, b'{"errno":2,"text":"no \xc3\xa9"}'), CallFailed(1, 2, "no é")),
    (frame(4, 6, b'{"kind":"mirror","args":{"port":80}}'), Opened(6, "mirror", {"port": 80})),
    (frame(5, 1, b'{"local":["10.0.0.1",4]}'), Accepted(1, {"local": ["10.0.0.1", 4]})),
    (frame(6, 1, b'{"errno":111,"text":""}'), Refused(1, 111, "")),
    (frame(7, 3, b"data"), Data(3, b"data")),
    (frame(7, 4, b""), Data(4, b"")),
    (frame(7, 2, b"early"), Data(2, b"early")),
    (frame(8, 3), Eof(3)),
    (frame(9, 4), Reset(4)),
    (frame(9, 2), Reset(2)),
    (frame(10, 3, b"\0\0\0\x05"), Credit(3, wire.WINDOW + 5)),
    (frame(11, 0, b'{"name":"warning","args":{"text":"x"}}'), Noticed("warning", {"text": "x"})),
    (frame(12, 0xFFFFFFFF), None),
    (frame(13, 9), Pong(9)),
    (frame(14, 0), Bye()),
    *[(frame(kind, 5, payload), None) for kind, payload in [(5, b"{}"), (6, b"{}"), (7, b"x"), (8, b""), (9, b""), (10, bytes(4))]],
]  # fmt: skip


@pytest.mark.parametrize(("data", "event"), FRAMES)
def test_a_frame_whole_and_byte_by_byte(data: bytes, event: Event | None) -> None:
    expected = [] if event is None else [event]
    assert laptop().feed(data) == expected
    mux = laptop()
    assert [got for at in range(len(data)) for got in mux.feed(data[at : at + 1])] == expected
    if data[4] == wire.PING:
        assert b"".join(mux.take(100)) == frame(wire.PONG, 0xFFFFFFFF)


def test_all_kinds_are_in_the_list() -> None:
    assert {data[4] for data, _ in FRAMES} == set(range(1, 15))


def test_what_is_written_is_what_the_page_says() -> None:
    mux = Mux("agent", max_data=3)
    assert b"".join(mux.take(0)) == PREAMBLE
    mux.feed(PREAMBLE + frame(wire.OPEN, 1, b'{"kind":"tcp","args":{}}') + frame(wire.CALL, 9, head({"op": "x", "args": {}})))
    assert mux.open("mirror", {"port": 1}) == 2
    mux.accept(1, {})
    mux.send(1, b"four")
    mux.send_eof(1)
    mux.reply(9, {"a": 1}, b"raw")
    mux.event("warning", {})
    mux.ping(8)
    mux.bye()
    assert b"".join(mux.take(1 << 20)) == b"".join(
        [
            frame(4, 2, b'{"kind":"mirror","args":{"port":1}}'), frame(5, 1, b"{}"),
            frame(2, 9, struct.pack("!I", 7) + b'{"a":1}raw'), frame(11, 0, b'{"name":"warning","args":{}}'), frame(12, 8),
            frame(7, 1, b"fou"), frame(7, 1, b"r"), frame(8, 1), frame(14, 0),
        ]
    )  # fmt: skip


WRONG = {
    "unknown type": frame(15, 0), "type 0": frame(0, 0),
    "too long, known by its header": struct.pack("!IBI", wire.MAX_PAYLOAD + 1, wire.DATA, 3),
    "data of a channel never opened, ours": frame(7, 7, b"x"), "never opened, theirs": frame(7, 6, b"x"),
    "channel 0": frame(7, 0, b"x"), "data before accept": frame(7, 1, b"x"),
    "data after EOF": frame(8, 3) + frame(7, 3, b"x"), "EOF twice": frame(8, 3) * 2, "EOF before accept": frame(8, 1),
    "beyond the window": frame(7, 3, bytes(wire.WINDOW)) + frame(7, 3, b"x"),
    "opened with our parity": frame(4, 7, b'{"kind":"tcp","args":{}}'), "opened again": frame(4, 4, b'{"kind":"tcp","args":{}}'),
    "opened backwards": frame(4, 8, b'{"kind":"t","args":{}}') + frame(4, 6, b'{"kind":"t","args":{}}'),
    "channel 0 opened": frame(4, 0, b'{"kind":"tcp","args":{}}'),
    "accepted twice": frame(5, 3, b"{}"), "accepted by its opener": frame(5, 2, b"{}"), "refused by its opener": frame(6, 2, b"{}"),
    "refused once open": frame(6, 3, b'{"errno":1,"text":""}'),
    "answer to nothing": frame(2, 2, head({})), "answered twice": frame(2, 1, head({})) * 2, "failed nothing": frame(3, 2, b"{}"),
    "called twice": frame(1, 5, head({"op": "a", "args": {}})) * 2, "no op": frame(1, 5, head({"args": {}})),
    "no args": frame(1, 5, head({"op": "a"})), "args no object": frame(1, 5, head({"op": "a", "args": [1]})),
    "op no text": frame(1, 5, head({"op": 1, "args": {}})), "JSON no object": frame(2, 1, head([1])),
    "no JSON": frame(2, 1, struct.pack("!I", 2) + b"{]"), "no UTF-8": frame(5, 1, b'{"\xff":1}'),
    "deep JSON": frame(5, 1, b'{"a":' + b"[" * 200_000), "huge number": frame(5, 1, b'{"a":' + b"9" * 100_000 + b"}"),
    "JSON longer than its frame": frame(2, 1, struct.pack("!I", 3) + b"{}"), "short payload": frame(2, 1, b"\0\0"),
    "errno 0": frame(3, 1, b'{"errno":0,"text":""}'), "errno 4096": frame(3, 1, b'{"errno":4096,"text":""}'),
    "errno no number": frame(3, 1, b'{"errno":"2","text":""}'), "errno missing": frame(3, 1, b'{"text":""}'),
    "negative errno": frame(3, 1, b'{"errno":-2,"text":""}'), "errno true": frame(3, 1, b'{"errno":true,"text":""}'),
    "text missing": frame(3, 1, b'{"errno":1}'),
    "short credit": frame(10, 3, b"\0"), "long credit": frame(10, 3, bytes(5)), "credit of nothing": frame(10, 7, bytes(4)),
    "credit beyond bounds": frame(10, 3, b"\xff" * 4),
}  # fmt: skip


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_who_breaks_the_protocol_is_told(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        laptop().feed(data)
    assert caught.value.remote
    mux = laptop()
    with pytest.raises(ProtocolError):
        for at in range(0, len(data), 1 + len(data) // 3000):
            mux.feed(data[at : at + 1 + len(data) // 3000])


@pytest.mark.parametrize("data", [b"S", b"SIDESTG\n", b"SIDESTG\n\0"])
def test_the_greeting_may_come_in_parts(data: bytes) -> None:
    assert Mux("agent").feed(data) == []


@pytest.mark.parametrize("data", [b"\n", b"bash: python3: not found", b"SIDESTAGE", b"SIDESTG\n\0\x02", b"SIDESTG\n\1\1"])
def test_another_greeting_is_no_peer(data: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"version \d+ of the protocol, we speak 1|does not speak"):
        Mux("agent").feed(data)


def test_no_credit_to_a_direction_that_has_ended() -> None:
    mux = laptop()
    mux.send_eof(3)
    assert mux.feed(frame(10, 3, bytes(4))) == [] and mux.writable(3) == 0


def test_limits_of_our_own_orders() -> None:
    mux = laptop()
    orders: list[Callable[[], object]] = [
        lambda: mux.send(3, bytes(wire.WINDOW + 1)),
        lambda: mux.send(4, bytes(wire.WINDOW + 1)),
        lambda: mux.send(2, b"x"),
        lambda: mux.send_eof(1),
        lambda: mux.call("x", {}, bytes(wire.MAX_PAYLOAD)),
        lambda: mux.event("x", {"text": "x" * wire.MAX_PAYLOAD}),
    ]
    for order in orders:
        with pytest.raises(ProtocolError) as caught:
            order()
        assert not caught.value.remote
    assert mux.pending() == 0


def test_too_many_calls_and_channels() -> None:
    mux = Mux("laptop")
    for _ in range(wire.MAX_CALLS):
        mux.call("x", {})
    for _ in range(wire.MAX_CHANNELS):
        mux.open("tcp", {})
    with pytest.raises(ProtocolError, match="calls at once"):
        mux.call("x", {})
    with pytest.raises(ProtocolError, match="channels at once"):
        mux.open("tcp", {})
    peer = Mux("agent")
    peer.feed(b"".join(mux.take(1 << 30)))
    with pytest.raises(ProtocolError):
        peer.feed(frame(1, wire.MAX_CALLS + 1, head({"op": "x", "args": {}})))


def test_a_flood_of_pings_or_channels_ends() -> None:
    with pytest.raises(ProtocolError):
        laptop().feed(frame(12, 1) * (4 * wire.MAX_CALLS + 10))
    mux = laptop()
    with pytest.raises(ProtocolError, match="flood"):
        for at in range(6, 1 << 20, 2):
            mux.feed(frame(4, at, b'{"kind":"t","args":{}}'))
    assert at < 12 * wire.MAX_CHANNELS


def test_both_sides_at_the_limit_of_channels_is_nobodys_fault() -> None:
    mux = laptop()
    for _ in range(wire.MAX_CHANNELS - 4):
        mux.open("tcp", {})
    mux.take(1 << 30)
    assert mux.feed(frame(4, 6, b'{"kind":"mirror","args":{}}') + frame(9, 6)) == []
    assert b"".join(mux.take(1)).startswith(struct.pack("!BI", wire.REFUSE, 6), 4)
    mux.reset(3)
    assert mux.feed(frame(4, 8, b'{"kind":"mirror","args":{}}')) == [Opened(8, "mirror", {})]


def test_an_answer_that_is_too_long_can_still_be_a_failure() -> None:
    mux = laptop()
    mux.feed(frame(1, 9, head({"op": "env", "args": {}})))
    with pytest.raises(ProtocolError):
        mux.reply(9, {}, bytes(wire.MAX_PAYLOAD))
    mux.fail(9, 90)
    assert b"".join(mux.take(1)) == frame(3, 9, b'{"errno":90,"text":""}')


@pytest.mark.parametrize(("errno", "told"), [(-2, 5), (0, 5), (4096, 5), (1, 1), (4095, 4095)])
def test_what_is_no_errno_is_eio(errno: int, told: int) -> None:
    """The peer would take it for a broken protocol, and end the link."""
    mux, peer = Mux("agent"), laptop()
    mux.feed(PREAMBLE + frame(4, 1, b'{"kind":"tcp","args":{}}') + frame(1, 1, head({"op": "x", "args": {}})))
    mux.take(0)
    mux.refuse(1, errno, "text")
    mux.fail(1, errno, "text")
    assert peer.feed(b"".join(mux.take(0))) == [Refused(1, told, "text"), CallFailed(1, told, "text")]


def fed(pieces: Iterable[bytes]) -> tuple[list[Event], str | None]:
    """The events, and the error that ended them; any other than the protocol's, of the peer, fails the test."""
    mux, events = laptop(), list[Event]()
    try:
        for piece in pieces:
            events += mux.feed(piece)
    except ProtocolError as error:
        if not error.remote:
            raise
        return events, str(error)
    return events, None


json_values = s.recursive(
    s.none() | s.booleans() | s.integers() | s.floats() | s.text(), lambda inner: s.lists(inner) | s.dictionaries(s.text(), inner)
)
payloads = s.one_of(
    s.binary(max_size=40), json_values.map(lambda value: json.dumps(value).encode()), json_values.map(head),
    s.sampled_from([b'{"kind":"tcp","args":{}}', b'{"errno":1,"text":""}', head({"op": "x", "args": {}}), bytes(4), b"\0\0\0\x09"]),
)  # fmt: skip
frames = s.builds(frame, s.integers(0, 16), s.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 9, 1 << 31]), payloads)


@settings(deadline=None, max_examples=400)
@given(s.lists(frames | s.sampled_from([data for data, _ in FRAMES]) | s.binary(max_size=12), max_size=12), s.integers(1, 50))
@example([frame(wire.FAIL, 1, b'{"errno":true,"text":""}')], 9)
def test_anything_is_an_event_or_a_protocol_error(parts: list[bytes], step: int) -> None:
    data = b"".join(parts)
    events, error = fed(data[at : at + step] for at in range(0, len(data), step))
    whole, same = fed([data])
    assert same == error
    assert whole == (events if error is None else [])  # a call of feed that meets an error has no events


@settings(deadline=None, max_examples=300)
@given(s.data())
def test_a_conversation_with_a_few_bytes_changed(data: s.DataObject) -> None:
    stream = bytearray(b"".join(content for content, _ in FRAMES))
    for _ in range(data.draw(s.integers(1, 4))):
        stream[data.draw(s.integers(0, len(stream) - 1))] = data.draw(s.integers(0, 255))
    del stream[data.draw(s.integers(0, len(stream))) :]
    fed([bytes(stream)])


def test_a_length_is_not_believed_before_its_bytes_came() -> None:
    """A header may claim what it likes: memory grows with the bytes that came, and to no more than a frame."""
    mux = laptop()
    tracemalloc.start()
    try:
        mux.feed(struct.pack("!IBI", wire.MAX_PAYLOAD, wire.DATA, 3))
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
        with pytest.raises(ProtocolError):
            for _ in range(64):
                mux.feed(bytes(64 << 10))
        assert tracemalloc.get_traced_memory()[1] < 5 * wire.MAX_PAYLOAD
    finally:
        tracemalloc.stop()


def test_surrogates_survive() -> None:
    """File names that are not UTF-8 travel as lone surrogates (os.fsdecode)."""
    mux, peer = Mux("laptop"), Mux("agent")
    args: Args = {"path": "/\udcff\udc80é\U0001f600\n\x00"}
    mux.call("open", args)
    (event,) = peer.feed(b"".join(mux.take(1 << 20)))
    assert isinstance(event, Called) and event.args == args
