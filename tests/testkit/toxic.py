"""A bad link: bytes between two sockets, both ways, with the toxics of a real network (the vocabulary is toxiproxy's).

Used in a test's own process as `Relay(a, b)`, or between session and agent as the interpreter that `agent.python` names:
`wrapper()` writes a command that starts the real one behind a Relay, and `Control` steers it from the test.
"""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

READ = 64 << 10
QUEUE = 1 << 20  # bytes under way in a direction, the pipe's own capacity


class _Way:
    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.queue: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.free = 0.0  # when the line is free again (bandwidth)
        self.ended = self.passed_on = False


class Relay:
    """Runs in a thread of its own until one side ends, or `cut`; both are closed then."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.latency = 0.0  # seconds, each way
        self.bandwidth = 0  # bytes a second, each way; 0: no limit
        self.slice = 0  # bytes a write at most; 0: as they came
        self.stalled = False  # nothing passes, and nothing is closed: a silent black hole
        self._near, self._far = near, far
        self._ways = (_Way(near, far), _Way(far, near))
        self._cut = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close both sides, in the middle of whatever was under way."""
        self._cut = True
        self._thread.join(10)

    def join(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self._cut and not all(way.passed_on for way in self._ways):
                self._turn()
        except OSError:
            pass  # one side is gone: so is the other
        finally:
            self._near.close()
            self._far.close()

    def _turn(self) -> None:
        now = time.monotonic()
        ways = () if self.stalled else self._ways
        readers = [way.source for way in ways if not way.ended and way.size < QUEUE]
        due = [way for way in ways if way.queue and way.queue[0][0] <= now]
        readable, writable, _ = select.select(readers, [way.sink for way in due], [], 0.002 if not due else 0.02)
        for way in ways:
            if way.source in readable:
                data = way.source.recv(READ)
                way.ended = not data
                if data:
                    took = len(data) / self.bandwidth if self.bandwidth else 0.0
                    way.free = max(way.free, now) + took
                    way.queue.append((way.free + self.latency, data))
                    way.size += len(data)
            if way in due and way.sink in writable:
                at, data = way.queue.popleft()
                sent = way.sink.send(data[: self.slice or len(data)], socket.MSG_DONTWAIT)
                way.size -= sent
                if sent < len(data):
                    way.queue.appendleft((at, data[sent:]))
            if way.ended and not way.queue and not way.passed_on:
                way.passed_on = True
                way.sink.shutdown(socket.SHUT_WR)


class Control:
    """The test's hand on a relay in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, **toxics: float) -> None:
        """`set(stalled=1)`, `set(latency=0.02, slice=7)`, `set(cut=1)`; returns when it is so."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self._path))
            sock.sendall(" ".join(f"{name}={value}" for name, value in toxics.items()).encode())
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(9) == b"done"


def wrapper(folder: Path) -> tuple[str, Control]:
    """(a path for `agent.python`, the control of its relay)."""
    script, control = folder / "toxic-python", folder / "toxic.sock"
    script.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, __file__, str(control)])} \"$@\"\n")
    script.chmod(0o755)
    return str(script), Control(control)


def main(path: str, argv: list[str]) -> None:
    near = socket.socket(fileno=os.dup(0))
    far, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        child = subprocess.Popen([sys.executable, *argv], stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        with open(os.devnull, "r+b") as null:
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        relay = Relay(near, far)
        threading.Thread(target=_serve, args=(listener, relay), daemon=True).start()
        relay.join()
    os.unlink(path)
    os._exit(child.wait())


def _serve(listener: socket.socket, relay: Relay) -> None:
    while True:
        order, _ = listener.accept()
        with order:
            for word in order.recv(4096).decode().split():
                name, _, value = word.partition("=")
                if name == "cut":
                    threading.Thread(target=relay.cut).start()
                else:
                    setattr(relay, name, type(getattr(relay, name))(float(value)))
            order.sendall(b"done")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
