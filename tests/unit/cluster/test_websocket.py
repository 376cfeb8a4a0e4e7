"""RFC 6455 frames: the RFC's own examples, and the same however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.testkit.websocket import server_frame, unmasked

from sidestage.cluster import websocket as ws
from sidestage.cluster.websocket import BINARY, CLOSE, CONTINUATION, PING, TEXT, Piece, Reader, WebSocketError


def messages(pieces: list[Piece]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    open_ = False
    for piece in pieces:
        if piece.opcode == BINARY:
            assert piece.first is not open_
            if piece.first:
                found.append((BINARY, b""))
            found[-1] = (BINARY, found[-1][1] + bytes(piece.data))
            open_ = not piece.last
        else:
            assert piece.first and piece.last
            found.append((piece.opcode, bytes(piece.data)))
    return found


def test_the_examples_of_the_rfc() -> None:
    """RFC 6455 5.7."""
    assert messages(Reader().feed(bytes.fromhex("810548656c6c6f"))) == [(BINARY, b"Hello")]
    assert messages(Reader().feed(bytes.fromhex("010348656c80026c6f"))) == [(BINARY, b"Hello")]
    assert messages(Reader().feed(bytes.fromhex("890548656c6c6f"))) == [(PING, b"Hello")]
    assert ws.mask(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, 70001])
def test_our_frames_are_read_by_a_server(size: int) -> None:
    payload = bytes(n % 251 for n in range(size))
    assert unmasked(ws.frame(BINARY, payload[:1], payload[1:])) == (BINARY, payload)
    assert unmasked(ws.frame(BINARY, memoryview(payload))) == (BINARY, payload)


def test_masking_keys_differ() -> None:
    assert len({ws.frame(BINARY, b"")[2:6] for _ in range(2 * ws.KEYS)}) > ws.KEYS


@given(
    st.lists(st.tuples(st.sampled_from([BINARY, PING]), st.binary(max_size=300), st.integers(0, 3)), max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_however_it_is_cut_it_is_the_same(sent: list[tuple[int, bytes, int]], cuts: list[int]) -> None:
    stream, expected = b"", []
    for opcode, payload, parts in sent:
        if opcode == PING:
            stream += server_frame(PING, payload[:125])
            expected.append((PING, payload[:125]))
            continue
        pieces = [payload[n :: parts + 1] for n in range(parts + 1)]
        for n, piece in enumerate(pieces):
            stream += server_frame(BINARY if not n else CONTINUATION, piece, n == parts)
        expected.append((BINARY, b"".join(pieces)))
    reader, got, at = Reader(), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        got += reader.feed(stream[at : at + size])
        at += size
    assert messages(got) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    try:
        Reader().feed(data)
    except WebSocketError:
        pass


@pytest.mark.parametrize(
    "data, why",
    [
        (b"\xc2\x00", "unknown kind"),  # RSV1: an extension that nobody asked for
        (b"\x83\x00", "unknown kind"),
        (b"\x82\x80\0\0\0\0", "masked"),
        (b"\x09\x00", "control frame"),  # a ping in pieces
        (b"\x89\x7e\x00\x7e", "control frame"),
        (b"\x80\x00", "message within"),  # a continuation of nothing
        (b"\x02\x01a\x82\x01b", "message within"),
        (b"\x82\x7f" + b"\xff" * 8, "too long"),
    ],
)
def test_a_broken_server_is_an_error(data: bytes, why: str) -> None:
    with pytest.raises(WebSocketError, match=why):
        Reader().feed(data)


@pytest.mark.parametrize(
    "payload, said", [(b"", ""), (b"\x03\xe8", ""), (b"\x03\xe9", "code 1001"), (b"\x03\xf3no", "no"), (b"\x03\xf3\xff", "\ufffd")]
)
def test_close_reason(payload: bytes, said: str) -> None:
    assert ws.close_reason(payload) == said
    assert messages(Reader().feed(server_frame(CLOSE, payload))) == [(CLOSE, payload)]
    assert messages(Reader().feed(server_frame(TEXT, payload))) == [(BINARY, payload)]
