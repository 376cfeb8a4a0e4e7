"""The other end of the feed: which sessions of this user live, and what they tell."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

from sidestage.session.feed import address

TIMEOUT = 5.0  # seconds for a session to say what it is
MAX_LINE = 8 << 20


def sessions() -> list[str]:
    """The sessions of this user that live in this network namespace, by proc_pid_net(5)."""
    ours = re.compile(rf"@sidestage-{os.getuid()}-([\w.-]+)$")
    with open("/proc/self/net/unix", encoding="utf-8", errors="replace") as lines:
        return sorted({match[1] for line in lines if (match := ours.search(line.rstrip("\n")))})


class Follower:
    """A reader of one session's feed. Raises OSError when there is no such session."""

    def __init__(self, session: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(TIMEOUT)
        self._rest = b""
        self._quiet = False
        try:
            self._sock.connect(address(session))
            self.about: dict[str, Any] = next(self.events())
        except StopIteration:
            self._sock.close()
            raise OSError(f"session {session} ended in this moment") from None
        except BaseException:
            self._sock.close()
            raise
        self._sock.settimeout(None)

    def fileno(self) -> int:
        return self._sock.fileno()

    def timeout(self, seconds: float) -> None:
        """From now on `events` gives an event `quiet` when nothing has happened for so long."""
        self._sock.settimeout(seconds)
        self._quiet = True

    def ask(self, wish: str, **fields: Any) -> dict[str, Any]:
        """The answer to a wish (feed.py); events that come before it are lost. Raises OSError, StopIteration."""
        self._sock.settimeout(TIMEOUT)
        self._sock.sendall(json.dumps({"do": wish, **fields}).encode() + b"\n")
        return next(event for event in self.events() if event["type"] == wish)

    def events(self) -> Iterator[dict[str, Any]]:
        """Until the session ends."""
        while True:
            line, end, self._rest = self._rest.partition(b"\n")
            if end:
                yield json.loads(line)
                continue
            self._rest = line
            try:
                data = self._sock.recv(1 << 16)
            except ConnectionError:
                return
            except TimeoutError:
                if not self._quiet:
                    raise
                yield {"type": "quiet"}
                continue
            if not data or len(self._rest) > MAX_LINE:
                return
            self._rest += data

    def stop(self) -> None:
        """Ask the session to end."""
        self._sock.sendall(b'{"do": "stop"}\n')

    def close(self) -> None:
        self._sock.close()
