"""Who holds a lock, here or at the target: programs that depend on it, both at once, and what is left of it when a holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.files.lockers import FRESH, WRITE, lockers
from tests.testkit.build import need
from tests.testkit.target import ENV, ROOT, Result, Target, wait_for

# Holds a transaction that has written until its standard input ends.
HOLDER = """
import sqlite3, sys
held = sqlite3.connect("/srv/w/db", isolation_level=None)
held.execute("begin immediate"); held.execute("update t set n = n + 1"); print("held", flush=True)
sys.stdin.read(); held.execute("commit")
"""
READER = """
import sqlite3, sys
db = sqlite3.connect("/srv/w/db", isolation_level=None); print(db.execute("select n from t").fetchone()[0], flush=True)
sys.stdin.read(); db.execute("update t set n = n + 1"); print(db.execute("select n from t").fetchone()[0], flush=True)
"""
# Counts in transactions, as two programs do that have the database open all the time.
COUNTER = """
import sqlite3, sys
db = sqlite3.connect("/srv/w/db", timeout=120, isolation_level=None)
for _ in range(int(sys.argv[1])):
    db.execute("begin immediate"); n, = db.execute("select n from t").fetchone()
    db.execute("update t set n = ?", (n + 1,)); db.execute("insert into u values (randomblob(2000))"); db.execute("commit")
"""
# flock(1) around a command that reads and writes a file.
SHELL_COUNTER = """
    i=0; while [ $i -lt 15 ]; do i=$((i+1))
    flock /srv/w/lock sh -c 'n=$(cat /srv/w/n); echo $((n+1)) >/srv/w/n'; done
