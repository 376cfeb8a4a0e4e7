"""Writing as an ordinary user, whose target is in a user namespace of the user's own: what root's tests run, same outcome."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.files import test_calls, test_programs
from tests.files.test_calls import both
from tests.files.test_programs import EXERCISER, NEEDS, SQLITE, check
from tests.testkit.build import need
from tests.testkit.target import wait_for
from tests.testkit.user import UserTarget, user_target

_CONFIG = '{"skip_build_tools": false, "feature": {"fs": {"mode": "write", "execute": ["^/srv/"]}}}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("user")
    (made / "sidestage.json").write_text(_CONFIG)
    made.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def mine(folder: Path) -> Iterator[UserTarget]:
    with user_target(folder) as made:
        yield made


@pytest.fixture
def flags(folder: Path) -> tuple[str, ...]:
    return "-f", str(folder / "sidestage.json")


@pytest.mark.parametrize("name", test_calls.SHELL)
def test_calls_of_the_shell(mine: UserTarget, name: str) -> None:
    native, plugged = both(mine, ["/usr/bin/sh", "-c", f"cd /tmp; {test_calls.SHELL[name]}"])
    assert plugged.splitlines() == native.splitlines()


def test_calls_of_python(mine: UserTarget) -> None:
    native, plugged = both(mine, [sys.executable, "-c", test_calls.PYTHON])
    assert plugged.splitlines() == native.splitlines()
    assert "Traceback" not in native


@pytest.mark.parametrize("name", test_programs.SHELL)
def test_programs_as_a_user(mine: UserTarget, name: str, flags: tuple[str, ...]) -> None:
    if name in NEEDS:
        need(NEEDS[name])
    check(mine, ["/usr/bin/sh", "-c", test_programs.SHELL[name]], flags)


def test_sqlite_as_a_user(mine: UserTarget, flags: tuple[str, ...]) -> None:
    check(mine, [sys.executable, "-c", SQLITE], flags)


def test_the_exerciser_as_a_user(mine: UserTarget, flags: tuple[str, ...]) -> None:
    check(mine, [sys.executable, str(EXERCISER), "/srv/w/file", "7", "300"], flags)


def test_what_the_user_may_not(mine: UserTarget) -> None:
    """Files of others in the target, and rights that only root gives away."""
    script = """
        exec 2>&1; cd /srv/w; id; echo x >f; chmod 0 f; cat f; echo y >f; chown 0:0 f; chgrp 7 f; mknod d b 1 1
        chmod 700 .; mkdir -m 0 shut; ls shut; echo z >shut/z; rmdir shut; truncate -s 1 /srv/w/none/x; chmod 644 f; cat f
        setfattr -n trusted.x -v y f; ls -ln --time-style=+ /srv/w; rm -f f
    """
    native, plugged = both(mine, ["/usr/bin/sh", "-c", script])
    assert plugged.splitlines() == native.splitlines()


def test_a_program_of_the_target_runs(mine: UserTarget, flags: tuple[str, ...]) -> None:
    script = """
        cd /srv/w; cp $(command -v busybox) busybox; printf '#!/srv/w/busybox sh\necho "$0" "$@"; id -u' >s
        chmod +x s; ./s a b; /srv/w/s
    """
    check(mine, ["/usr/bin/sh", "-c", script], flags)


def test_locks_of_both_sides(mine: UserTarget, flags: tuple[str, ...]) -> None:
    assert mine.native(["mkdir", "-p", "/srv/w"], 30).code == 0
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(mine.native, ["flock", "/srv/w/f", "sh", "-c", "touch /srv/w/held; sleep 3; rm /srv/w/held"], 30)
        wait_for("the lock", lambda: mine.native(["test", "-e", "/srv/w/held"], 30).code == 0)
        assert mine.plugged(["flock", "-n", "/srv/w/f", "echo", "got"], 30, flags).code == 1
        assert mine.plugged(["flock", "/srv/w/f", "ls", "/srv/w/held"], 30, flags).code == 2
        assert there.result().code == 0
