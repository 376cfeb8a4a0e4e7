"""The feed of a session: past and present events, slow readers, strangers, and the end."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidestage.session import feed as feed_module
from sidestage.session.feed import Feed
from sidestage.session.follow import Follower, sessions
from sidestage.stream.loop import Loop


class Running:
    """A feed in a loop of its own thread."""

    def __init__(self) -> None:
        self.session = os.urandom(8).hex()
        self.loop, self.stopped = Loop(), threading.Event()
        self.feed = Feed(self.loop, self.session, {"target": "process/1"}, self.stopped.set)
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def tell(self, kind: str, **fields: object) -> None:
        """From the loop's own thread, as all that tells does."""
        self.loop.offload(lambda: None, lambda *_: self.feed.tell(kind, **fields))

    def end(self) -> None:
        self.loop.offload(lambda: None, lambda *_: self.loop.stop())
        self._thread.join(10)
        for reader in list(self.feed._readers):
            reader._close()
        self.feed._sock.close()


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.end()


def test_who_comes_later_hears_the_past_and_then_the_present(running: Running) -> None:
    running.tell("one", n=1)
    first = Follower(running.session)
    events = first.events()
    assert first.about["target"] == "process/1"
    assert next(events)["n"] == 1
    running.tell("two", n=2)
    assert (next(events)["type"], first.about["session"]) == ("two", running.session)
    late = Follower(running.session)
    assert [event["type"] for event in itertools.islice(late.events(), 2)] == ["one", "two"]
    first.close()
    late.close()


def test_it_is_found_and_can_be_stopped(running: Running) -> None:
    assert running.session in sessions()
    follower = Follower(running.session)
    follower.stop()
    assert running.stopped.wait(10)
    follower.close()


def test_nonsense_is_no_wish(running: Running) -> None:
    follower = Follower(running.session)
    follower._sock.sendall(b'nonsense\n["do"]\n{"do": "dance"}\n{}\n')
    running.tell("after")
    assert next(follower.events())["type"] == "after"
    assert not running.stopped.is_set()
    follower.close()


def test_a_slow_reader_misses_and_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_BEHIND", 1 << 20)
    follower = Follower(running.session)
    for n in range(40):
        running.tell("big", n=n, text="x" * 100_000)
    got, missed = 0, 0
    for event in follower.events():
        got += event["type"] == "big"
        missed += event.get("events", 0)
        if got + missed == 40:
            break
    assert missed > 0
    follower.close()


def test_the_end_of_the_session_is_the_end_of_the_feed() -> None:
    made = Running()
    follower = Follower(made.session)
    made.end()
    assert list(follower.events()) == []
    follower.close()
    with pytest.raises(OSError, match=r"refused|ended"):
        Follower(made.session)


def test_another_user_is_shut_out(running: Running, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("needs root, to become another user")
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.settimeout(10);"
        f"s.connect('\\0sidestage-{os.getuid()}-{running.session}'); print(s.recv(100))"
    )
    import subprocess

    done = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.strip() == "b''", done.stderr
