"""exec over a WebSocket and port-forward over SPDY: what the server says, in any cut, becomes bytes, words and an end."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.testkit.websocket import server_frame, unmasked

from sidestage.cluster import ready, spdy
from sidestage.cluster import websocket as ws
from sidestage.cluster.channels import EXEC_FRAME, EXEC_PROTOCOLS, Exec

V5, V4 = EXEC_PROTOCOLS


def message(channel: int, data: bytes) -> bytes:
    return server_frame(ws.BINARY, bytes([channel]) + data)


def status(code: int | None, text: str = "") -> bytes:
    if code == 0:
        return json.dumps({"status": "Success"}).encode()
    causes = [{"reason": "ExitCode", "message": str(code)}] if code is not None else []
    return json.dumps({"status": "Failure", "message": text, "details": {"causes": causes}}).encode()


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=80)), max_size=10),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_exec_sorts_the_channels(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(message(*each) for each in sent)
    channels, got, at = Exec(V5), b"", 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        got += b"".join(channels.feed(stream[at : at + size]))
        at += size
    assert got == b"".join(data for channel, data in sent if channel == 1)
    errors = b"".join(data for channel, data in sent if channel == 2)
    assert channels.stderr == errors.decode(errors="replace").strip()
    assert channels.ended is None


def test_exec_wraps_in_small_frames() -> None:
    data = bytes(range(256)) * 300
    frames = [unmasked(bytes(frame)) for frame in Exec(V5).wrap(data)]
    assert b"".join(payload[1:] for _, payload in frames) == data
    assert all(payload[0] == 0 and len(payload) <= EXEC_FRAME + 1 for _, payload in frames)


def test_only_v5_closes_standard_input_alone() -> None:
    assert unmasked(bytes(Exec(V5).finish()[0])) == (ws.BINARY, b"\xff\x00")
    assert unmasked(bytes(Exec(V4).finish()[0])) == (ws.CLOSE, b"\x03\xe8")


def test_a_ping_is_answered_and_a_close_too() -> None:
    channels = Exec(V5)
    channels.feed(server_frame(ws.PING, b"hi") + message(3, status(0)) + server_frame(ws.CLOSE, b"\x03\xe8"))
    assert [unmasked(answer) for answer in channels.answers] == [(ws.PONG, b"hi"), (ws.CLOSE, b"\x03\xe8")]
    assert channels.ended == "the command has ended"
    assert channels.exit_code() == 0


@pytest.mark.parametrize(
    "stderr, told, cause, cure",
    [
        (b"there is no process 7\n", status(97, "exit code 97"), "there is no process 7", "has just ended"),
        (b"no permission\n", status(96, "exit code 96"), "no permission", "agent.privileged"),
        (b"Python 3.9 or later\n", status(95), "Python 3.9", "agent.image"),
        (b"", status(None, 'exec: "python3": executable file not found in $PATH'), "has no Python", "agent.python"),
        (b"Traceback\nMemoryError\n", status(1), "MemoryError", "--debug"),
        (b"", status(None, "container not found"), "container not found", "--debug"),
        (b"", b"not json", "not json", "--debug"),
    ],
)
def test_why_an_agent_did_not_start(stderr: bytes, told: bytes, cause: str, cure: str) -> None:
    channels = Exec(V5)
    channels.feed(message(2, stderr) + message(3, told))
    error = ready.why(channels, EOFError("the stream ended"), "job")
    assert cause in error.cause
    assert cure in error.cure


def test_exit_codes_are_the_agents_own() -> None:
    from sidestage.agent import main

    assert (ready.NO_PYTHON, ready.NO_PERMISSION, ready.NO_PROCESS, ready.NO_GUARD) == (
        main.NO_PYTHON, main.NO_PERMISSION, main.NO_PROCESS, main.NO_GUARD,
    )  # fmt: skip


# -- SPDY --


def spdy_data(stream: int, data: bytes, fin: bool = False) -> bytes:
    return struct.pack(">II", stream, (fin << 24) | len(data)) + data


def spdy_control(kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">HHI", 0x8003, kind, len(body)) + body


def test_the_greeting_opens_an_error_and_a_data_stream() -> None:
    found = []
    inflater = zlib.decompressobj()
    for frame in spdy.Forward(8080).answers:
        version, kind, rest, stream, parent, _slot = struct.unpack_from(">HHIIIH", frame)
        assert (version, kind, parent) == (0x8003, spdy.SYN_STREAM, 0)
        assert rest & 0xFFFFFF == len(frame) - 8
        block = inflater.decompress(frame[18:])
        (pairs,), at, words = struct.unpack_from(">I", block), 4, []
        for _ in range(2 * pairs):
            (size,) = struct.unpack_from(">I", block, at)
            words.append(block[at + 4 : at + 4 + size].decode())
            at += 4 + size
        found.append((stream, rest >> 24, dict(zip(words[::2], words[1::2], strict=True))))
    assert found == [
        (1, 1, {"streamtype": "error", "port": "8080", "requestid": "0"}),
        (3, 0, {"streamtype": "data", "port": "8080", "requestid": "0"}),
    ]


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_a_forward_gives_the_bytes_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    stream = spdy_control(spdy.SYN_REPLY, b"\0\0\0\3zz") + b"".join(spdy_data(3, data) for data in sent)
    for make in (spdy.Forward, spdy.Tunnel):
        wire = stream if make is spdy.Forward else b"".join(server_frame(2, stream[n : n + 77]) for n in range(0, len(stream), 77))
        channels, got, at = make(1), b"", 0
        while at < len(wire):
            size = cuts[at % len(cuts)]
            got += b"".join(channels.feed(wire[at : at + size]))
            at += size
        assert got == b"".join(sent)
        assert channels.ended is None


@pytest.mark.parametrize("make", [spdy.Forward, spdy.Tunnel])
def test_a_forward_wraps_what_its_reader_understands(make: type[spdy.Forward | spdy.Tunnel]) -> None:
    data = bytes(range(256)) * 1000
    channels = make(1)
    frames = [bytes(frame) for frame in channels.wrap(data)]
    if isinstance(channels, spdy.Tunnel):
        frames = [unmasked(frame)[1] for frame in frames]
    assert b"".join(spdy.Forward(1).feed(b"".join(frames))) == data


@given(
    st.lists(st.tuples(st.sampled_from([1, 5, 7]), st.binary(max_size=80)), max_size=10),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_exec_over_spdy_sorts_the_streams(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(spdy_data(*each) for each in sent)
    channels, got, at = spdy.SpdyExec(), b"", 0
    while at < len(wire):
        size = cuts[at % len(cuts)]
        got += b"".join(channels.feed(wire[at : at + size]))
        at += size
    assert got == b"".join(data for stream, data in sent if stream == 5)
    assert channels.stderr == b"".join(data for stream, data in sent if stream == 7).decode(errors="replace").strip()


def test_exec_over_spdy_tells_the_exit_code() -> None:
    channels = spdy.SpdyExec()
    channels.feed(spdy_data(7, b"no permission") + spdy_data(1, status(96, "exit code 96"), True))
    assert (channels.exit_code(), channels.stderr) == (96, "no permission")
    assert channels.lost() == "exit code 96"


@pytest.mark.parametrize(
    "wire, why",
    [
        (spdy_data(1, b"connection refused", True), "connection refused"),
        (spdy_data(1, b"", True) + spdy_data(3, b"", True), "the port was closed"),
        (spdy_control(spdy.RST_STREAM, bytes(8)), "the port was closed"),
        (spdy_control(spdy.GOAWAY, bytes(8)), "the port was closed"),
    ],
)
def test_a_forward_ends_with_a_reason(wire: bytes, why: str) -> None:
    channels = spdy.Forward(1)
    channels.feed(wire)
    assert channels.ended == why


def test_a_spdy_ping_is_answered() -> None:
    channels = spdy.Forward(1)
    channels.answers.clear()
    channels.feed(spdy_control(spdy.PING, b"\0\0\0\2"))
    assert channels.answers == [spdy_control(spdy.PING, b"\0\0\0\2")]


@given(st.binary(max_size=200))
def test_any_bytes_are_spdy_or_an_error(data: bytes) -> None:
    try:
        spdy.Forward(1).feed(data)
    except ws.WebSocketError:
        pass
