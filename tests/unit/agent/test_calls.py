"""A real agent in a process of its own, asked everything that the page of the protocol says, rightly and wrongly."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidestage.agent import payload
from sidestage.protocol.messages import Buffer
from sidestage.stream.link import Link
from sidestage.stream.loop import Loop

TIMEOUT = 50.0


class Asker:
    """The laptop's half: a call, and the loop until its answer came."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.sock, theirs = socket.socketpair()
        self.agent = subprocess.Popen(
            payload.command(sys.executable, {"pid": None, "session": "test"}),
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env=env,
        )
        theirs.close()
        self.sock.sendall(payload.preamble(sys.executable))
        payload.read_sync(self.sock.fileno(), TIMEOUT)
        self.loop, self.closed = Loop(), list[str]()
        self.opened: list[Any] = []
        fd = self.sock.fileno()
        self.link = Link(
            self.loop, fd, fd, "laptop", on_call=lambda *_: None, on_open=lambda *opened: self.opened.append(opened),
            on_event=lambda *_: None, on_closed=self._closed,
        )  # fmt: skip

    def _closed(self, reason: str) -> None:
        self.closed.append(reason)
        self.loop.stop()

    def ask(self, op: str, args: dict[str, Any]) -> tuple[dict[str, Any], bytes, int]:
        answers: list[tuple[dict[str, Any], bytes, int]] = []

        def done(*answer: Any) -> None:
            answers.append(answer)
            self.loop.stop()

        timer = self.loop.later(TIMEOUT, self.loop.stop)
        self.link.call(op, args, done)
        self.loop.run()
        timer.cancel()
        assert answers, "no answer"
        return answers[0]

    def end(self) -> int:
        self.sock.close()
        return self.agent.wait(TIMEOUT)


@pytest.fixture(scope="module")
def asker() -> Iterator[Asker]:
    made = Asker({**os.environ, "SIDESTAGE_TEST": "é"})
    yield made
    assert not made.closed
    assert made.end() == 0


def test_hello(asker: Asker) -> None:
    told, _, code = asker.ask("hello", {"payload": "abc"})
    assert code == 0 and told["payload"] == "abc" and told["hostname"] == os.uname().nodename
    assert told["pid"] == asker.agent.pid and told["python"] == sys.version.split()[0]
    assert isinstance(told["addresses"], list) and isinstance(told["nameservers"], list)


def test_env(asker: Asker) -> None:
    _, raw, code = asker.ask("env", {})
    assert code == 0 and "SIDESTAGE_TEST=é".encode() in raw.split(b"\0")


def test_files(asker: Asker, tmp_path: Path) -> None:
    path = str(tmp_path / os.fsdecode(b"\xffname"))
    Path(path).write_bytes(bytes(200_000) + b"end")
    told, first, code = asker.ask("open", {"path": path, "follow": True})
    assert code == 0 and len(first) == 128 << 10 and told["stat"][7] == 200_003 and not told["eof"]
    _, rest, code = asker.ask("read", {"handle": told["handle"], "offset": 200_000, "size": 99})
    assert (rest, code) == (b"end", 0)
    assert asker.ask("close", {"handle": told["handle"]})[2] == 0
    assert asker.ask("close", {"handle": told["handle"]})[2] == errno.EBADF
    handle = asker.ask("open", {"path": str(tmp_path)})[0]["handle"]
    assert asker.ask("readdir", {"handle": handle})[0]["entries"] == [[os.fsdecode(b"\xffname"), told["stat"][1], 8]]
    assert asker.ask("readdir", {"handle": handle})[0] == {"entries": []}
    assert asker.ask("close", {"handle": handle})[2] == 0
    assert asker.ask("stat", {"path": path, "follow": False})[0]["stat"][:10] == told["stat"][:10]
    assert asker.ask("access", {"path": path, "mode": 4}) == ({}, b"", 0)
    assert asker.ask("readlink", {"path": path})[2] == errno.EINVAL
    assert len(asker.ask("statfs", {"path": path})[0]["statfs"]) == 10


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("no such call", {}), ("open", {}), ("open", {"path": 5}), ("open", {"path": None}), ("open", {"path": ["x"]}), ("stat", {}),
    ("read", {"handle": 1}), ("read", {"handle": "x", "offset": 0, "size": 1}), ("read", {"handle": [], "offset": 0, "size": 1}),
    ("readdir", {}), ("close", {"handle": {}}), ("access", {"path": "/", "mode": "r"}), ("access", {"path": "/", "mode": 1 << 70}),
    ("access", {"path": "/", "mode": 99}), ("mirror", {}), ("mirror", {"port": "80"}), ("mirror", {"port": -1}),
    ("mirror", {"port": 65536}),
    ("mirror", {"port": 0}), ("mirror", {"port": 1 << 40}), ("mirror", {"port": []}), ("mirror", {"port": None}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "args"), WRONG)
