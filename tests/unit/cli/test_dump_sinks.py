"""What `dump` makes of bytes: which protocol they are, and how each is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidestage.cli.dump_sinks import Har, Lines
from sidestage.exchange.http2 import PREFACE
from sidestage.session.tap import CLIENT, SERVER, Connection

# RFC 7541 C.3.1 without Huffman: GET http www.example.com/, and a response whose :status 200 is entry 8 of the static table
SETTINGS = bytes.fromhex("000000040000000000")
REQUEST = bytes.fromhex("00001401050000000182868441") + b"\x0fwww.example.com"
RESPONSE = bytes.fromhex("0000010104000000018800000500010000000168656c6c6f")
GET, OK = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

Talk = list[tuple[int, bytes]]


def shown(talk: Talk, capsys: pytest.CaptureFixture[str], *, http: bool = False, whole: bool = True) -> tuple[list[str], int]:
    """Lines without their times, and what counted."""
    counted: list[int] = []
    sink = Lines(lambda: counted.append(1), http=http, keep=False, objects=False)
    connection = Connection(("10.0.0.5", 4000), ("10.0.0.7", 80))
    sink.began(connection)
    for side, data in talk:
        sink.data(connection, side, data)
    for side in (CLIENT, SERVER):
        sink.ended(connection, side, whole)
    sink.over(connection)
    return [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()], len(counted)


ME = "10.0.0.5:4000"


@pytest.mark.parametrize("talk, lines, count", [
    ([(CLIENT, GET), (SERVER, OK)], [f"{ME} -> :80  GET /a  200  2 B  "], 1),
    ([(SERVER, OK), (CLIENT, GET)], [f"{ME} -> :80  GET /a  200  2 B  "], 1),  # the channels of both overtake each other
    ([(CLIENT, PREFACE + SETTINGS + REQUEST), (SERVER, SETTINGS + RESPONSE)], [f"{ME} -> :80  GET /  200  5 B  "], 1),
    ([(SERVER, b"220 ready\n"), (CLIENT, b"HELO\n")],
     [f"{ME} <- :80  10 B  220 ready\\n", f"{ME} -> :80  5 B  HELO\\n", f"{ME} -- :80  closed, 5 B and 10 B answered"], 1),
    ([(SERVER, b"bye\n")], [f"{ME} <- :80  4 B  bye\\n", f"{ME} -- :80  closed, 0 B and 4 B answered"], 1),
    ([(CLIENT, bytes.fromhex("16030100c8010000c4"))],
     [f"{ME} -> :80  9 B  16 03 01 00 c8 01 00 00 c4", f"{ME} -- :80  closed, 9 B and 0 B answered"], 1),
    ([], [], 0),  # a probe
    ([(CLIENT, b"\x1b]0;title\x07 mostly text")],
     [f"{ME} -> :80  22 B  ?]0;title? mostly text", f"{ME} -- :80  closed, 22 B and 0 B answered"], 1),
])  # fmt: skip
def test_lines(talk: Talk, lines: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    found, counted = shown(talk, capsys)
    assert len(found) == len(lines), found
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found
    assert counted == count


def test_http_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown([(CLIENT, b"HELO\n")], capsys, http=True) == ([], 1)


def test_a_reset_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = shown([(CLIENT, b"x")], capsys, whole=False)
    assert lines[-1] == f"{ME} -- :80  reset, 1 B and 0 B answered"


def test_a_har_in_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "out.har", "wb+") as file:
        sink = Har(lambda: None, file.fileno(), "1", keep=False)
        connection = Connection(("10.0.0.5", 4000), ("10.0.0.7", 80))
        sink.began(connection)
        for number in range(2):
            sink.data(connection, CLIENT, GET)
            sink.data(connection, SERVER, OK)
            entries = json.loads((tmp_path / "out.har").read_text())["log"]["entries"]
            assert len(entries) == number + 1
    assert entries[1]["response"]["content"]["text"] == "hi"
