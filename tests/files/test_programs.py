"""Real programs on files of the target that they change: what they print and leave behind is the same native and plugged."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.testkit.build import need
from tests.testkit.target import Target

FRESH = "rm -rf /srv/w; mkdir /srv/w"
EXERCISER = Path(__file__).with_name("exerciser.py")

SHELL = {
    "working directories": """
        mkdir -p /srv/w/a/b/c; cd /srv/w/a; pwd; /bin/pwd; echo hi >x; mkdir y; ls
        (cd b/c; touch z; pwd; ls ..); pwd; cd ..; ls
        cd /tmp; pwd; cd /srv/w/a/y; sh -c 'echo t >t; pwd'; ls -a
        cd /; ls /srv/w/a/y; cd /srv/w/a/x || echo no; ln -s a/b /srv/w/l; cd /srv/none || echo no
        (cd /srv/w/l; /bin/pwd; cd ..; ls); (cd /srv/w/a; env -i /bin/sh -c 'env -C b /bin/pwd'; cd /; /bin/pwd)
    """,
    "tar": """
        cp -a /srv/folder /srv/w/a; tar -C /srv/w -cf /srv/w/t.tar a; mkdir /srv/w/u; tar xf /srv/w/t.tar -C /srv/w/u
        find /srv/w/u -printf '%p %s %m\\n' | sort; md5sum /srv/w/u/a/*
    """,
    "git": """
        export HOME=/srv/w GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_DATE=@1700000000+0000
        git init -q -b main /srv/w/g && cd /srv/w/g && git config user.email a@example.com && git config user.name A
        seq 5000 >f; mkdir d; cp f d; git add . && git commit -qm one && echo x >>f && git status --short && git diff --stat
        git commit -qam two; git log --format=%H; git gc -q; git fsck; git clone -q . ../h 2>&1; cd ../h && git log --oneline; ls
        git checkout -q HEAD~1 && wc -l f; git status --short; find /srv/w/g/.git -name '*.lock'; rm -rf /srv/w/g /srv/w/h/.git
    """,
    "sqlite, in turns": """
        for mode in delete wal; do
        sqlite3 /srv/w/$mode "pragma journal_mode=$mode; create table t(a integer primary key, b); pragma wal_autocheckpoint=50"
        for n in 1 2 3; do (for i in 1 2 3 4 5; do
        sqlite3 -cmd '.timeout 60000' /srv/w/$mode "insert into t(b) values (randomblob(3000))"; done) & done; wait
        sqlite3 /srv/w/$mode 'select count(*), sum(length(b)) from t; pragma integrity_check'; ls /srv/w
        rm /srv/w/$mode*; done; >/srv/w/x
    """,
    "ripgrep": """
        cp -a /srv/folder /srv/w/r; seq 90000 >/srv/w/r/n; rg --sort path -c '[a7]' /srv/w/r; cd /srv/w/r && rg --sort path -n 777
    """,
    "rsync": """
        cp -a /srv/folder /srv/w/r; cp /srv/big /srv/w/r; rsync -a --out-format=%n /srv/w/r/ /srv/w/s; rsync -ai /srv/w/r/ /srv/w/s
        printf zz | dd of=/srv/w/r/big bs=1 seek=99999 conv=notrunc 2>/dev/null; touch -d @1 /srv/w/r/big
        rsync -ai --no-whole-file /srv/w/r/ /srv/w/s; cmp /srv/w/r/big /srv/w/s/big && echo same; touch -d @1 /srv/w/*
    """,
    "zipimport": f"""
        cd /srv/w; echo 'ANSWER = 42' >inside.py; {sys.executable} -m zipfile -c b.zip inside.py; rm inside.py
        {sys.executable} -B -c 'import sys; sys.path.insert(0, "/srv/w/b.zip"); import inside; print(inside.ANSWER)'
        rm b.zip; >x
    """,
    "many entries": """
        mkdir /srv/w/m; cd /srv/w/m; seq 3000 | xargs touch; ls | wc -l; ls | md5sum; find . -name '*7' -delete; ls | wc -l
        cd ..; rm -r m; ls -a; >x
    """,
}  # fmt: skip
NEEDS = {"ripgrep": "rg", "sqlite, in turns": "sqlite3", "git": "git", "rsync": "rsync"}
SQLITE = r"""
import os, sqlite3, sys
for mode in "wal", "delete", "truncate":
    path = f"/srv/w/{mode}.db"
    first = sqlite3.connect(path, timeout=30, isolation_level=None); second = sqlite3.connect(path, timeout=0, isolation_level=None)
    print(first.execute(f"pragma journal_mode={mode}").fetchone()); first.execute("create table t(a, b)")
    first.execute("begin immediate"); first.executemany("insert into t values (?, ?)", ((n, "x" * 200) for n in range(3000)))
    try: second.execute("begin immediate"); print("two writers")
    except sqlite3.OperationalError as error: print(error)
    print(second.execute("select count(*) from t").fetchone()); first.execute("commit")
    print(second.execute("select count(*), sum(a) from t").fetchone())
    if not (child := os.fork()):
        mine = sqlite3.connect(path, timeout=30, isolation_level=None); mine.execute("insert into t values (-1, 'child')")
        os._exit(0)
    os.waitpid(child, 0); print(first.execute("select * from t where a < 0").fetchall())
    first.execute("begin"); first.execute("delete from t"); first.execute("rollback"); first.execute("vacuum")
    print(second.execute("pragma integrity_check").fetchone(), second.execute("select count(*) from t").fetchone())
    first.close(); second.close(); print(sorted(os.listdir("/srv/w"))); os.unlink(path)
open("/srv/w/x", "w")
"""
JAVA = r"""
import java.nio.*; import java.nio.channels.*; import java.nio.file.*; import static java.nio.file.StandardOpenOption.*;
public class Maps {
  public static void main(String[] args) throws Exception {
    Path path = Path.of("/srv/w/map");
    try (FileChannel c = FileChannel.open(path, CREATE, READ, WRITE); FileChannel d = FileChannel.open(path, READ)) {
      MappedByteBuffer m = c.map(FileChannel.MapMode.READ_WRITE, 0, 300000);
      for (int i = 0; i < 300000; i += 4) m.putInt(i, i);
      m.force();
      ByteBuffer b = ByteBuffer.allocate(8); d.read(b, 200000); b.flip(); System.out.println(b.getInt() + " " + b.getInt());
      try (FileLock lock = c.lock()) { System.out.println(lock.isValid()); }
      c.truncate(1000); System.out.println(d.size());
    }
    Files.move(path, Path.of("/srv/w/moved"), StandardCopyOption.ATOMIC_MOVE);
    Files.writeString(Path.of("/srv/w/t"), "text\n"); Files.writeString(Path.of("/srv/w/t"), "more\n", APPEND);
    System.out.print(Files.readString(Path.of("/srv/w/t")));
    try (var s = Files.list(Path.of("/srv/w"))) { s.sorted().forEach(System.out::println); }
  }
}
"""
JAVA_READS = r"""
import java.io.*; import java.nio.*; import java.nio.channels.*; import java.nio.file.*; import java.util.zip.*;
import static java.nio.channels.FileChannel.MapMode.*; import static java.nio.file.StandardOpenOption.*;
public class Reads {
  static long sum(ByteBuffer b) { CRC32 crc = new CRC32(); crc.update(b); return crc.getValue(); }
  public static void main(String[] args) throws Exception {
    Path path = Path.of("/srv/w/data");
    try (FileChannel c = FileChannel.open(path, READ)) {
      MappedByteBuffer all = c.map(READ_ONLY, 0, c.size());
      System.out.println(c.size() + " " + sum(all) + " " + all.isReadOnly());
      System.out.println(all.load().getInt(12345678) + " " + all.order(ByteOrder.LITTLE_ENDIAN).getLong(7));
      MappedByteBuffer part = c.map(READ_ONLY, 5001, 3000017);
      ByteBuffer read = ByteBuffer.allocate(3000017); while (read.hasRemaining() && c.read(read, 5001 + read.position()) > 0);
      System.out.println(part.equals(read.flip()) + " " + part.mismatch(all.slice(5001, 3000018)));
      try { c.map(READ_ONLY, c.size() - 5, 10); System.out.println("mapped"); } catch (IOException e) { System.out.println(e); }
      try { c.map(READ_WRITE, 0, 10); System.out.println("ok"); } catch (NonWritableChannelException e) { System.out.println(e); }
      try { c.map(PRIVATE, 0, 10); System.out.println("mapped"); } catch (NonWritableChannelException e) { System.out.println(e); }
      try (FileLock lock = c.lock(0, 10, true)) { System.out.println(lock.isShared() + " " + lock.isValid()); }
      var taken = new ByteArrayOutputStream(); c.transferTo(c.size() - 700000, 700000, Channels.newChannel(taken));
      System.out.println(sum(ByteBuffer.wrap(taken.toByteArray())));
    }
    try (var file = new RandomAccessFile("/srv/w/small", "r"); FileChannel c = file.getChannel()) {
      MappedByteBuffer m = c.map(READ_ONLY, 0, c.size());
      System.out.println(new String(new byte[] {m.get(0), m.get(4)}) + " " + Files.mismatch(path, Path.of("/srv/w/small")));
    }
    try (FileChannel c = FileChannel.open(Path.of("/srv/w/empty"), READ)) {
      System.out.println(c.map(READ_ONLY, 0, 0).capacity());
    }
  }
}
"""
LEFT = "cd /srv/w && find . -printf '%p %y %s %m\\n' | sort; find . -type f | sort | xargs -r md5sum"


@pytest.fixture(scope="module")
def write_mode(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """git is a build tool, which would be let through by default."""
    config = tmp_path_factory.mktemp("config") / "sidestage.json"
    config.write_text('{"skip_build_tools": false, "feature": {"fs": {"mode": "write"}}}')
    return "-f", str(config)


def check(staging: Target, argv: list[str], flags: tuple[str, ...], timeout: float = 120) -> None:
    found = []
    for plugged in (False, True):
        assert staging.native(["sh", "-c", FRESH]).code == 0
        result = staging.plugged(argv, timeout, flags) if plugged else staging.native(argv, timeout)
        ours = [line for line in result.err.splitlines() if not line.startswith("sidestage: ")]
        found.append([*result.out.splitlines(), str(result.code), *ours, *staging.native(["sh", "-c", LEFT]).out.splitlines()])
    native, plugged_too = found
    assert plugged_too == native
    assert len(native) > 2, "it shows nothing"


@pytest.mark.parametrize("name", SHELL)
def test_shell(staging: Target, name: str, write_mode: tuple[str, ...]) -> None:
    if name in NEEDS:
        need(NEEDS[name])
    check(staging, ["/usr/bin/sh", "-c", SHELL[name]], write_mode)


def test_sqlite(staging: Target, write_mode: tuple[str, ...]) -> None:
    """Locks, and the shared memory of the WAL, of the program's own processes."""
    check(staging, [sys.executable, "-c", SQLITE], write_mode)


def test_java(staging: Target, write_mode: tuple[str, ...], tmp_path: Path) -> None:
    need("javac")
    (tmp_path / "Maps.java").write_text(JAVA)
    subprocess.run(["javac", "Maps.java"], cwd=tmp_path, check=True, timeout=120)
    check(staging, ["java", "-Xshare:auto", "-cp", str(tmp_path), "Maps"], write_mode)


@pytest.mark.parametrize("mode", ["read", "write"])
def test_java_that_reads(staging: Target, tmp_path: Path, mode: str) -> None:
    """Mapped files, whole and in part, of more than is read ahead; what can't be mapped says so as ever."""
    need("javac")
    (tmp_path / "Reads.java").write_text(JAVA_READS)
    subprocess.run(["javac", "Reads.java"], cwd=tmp_path, check=True, timeout=120)
    make = f"{FRESH}; cd /srv/w; seq 3000000 >data; echo small >small; >empty"
    assert staging.native(["sh", "-c", make]).code == 0
    argv = ["java", "-Xshare:auto", "-cp", str(tmp_path), "Reads"]
    native, plugged = staging.native(argv), staging.plugged(argv, 60, ("--fs-mode", mode))
    assert native.code == 0, native
    assert (plugged.code, plugged.out) == (0, native.out), plugged


READING = {
    "sqlite": "sqlite3 -readonly /srv/w/db 'select count(*), sum(a) from t; pragma integrity_check'",
    "git": "GIT_DIR=/srv/w/g/.git git log --format=%s; GIT_DIR=/srv/w/g/.git git show HEAD:f | md5sum",
    "ripgrep": "rg --sort path -c 77 /srv/w/g /srv/w/data; rg --sort path -n 4999 /srv/w/data",
    "zipimport": f"{sys.executable} -B -c 'import sys; sys.path.insert(0, \"/srv/w/b.zip\"); import inside; print(inside.ANSWER)'",
    "mapped": f"{sys.executable} -c '"
    'import mmap; f = open("/srv/w/data"); m = mmap.mmap(f.fileno(), 0, prot=1); '
    'print(m.find(b"49999"), len(m))\'',
}


def test_reading_programs(staging: Target, tmp_path: Path) -> None:
    """In read mode, on what somebody made at the target. A `git clone` of it, which changes there, needs write mode."""
    for command in "sqlite3", "git", "rg":
        need(command)
    make = f"""
        {FRESH}; cd /srv/w; sqlite3 db 'create table t(a); with n(i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into t select i from n'; seq 50000 >data
        echo 'ANSWER = 42' >inside.py; {sys.executable} -m zipfile -c b.zip inside.py
        git init -q g; cd g; seq 3000 >f; git add f; git -c user.name=A -c user.email=a@example.com commit -qm one
    """
    assert staging.native(["sh", "-euc", make]).code == 0
    config = tmp_path / "sidestage.json"
    config.write_text('{"skip_build_tools": false}')
    for name, script in READING.items():
        argv = ["/usr/bin/sh", "-euc", script]
        native, plugged = staging.native(argv), staging.plugged(argv, 60, ("-f", str(config)))
        assert native.code == 0 and native.out, (name, native)
        assert (plugged.code, plugged.out) == (0, native.out), (name, plugged)


@pytest.mark.parametrize("seed", [1, 20, 300])
def test_exerciser(staging: Target, write_mode: tuple[str, ...], seed: int) -> None:
    """Reads, writes, maps, truncates and renames at random: no difference to a model, and the same digest."""
    check(staging, [sys.executable, str(EXERCISER), "/srv/w/file", str(seed), "400"], write_mode)


def test_what_is_large(staging: Target, write_mode: tuple[str, ...]) -> None:
    """A directory of 100,000 entries, and a sparse file of 10 GB of which only what is asked for is moved."""
    make = "rm -rf /srv/m /srv/sparse; mkdir /srv/m; cd /srv/m; seq 100000 | xargs touch; truncate -s 10G /srv/sparse"
    assert staging.native(["sh", "-c", f"{make}; printf end | dd of=/srv/sparse bs=1 seek=9000000000 conv=notrunc"], 120).code == 0
    script = "ls /srv/m | wc -l; ls /srv/m | md5sum; tail -c +9000000001 /srv/sparse | head -c 3; find /srv/m -name '*77' | wc -l"
    try:
        native = staging.native(["sh", "-c", script], 120)
        for flags in ((), write_mode):
            assert staging.plugged(["sh", "-c", script], 120, flags).out == native.out
    finally:
        staging.native(["rm", "-rf", "/srv/m", "/srv/sparse"], 120)


def test_programs_of_the_target_are_not_run(staging: Target, write_mode: tuple[str, ...]) -> None:
    """Nor is one of this machine that has the same name below the real working directory."""
    script = "cd /srv/w; echo 'echo ran' >tool; chmod +x tool; ./tool; echo $?; /srv/w/tool; echo $?; env -C /srv/w ./tool; echo $?"
    assert staging.native(["sh", "-c", FRESH]).code == 0
    result = staging.plugged(["/usr/bin/sh", "-c", script], 60, write_mode)
    assert result.out.split() == ["126", "126", "126"], result
    assert result.err.count("/srv/w/tool: a program of the target, which runs here only if") == 1


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_log_of_the_target_is_followed(staging: Target, mode: str) -> None:
    """`tail -f` here, lines written there."""
    assert staging.native(["sh", "-c", f"{FRESH}; echo first >/srv/w/log"]).code == 0
    command = staging.command(["timeout", "60", "tail", "-n", "+1", "-f", "/srv/w/log"], ("--fs-mode", mode))
    tail = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert tail.stdout is not None
    try:
        seen = [tail.stdout.readline()]
        for line in ("second", "third"):
            time.sleep(0.1)
            assert staging.native(["sh", "-c", f"echo {line} >>/srv/w/log"]).code == 0
            seen.append(tail.stdout.readline())
    finally:
        tail.terminate()
        tail.wait(20)
        tail.stdout.close()
    assert seen == [b"first\n", b"second\n", b"third\n"]
