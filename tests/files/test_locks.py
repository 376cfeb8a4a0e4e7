"""Locks on files that may be written are one thing on both sides; the oracle is what processes of the target see of each other."""

from __future__ import annotations

import pytest

from tests.files.lockers import played
from tests.testkit.target import Target

# A and B are processes. A step that ends in ... gets no answer; `A?` asks for the answer that is then due. Where a lock ends with
# its open file description, the next may have to wait: FUSE hears of that after close(2) has returned.
COMMON = {
    "records": """
        A open f /srv/w/f rw; B open f /srv/w/f rw; A lock f posix ex 10 10; B lock f posix ex 0 10; B lock f posix ex 15 1
        B lock f posix sh 19 5; B lock f posix sh 20 5; B get f posix ex 0 0; A get f posix ex 0 0; A get f posix ex 30 0
        A lock f posix sh 12 3; B lock f posix sh 13 1; B lock f posix ex 13 1; B get f posix ex 11 3; A lock f posix un 14 2
        B lock f posix ex 14 2; A lock f posix ex 0 0; A lock f posix un; B lock f posix ex; A get f posix sh 5 1
        B lock f posix un; A get f posix ex 0 0
    """,
    "of open file descriptions": """
        A open f /srv/w/f rw; A open g /srv/w/f rw; B open f /srv/w/f rw; A lock f ofd ex 0 10; A lock g ofd ex 5 1
        B lock f ofd sh 9 1; B lock f posix sh 9 1; B get f ofd sh 3 1; A dup f h; A close f; B lock f ofd ex 0 1
        A fork lock h ofd sh 0 10; B lock f ofd sh; B lock f ofd ex; A close h; B lock f ofd ex wait; A lock g posix sh 1 1
        B close f; A lock g posix ex wait; A lock g ofd ex; A close g
    """,
    "flock": """
        A open f /srv/w/f rw; A open g /srv/w/f r; B open f /srv/w/f r; A lock f flock ex; A lock g flock sh; B lock f flock ex
        A dup f h; A close f; B lock f flock sh; A fork lock h flock sh; B lock f flock sh; B lock f flock ex; A lock h posix ex
        B lock f posix sh; A fork close h; B lock f flock ex; A close h; B lock f flock ex wait; A lock g flock sh
        B lock f flock un; A lock g flock ex
    """,
    "closing": """
        A open f /srv/w/f rw; A open g /srv/w/f r; B open f /srv/w/f rw; A lock f posix ex 3 4; B lock f posix sh 3 1
        A fork lock f posix sh 3 1; A fork close f; B lock f posix sh 3 1; A close g; B lock f posix sh 3 1; A lock f posix ex 0 2
        B lock f posix ex 1 1; A kill; B lock f posix ex 1 1 wait
    """,
    "for reading, then for writing": """
        A open r /srv/w/f rw; A close r; A open r /srv/w/f r; B open f /srv/w/f rw; A lock r posix sh 0 4; A lock r posix ex 0 4
        B lock f posix ex 0 1; A open w /srv/w/f w; A lock w posix ex 8 2; A lock w posix sh 20 1; B lock f posix sh 9 1
        B lock f posix ex 3 1; B lock f posix sh 3 1; A lock w posix ex 0 1; A lock r posix un 0 4; B lock f posix ex 0 4
    """,
    "waiting": """
        A open f /srv/w/f rw; B open f /srv/w/f rw; A lock f posix ex 0 5; B lock f posix ex 4 2 wait...; A lock f posix un 0 4
        A lock f posix un 4 1; B?; A lock f flock ex; B lock f flock sh wait...; A lock f flock un; B?; A lock f ofd ex 9 1
        B lock f ofd sh 9 1 wait...; A kill; B?
    """,
    "interrupted": """
        A open f /srv/w/f rw; B open f /srv/w/f rw; A lock f posix ex; A lock f flock ex; B alarm 0.7; B lock f posix sh wait...
        B?; B alarm 0.7; B lock f ofd sh wait...; B?; B alarm 0.7; B lock f flock sh wait...; B?; A lock f posix un
        A lock f flock un; B lock f posix ex; B lock f flock ex; B lock f posix un; A lock f ofd ex
    """,
    "what was written under a lock": """
        A open f /srv/w/f rw; B open f /srv/w/f rw; A lock f posix ex; A write f one; A lock f posix un; B lock f posix ex
        B read f 9; B write f two; B lock f posix un; A lock f posix sh; A read f 9; A lock f posix un; B lock f flock ex
        B write f six; B lock f flock un; A lock f flock sh; A read f 9; A lock f flock un; A lock f ofd ex; A write f ten
        A close f; B lock f ofd sh wait; B read f 9
    """,
}
# Who waits for whom is known among the processes of one side.
ALONE = {
    "deadlock": """
        A open f /srv/w/f rw; B open f /srv/w/f rw; A lock f posix ex 0 1; B lock f posix ex 1 1; A lock f posix ex 1 1 wait...
        B lock f posix sh 0 1 wait; B lock f posix un; A?
    """,
    "no deadlock": """
        A open f /srv/w/f rw; B open f /srv/w/f rw; A lock f ofd ex 0 1; B lock f ofd ex 1 1; A alarm 1.5
        A lock f ofd ex 1 1 wait...; B alarm 0.7; B lock f ofd sh 0 1 wait...; B?; A?
    """,
}


@pytest.fixture(scope="module")
def oracle(staging: Target) -> dict[str, list[str]]:
    return {name: played(staging, script, (), ("AB",)) for name, script in (COMMON | ALONE).items()}


PLACES = {
    "both here": (("AB",), ()), "a session each": (("A", "B"), ()), "A here": (("A",), ("B",)), "B here": (("B",), ("A",))
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMON)
def test_locks_are_one_thing(staging: Target, oracle: dict[str, list[str]], name: str, place: str) -> None:
    assert played(staging, COMMON[name], *PLACES[place]) == oracle[name]
    assert {line.rpartition(": ")[2] for line in oracle[name]} > {"ok"}


@pytest.mark.parametrize("name", ALONE)
def test_who_waits_for_whom(staging: Target, oracle: dict[str, list[str]], name: str) -> None:
    assert played(staging, ALONE[name], ("AB",)) == oracle[name]
