"""What ends a connect() that nobody answers: signals, time limits, an answer at last. As inside the target."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.target import DEPENDENCY, Target, same

PROGRAM = Path(__file__).with_name("connects.py")


class Places:
    """Asked over a port in the target's network: `new` makes a port that drops who comes, `free PORT` lets them in."""

    def __init__(self, staging: Target) -> None:
        self._staging, self._open = staging, contextlib.ExitStack()
        self._places: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._control = self._open.enter_context(staging.endpoint())
        self._control.bind((DEPENDENCY, 0))
        self._control.listen(20)
        self.port: int = self._control.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def new(self) -> int:
        listener = self._open.enter_context(self._staging.endpoint())
        listener.bind((DEPENDENCY, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        self._places[port] = listener, self._open.enter_context(self._staging.connect((DEPENDENCY, port)))
        return int(port)

    def _free(self, port: int) -> int:
        listener, filler = self._places[port]
        filler.close()
        listener.listen(10)
        self._open.enter_context(listener.accept()[0])
        return port

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asker = self._open.enter_context(self._control.accept()[0])
                words = asker.recv(100).split()
                if words:
                    asker.sendall(str(self._free(int(words[1])) if words[0] == b"free" else self.new()).encode())

    def close(self) -> None:
        self._control.shutdown(socket.SHUT_RDWR)
        self._open.close()


@pytest.fixture
def places(staging: Target) -> Iterator[Places]:
    made = Places(staging)
    yield made
    made.close()


def test_what_ends_it(staging: Target, places: Places) -> None:
    same(staging, [sys.executable, str(PROGRAM), str(places.port)])


def test_curl_and_its_limit(staging: Target, places: Places) -> None:
    url = f"http://{DEPENDENCY}:{places.new()}/"
    native, plugged = (how(["curl", "-sS", "--connect-timeout", "1", url]) for how in (staging.native, staging.plugged))
    assert native.code == plugged.code == 28
