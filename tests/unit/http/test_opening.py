"""Who opens a connection of HTTP/2: told by the first request, in whatever pieces it comes, and all else goes on as it came."""

from __future__ import annotations

import pytest

from sidestage.http import http2
from sidestage.http.hpack import Field
from sidestage.http.http2 import ACK, DATA, END_STREAM, PREFACE, SETTINGS, frame, headers, settings, window_update
from sidestage.http.opening import MAX_KEPT, Opening

START = PREFACE + settings({http2.INITIAL_WINDOW: 1 << 20}) + window_update(0, 99999)
ACKNOWLEDGED = frame(SETTINGS, ACK, 0)
MORE = frame(DATA, END_STREAM, 1, b"question")


def request(agent: bytes) -> bytes:
    pseudo = {b":method": b"POST", b":scheme": b"http", b":path": b"/grpc.health.v1.Health/Check", b":authority": b"10.1.2.3:50051"}
    fields = [*(Field(*pair) for pair in pseudo.items()), Field(b"user-agent", agent), Field(b"te", b"trailers")]
    return headers(1, fields, False, http2.SIZE)


KUBELET = request(b"kube-probe/1.36 grpc-go/1.80.0")
OTHER = request(b"grpc-go/1.80.0")
# What comes, and whether it is a probe.
CLIENTS: dict[str, tuple[bytes, bool]] = {
    "the kubelet": (START + ACKNOWLEDGED + KUBELET + MORE, True),
    "somebody else": (START + ACKNOWLEDGED + OTHER + MORE, False),
    "one that waits for nothing": (START + OTHER + ACKNOWLEDGED + MORE, False),
    "a kubelet that waits for nothing": (START + KUBELET + MORE + ACKNOWLEDGED + MORE, True),
    "no request": (START[:24] + b"nonsense, and no frame of HTTP/2", False),
    "too long a frame": (START + b"\xff\xff\xff\0\0\0\0\0\0" + b"x" * 99, False),
    "a block cut short": (START + ACKNOWLEDGED + KUBELET[:9] + b"\xff" * (len(KUBELET) - 9) + MORE, False),
    "not HTTP/2": (b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n" + OTHER, False),
}


@pytest.mark.parametrize("data, probe", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_all_goes_on_but_what_answers_us(data: bytes, probe: bool, size: int) -> None:
    opening, told, given = Opening(), b"", b""
    for at in range(0, len(data), size):
        before = opening.probe
        told += opening.feed(data[at : at + size])
        assert before in (None, opening.probe), "it has changed its mind"
        if opening.probe is not None:
            given += opening.take()
    if opening.probe is None:
        given += opening.take()
    assert opening.probe == probe
    assert told in (b"", settings({}))
    assert given == (data.replace(ACKNOWLEDGED, b"", 1) if told else data)


def test_a_client_that_is_not_told_anything_owes_nothing() -> None:
    """All comes at once: our SETTINGS are not needed, and every acknowledgement is the server's."""
    opening = Opening()
    assert opening.feed(START + OTHER) == b""
    assert opening.settled
    assert opening.take() == START + OTHER


def test_a_client_that_never_asks_is_not_kept_for_ever() -> None:
    opening = Opening()
    opening.feed(START)
    for _ in range(MAX_KEPT // 17 + 1):
        opening.feed(frame(http2.PING, 0, 0, bytes(8)))
    assert opening.probe is False