"""


@pytest.fixture(autouse=True)
def fresh(staging: Target) -> None:
    assert staging.native(["sh", "-c", FRESH]).code == 0


def run(staging: Target, argv: list[str], *, here: bool) -> Result:
    return staging.plugged(argv, 150, WRITE) if here else staging.native(argv, 150)


def both(staging: Target, argv: list[str]) -> None:
    """At once on both sides."""
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda here: run(staging, argv, here=here), (True, False)):
            assert result.code == 0, result.err


def database(staging: Target, mode: str = "delete") -> None:
    script = f"pragma journal_mode={mode}; create table t(n); insert into t values (0); create table u(b)"
    assert staging.native([need("sqlite3"), "/srv/w/db", script]).code == 0


@pytest.mark.parametrize("here", [True, False])
def test_a_transaction_locks_the_other_side_out(staging: Target, here: bool) -> None:
    database(staging)
    argv = [sys.executable, "-c", HOLDER]
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--uts", "--"]
    with subprocess.Popen(
        staging.command(argv, WRITE) if here else [*enter, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, **ENV, "PYTHONPATH": str(ROOT / "src")},
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        other = run(staging, ["sqlite3", "/srv/w/db", "update t set n = n + 1"], here=not here)
        assert "database is locked" in other.err, other
        assert run(staging, ["sqlite3", "/srv/w/db", "select n from t"], here=not here).out == "0\n"
        holder.communicate(timeout=30)
    assert holder.returncode == 0
    assert run(staging, ["sqlite3", "/srv/w/db", "update t set n = n + 1; select n from t"], here=not here).out == "2\n"


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_two_writers_of_a_database(staging: Target, mode: str) -> None:
    database(staging, mode)
    both(staging, [sys.executable, "-c", COUNTER, "100"])
    for here in (True, False):
        check = "select n from t; select count(*), sum(length(b)) from u; pragma integrity_check"
        assert run(staging, ["sqlite3", "/srv/w/db", check], here=here).out == "200\n200|400000\nok\n"


def test_a_database_in_shared_memory_is_left_alone(staging: Target) -> None:
    """SQLite in WAL mode: two programs of one side share it, as always; both sides would damage it."""
    database(staging, "wal")
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--uts", "--"]
    with subprocess.Popen(
        [*enter, sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"0\n"
        refused = run(staging, ["sqlite3", "/srv/w/db", "update t set n = 7"], here=True)
        assert "the database /srv/w/db is in use at the target in WAL mode" in refused.err
        assert refused.code != 0
        assert service.communicate(timeout=30)[0] == b"1\n"
    once = "sqlite3 -cmd '.timeout 20000' /srv/w/db 'update t set n = n + 1'"
    alone = f"{once} & {once}; wait"
    result = run(staging, ["sh", "-c", f"{alone}; sqlite3 /srv/w/db 'select n from t; pragma integrity_check'"], here=True)
    assert result.out == "3\nok\n", result.err


def test_flock_of_the_shell(staging: Target) -> None:
    assert staging.native(["sh", "-c", "echo 0 >/srv/w/n"]).code == 0
    both(staging, ["sh", "-c", SHELL_COUNTER])
    assert staging.native(["cat", "/srv/w/n"]).out == "30\n"


@pytest.mark.parametrize("what", ["count f posix", "count f ofd", "count f flock", "mapped f posix", "mapped f flock"])
def test_counting_under_a_lock(staging: Target, what: str) -> None:
    """Two processes here, of one session, and one at the target; what is mapped is seen too."""
    assert staging.native(["truncate", "-s", "0" if what.startswith("count") else "8192", "/srv/w/f"]).code == 0
    with lockers(staging, ("AB",), ("C",)) as found:
        for name in "ABC":
            found.do(f"{name} open f /srv/w/f rw")
        for name in "ABC":
            found.say(name, f"{what} 200")
        assert [found.hear(name, 120) for name in "ABC"] == ["ok"] * 3
    if what.startswith("count"):
        assert staging.native(["cat", "/srv/w/f"]).out == "600"
    else:
        assert staging.native(["od", "-An", "-td8", "-j5000", "-N8", "/srv/w/f"]).out.split() == ["600"]


KINDS = ["posix", "ofd", "flock"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", ["program", "trap", "session", "agent"])
def test_the_holder_is_killed(staging: Target, kind: str, victim: str) -> None:
    """Who waits at the target has the lock at once."""
    with lockers(staging, ("A",), ("B",)) as found:
        for name in "AB":
            found.do(f"{name} open f /srv/w/f rw")
        assert found.do(f"A lock f {kind} ex") == "ok"
        assert found.do(f"B lock f {kind} ex wait...") == "waits"
        os.kill(int(found.do("A pid")) if victim == "program" else found.parts("A")[victim], signal.SIGKILL)
        killed = time.monotonic()
        assert found.do("B?") == "ok"
        assert time.monotonic() - killed < 5


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_is_killed(staging: Target, kind: str) -> None:
    with lockers(staging, ("AB",), ("C",)) as found:
        for name in "ABC":
            found.do(f"{name} open f /srv/w/f rw")
        assert found.do(f"C lock f {kind} ex") == "ok"
        pid = int(found.do("A pid"))
        assert found.do(f"A lock f {kind} ex wait...") == "waits"
        os.kill(pid, signal.SIGKILL)
        wait_for("the end", lambda: not _runs(pid), 5)
        assert found.do(f"C lock f {kind} un") == "ok"
        assert found.do(f"B lock f {kind} ex wait") == "ok"
        assert found.do(f"C lock f {kind} sh") == "EAGAIN"


def test_the_process_is_named(staging: Target) -> None:
    """F_GETLK: processes of this side by their number; those of the target have none here, so 0 (fcntl(2))."""
    with lockers(staging, ("AB",), ("C",)) as found:
        for name in "ABC":
            found.do(f"{name} open f /srv/w/f rw")
        pid = found.do("A pid")
        assert found.do("A lock f posix ex 5 5") == "ok"
        assert found.do("B get f posix sh 0 0 pid") == f"ex 5 5 {pid}"
        assert found.do("C get f posix sh 0 0 pid") == "ex 5 5 -1"
        assert found.do("C lock f posix sh 20 1") == "ok"
        assert found.do("B get f posix ex 15 0 pid") == "sh 20 1 0"


@pytest.mark.parametrize(("mode", "answer"), [("read", "ok"), ("write", "EAGAIN")])
def test_where_nothing_may_be_written_locks_end_here(staging: Target, mode: str, answer: str) -> None:
    assert staging.native(["touch", "/srv/w/f"]).code == 0
    with lockers(staging, ("A",), ("B",), ("--fs-mode", mode)) as found:
        assert found.do("A open f /srv/w/f r") == "ok"
        assert found.do("B open f /srv/w/f rw") == "ok"
        for kind in KINDS:
            assert found.do(f"B lock f {kind} ex") == "ok"
            assert found.do(f"A lock f {kind} sh") == answer
            assert found.do(f"B lock f {kind} un") == "ok"


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