def test_a_wrong_question_gets_an_errno(asker: Asker, op: str, args: dict[str, Any]) -> None:
    told, raw, code = asker.ask(op, args)
    assert 0 < code < 4096 and raw == b"" and told.keys() == {"text"}
    assert asker.ask("access", {"path": "/", "mode": 0})[2] == 0


@pytest.mark.parametrize("value", [-1, 1 << 70, "0", 1.5, None, []])
@pytest.mark.parametrize("key", ["offset", "size"])
def test_a_wrong_number_to_read(asker: Asker, key: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(200_000))
    handle = asker.ask("open", {"path": str(tmp_path / "big")})[0]["handle"]
    _, raw, code = asker.ask("read", {"handle": handle, "offset": 0, "size": 5, key: value})
    assert code or len(raw) <= 1 << 20
    assert asker.ask("close", {"handle": handle})[2] == 0


class Hears:
    def __init__(self, asker: Asker) -> None:
        self.told: list[Any] = []
        self._loop = asker.loop

    def _hear(self, *what: Any) -> None:
        self.told.append(what)
        self._loop.stop()

    def on_accepted(self, info: dict[str, Any]) -> None:
        self._hear("accepted", info)

    def on_refused(self, code: int, text: str) -> None:
        self._hear("refused", code)

    def on_data(self, data: Buffer) -> None:
        self._hear("data", data)

    def on_eof(self) -> None:
        self._hear("eof")

    def on_reset(self) -> None:
        self._hear("reset")

    def on_credit(self) -> None:
        return


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("no such kind", {}, errno.EINVAL), ("tcp", {}, errno.EINVAL), ("tcp", {"host": "127.0.0.1", "port": 1}, errno.ECONNREFUSED),
    ("tcp", {"host": "127.0.0.1", "port": 65536}, errno.EINVAL), ("tcp", {"host": "127.0.0.1", "port": -1}, errno.EINVAL),
    ("tcp", {"host": "127.0.0.1", "port": "x"}, errno.EINVAL), ("tcp", {"host": "256.1.1.1.", "port": 1}, errno.EIO),
    ("tcp", {"host": "not:an:address", "port": 1}, errno.EIO), ("tcp", {"host": 5, "port": 1}, errno.EINVAL),
    ("tcp", {"host": "fe80::1%no-such-interface", "port": 1}, errno.EIO),
    ("udp", {"host": "127.0.0.1", "port": 65536}, errno.EINVAL), ("udp", {"host": "::x", "port": 1}, errno.EIO),
    ("unix", {"path": "/nothing", "type": "stream"}, errno.ENOENT),
    ("unix", {"path": "/etc/passwd", "type": "stream"}, errno.ECONNREFUSED),
    ("unix", {"path": "\0no such name", "type": "stream"}, errno.ECONNREFUSED),
    ("unix", {"path": "/x", "type": "dgram"}, errno.EINVAL),
    ("unix", {"path": 7, "type": "stream"}, errno.EINVAL), ("unix", {"path": "\0" + "x" * 200, "type": "stream"}, errno.EINVAL),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "args", "code"), REFUSED)
def test_a_channel_that_can_not_be(asker: Asker, kind: str, args: dict[str, Any], code: int) -> None:
    hears = Hears(asker)
    asker.link.open(kind, args, hears)
    timer = asker.loop.later(TIMEOUT, asker.loop.stop)
    asker.loop.run()
    timer.cancel()
    assert hears.told == [("refused", code)]
    assert asker.ask("access", {"path": "/", "mode": 0})[2] == 0


def test_an_environment_larger_than_a_frame_is_an_errno() -> None:
    """Linux takes 2 MiB of strings (execve(2)); one answer holds 1 MiB."""
    asker = Asker({f"V{number}": "x" * 100_000 for number in range(12)})
    told, _, code = asker.ask("env", {})
    assert code == errno.EMSGSIZE and "bytes" in told["text"]
    assert asker.ask("access", {"path": "/", "mode": 0})[2] == 0
    assert asker.end() == 0
