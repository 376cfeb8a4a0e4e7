"""psql and redis-cli against a real PostgreSQL and a real Redis, which run in the target's network and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.testkit.build import need
from tests.testkit.target import DEPENDENCY, Target, same, wait_for

NOBODY = 65534  # PostgreSQL refuses to run as root


def inside(staging: Target, argv: Sequence[str], cwd: Path) -> subprocess.Popen[bytes]:
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--uts", "--"]
    return subprocess.Popen([*enter, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)


@pytest.fixture(scope="module")
def postgres(staging: Target) -> Iterator[None]:
    need("psql")
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    tools = servers[-1] if servers else Path(need("postgres")).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="sidestage-pg-"))  # not below pytest's folder, which is closed to others
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    try:
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(0o700)
        os.chown(data, NOBODY, NOBODY)
        subprocess.run(
            [*as_nobody, str(tools / "initdb"), "-D", str(data), "-A", "trust", "-U", "app", "-N", "--no-locale", "-E", "UTF8"],
            check=True, capture_output=True, cwd=folder, timeout=120,
        )  # fmt: skip
        with open(data / "pg_hba.conf", "a") as rules:
            rules.write(f"host all all {DEPENDENCY}/8 trust\n")
        options = [f"-clisten_addresses={DEPENDENCY}", "-cunix_socket_directories=", "-cfsync=off", "-cshared_buffers=1MB"]
        server = inside(staging, [*as_nobody, str(tools / "postgres"), "-D", str(data), *options], cwd=folder)
        try:
            ask = ["psql", "-h", DEPENDENCY, "-U", "app", "-c", "select 1", "postgres"]
            wait_for("PostgreSQL", lambda: staging.native(ask).code == 0, 60)
            yield
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def redis(staging: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    options = ["--bind", DEPENDENCY, "--port", "6379", "--save", "", "--appendonly", "no", "--protected-mode", "no"]
    server = inside(staging, [need("redis-server"), *options], cwd=tmp_path_factory.mktemp("redis"))
    try:
        wait_for("Redis", lambda: staging.native([need("redis-cli"), "-h", DEPENDENCY, "ping"]).out == "PONG\n", 30)
        yield
    finally:
        server.terminate()
        server.wait(20)


SQL = """
create temporary table t (n int primary key, s text);
insert into t select n, repeat(chr(65 + n % 26), 1000) from generate_series(1, 2000) n;
select count(*), md5(string_agg(s, '' order by n)) from t;
select n, left(s, 3) from t where n < 4 order by n;
copy (select n, s from t order by n) to stdout;
select inet_server_addr(), inet_server_port(), inet_client_addr();
select 1/0;
select 'after';
"""


@pytest.mark.usefixtures("postgres")
@pytest.mark.timeout(200)
def test_psql(staging: Target) -> None:
    same(staging, ["psql", "-X", "-h", "db.staging.internal", "-U", "app", "-c", "select version()", "postgres"])
    script = f"psql -X -q -h db.staging.internal -U app postgres <<'END' 2>&1\n{SQL}\nEND\necho status $?"
    same(staging, ["sh", "-c", script])


@pytest.mark.usefixtures("postgres")
def test_psql_and_what_is_not_there(staging: Target) -> None:
    for more in ("-p 5433", "-d nothing", "-h 10.77.0.50"):
        same(staging, ["sh", "-c", f"psql -X -h db.staging.internal -U app -d postgres {more} -c 'select 1' 2>&1; echo status $?"])


@pytest.mark.usefixtures("redis")
def test_redis_cli(staging: Target) -> None:
    ask = "redis-cli -h db.staging.internal"
    script = f"""
{ask} flushall; {ask} set key value; {ask} get key; {ask} incr n; {ask} lpush list a b c; {ask} lrange list 0 -1
for n in $(seq 2000); do echo "set key-$n $(printf %0100d $n)"; done | {ask} --pipe 2>&1 | tail -1
{ask} dbsize; {ask} get key-1999; head -c 300000 /dev/zero | tr '\\0' x | {ask} -x set big; {ask} strlen big; {ask} get big | md5sum
{ask} eval 'return redis.call("get", KEYS[1])' 1 key; {ask} nonsense; {ask} -p 6380 ping 2>&1; echo $?
"""
    same(staging, ["sh", "-c", script])


@pytest.mark.usefixtures("redis")
def test_redis_subscription(staging: Target) -> None:
    """A connection that waits, and hears when something comes."""
    ask = "redis-cli -h db.staging.internal"
    script = f"(sleep 0.5; {ask} publish news hello >/dev/null) & timeout 3 {ask} subscribe news | cat"
    same(staging, ["sh", "-c", script])
