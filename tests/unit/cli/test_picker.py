"""The picker: its state by keys, and the whole of it on a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time

import pytest

from sidestage.cli.picker import CANCEL, CHOSEN, GO_ON, Picker, read_key, score

ITEMS = ["deployment/orders", "deployment/catalog", "statefulset/ledger", "pod/orders-5848d94556-gct24", "pod/orders-5848d94556-vt"]


def picker(*keys: bytes) -> Picker:
    made = Picker("target")
    for item in ITEMS:
        made.add(item)
    made.loading = False
    for key in keys:
        assert made.key(key) == GO_ON
    return made


def typed(text: str) -> list[bytes]:
    return [letter.encode() for letter in text]


@pytest.mark.parametrize(
    "query, first",
    [
        ("", "deployment/orders"), ("cat", "deployment/catalog"), ("LED", "statefulset/ledger"),
        ("pod vt", "pod/orders-5848d94556-vt"), ("ordvt", "pod/orders-5848d94556-vt"),
        ("ord dep", "deployment/orders"), ("podgct", "pod/orders-5848d94556-gct24"),
        ("zzz", ""),
    ],
)  # fmt: skip
def test_typing_narrows(query: str, first: str) -> None:
    assert picker(*typed(query)).choice == first


def test_what_begins_a_word_comes_before_what_is_inside_one_and_that_before_scattered_letters() -> None:
    assert [score("or", item) for item in ("pod/orders", "pod/corn", "pd/oar", "pod/x")] == [0, 1, 3, None]


@pytest.mark.parametrize(
    "keys, choice",
    [
        ([b"\x1b[B"], 1), ([b"\x1bOB", b"\t"], 2), ([b"\x1b[A"], 4), ([b"\x1b[B", b"\x10"], 0), ([b"\x1b[6~"], 4),
        ([b"\x1b[6~", b"\x1b[5~"], 0), ([b"\x1b[B", *typed("cat"), b"\x15"], 0), ([*typed("catx"), b"\x7f"], 1),
        ([*typed("pod catalog"), b"\x17", *typed("vt")], 4), ([b"\x1b[15~", b"\x01"], 0),
    ],
)  # fmt: skip
def test_keys(keys: list[bytes], choice: int) -> None:
    assert picker(*keys).choice == ITEMS[choice]


def test_the_end() -> None:
    assert picker().key(b"\r") == CHOSEN
    assert picker(*typed("zzz")).key(b"\r") == GO_ON
    for key in (b"\x1b", b"\x03", b"\x04"):
        assert picker().key(key) == CANCEL


def test_what_is_shown() -> None:
    assert picker(b"\x1b[B", *typed("ord")).view(40, 24) == [
        "target: ord", "> deployment/orders", "  pod/orders-5848d94556-gct24", "  pod/orders-5848d94556-vt",
        "  3 of 5; Enter takes, Esc leaves",
    ]  # fmt: skip
    narrow = picker(b"\x1b[6~").view(20, 6)
    assert all(len(line) < 20 for line in narrow)
    assert len(narrow) == 5
    assert narrow[-2].startswith("> pod/orders")


@pytest.mark.parametrize("data", [b"a", "ü".encode(), "文".encode(), b"\x1b[A", b"\x1b[5~", b"\x1bOB"])
def test_one_key_is_read_at_a_time(data: bytes) -> None:
    r, w = os.pipe()
    try:
        os.write(w, data + b"z")
        assert (read_key(r), read_key(r)) == (data, b"z")
        os.write(w, b"\x1b")
        assert read_key(r) == b"\x1b"
    finally:
        os.close(r)
        os.close(w)


CODE = """
import sys
from sidestage.cli.picker import pick
def items():
    yield from ["pod/a", "pod/b", "deployment/c"]
print(repr(pick("target", items())), flush=True)
"""


@pytest.mark.parametrize(
    "keys, choice", [(b"c\r", "'deployment/c'"), (b"\x1b[B\r", "'pod/b'"), (b"\x1b", "None"), (b"zz\x04", "None")]
)
def test_on_a_terminal(keys: bytes, choice: str) -> None:
    pid, fd = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", CODE])
    before = termios.tcgetattr(fd)
    seen, sent, ends = b"", False, time.monotonic() + 30
    try:
        while time.monotonic() < ends and choice.encode() not in seen:
            if select.select([fd], [], [], 1)[0]:
                try:
                    seen += os.read(fd, 65536)
                except OSError:
                    break
            if b"3 of 3;" in seen and not sent:
                sent = True
                os.write(fd, keys)
        assert choice.encode() in seen, seen
        _, status = os.waitpid(pid, 0)
        assert status == 0
        assert termios.tcgetattr(fd)[3] == before[3], "the terminal is as it was"
    finally:
        os.close(fd)


def test_without_a_terminal_there_is_no_question() -> None:
    done = subprocess.run(
        ["setsid", sys.executable, "-c", CODE], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=30
    )
    assert done.returncode != 0
    assert "OSError" in done.stderr
