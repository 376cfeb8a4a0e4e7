"""Calls by path, of real programs: what they print plugged is what they print inside the target."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, Target, target
from tests.testkit.user import laptop

TREE = r"""
set -e; mkdir -p /srv/tree/sub/below; cd /srv/tree
printf 'hello\n' >small; : >empty; seq 300000 >big; printf deep >sub/deep; ln -s small link; ln -s /srv/tree/sub abslink
ln -s nowhere dangling; ln -s loop loop; chmod 640 small; touch -d @1700000000.5 small; touch "sub/a name
with a line"; printf x >"sub/$(printf '\377')"
for n in $(seq 700); do : >sub/below/entry-$n; done
printf 'import sys\nANSWER = 42\n' >module.txt; printf 'b\na\n' >unsorted
python3 -c 'import zipfile; z = zipfile.ZipFile("/srv/tree/bundle.zip", "w"); z.write("module.txt", "remote_module.py"); z.close()'
"""
PYTHON = r"""
import glob, hashlib, io, mmap, os, shutil, sys, tempfile, zipfile
print(sorted((r, sorted(d), sorted(f)) for r, d, f in os.walk("/srv/tree")))
print(sorted((r, sorted(d), sorted(f)) for r, d, f, _ in os.fwalk("/srv/tree")))
print(sorted(os.listdir(b"/srv/tree/sub")))
print(sorted(glob.glob("/srv/tree/**/d*", recursive=True)))
sys.path.insert(0, "/srv/tree/bundle.zip")
import remote_module
print(remote_module.ANSWER, remote_module.__file__)
print(hashlib.sha256(open("/srv/tree/big", "rb").read()).hexdigest())
with open("/srv/tree/big", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
    print(m.find(b"299999"), len(m))
with open("/srv/tree/big") as file:
    file.seek(1000); print(file.readline(), file.tell(), sum(1 for _ in file))
for name in ("link", "abslink/deep", "sub/../small", "./small", "dangling"):
    print(os.path.realpath(f"/srv/tree/{name}"), os.path.exists(f"/srv/tree/{name}"))
with tempfile.TemporaryDirectory() as folder:
    shutil.copytree("/srv/tree/sub", f"{folder}/copy")
    print(sorted(os.listdir(f"{folder}/copy")), open(f"{folder}/copy/deep").read())
    os.sendfile(os.open(f"{folder}/sent", os.O_CREAT | os.O_WRONLY), os.open("/srv/tree/small", os.O_RDONLY), 0, 100)
    print(open(f"{folder}/sent").read())
print(os.path.samefile("/srv/tree/link", "/srv/tree/small"), os.statvfs("/srv/tree").f_namemax)
print([os.stat(f"/srv/tree/{n}").st_size for n in ("small", "empty", "big")], os.path.getmtime("/srv/tree/small"))
"""
NODE = """
const fs = require("fs");
for (const d of fs.readdirSync("/srv/tree", { withFileTypes: true })) console.log(d.name, d.isDirectory(), d.isSymbolicLink());
console.log(fs.realpathSync("/srv/tree/link"), fs.realpathSync.native("/srv/tree/link"));
console.log(fs.statSync("/srv/tree/small").mtimeMs);
let n = 0;
fs.createReadStream("/srv/tree/big").on("data", d => (n += d.length)).on("end", () => console.log(n));
"""
SHELL = {
    "cat": "cat /srv/tree/small /srv/tree/link /srv/tree/sub/deep",
    "ls": "ls -lR --time-style=full-iso /srv/tree | cat -v",
    "ls, sizes": "ls -las --time-style=+ /srv/tree | sort",
    "find": "find /srv/tree -printf '%p %y %s %m %n %T@ %l\\n' | sort | cat -v",
    "find with names": "find /srv/tree -name 'entry-7*' -type f | sort",
    "stat": "stat -c '%n %F %s %a %u %g %h %i %Y %b %B' /srv/tree/* | sort; stat -Lc '%n %F %s %i' /srv/tree/link",
    "grep": "grep -rc 77 /srv/tree/big /srv/tree/small; grep -rl deep /srv/tree/sub 2>&1",
    "sums": "md5sum /srv/tree/big; sha256sum /srv/tree/small /srv/tree/empty; cksum /srv/tree/big",
    "tail": "tail -n 2 /srv/tree/big; tail -c 5 /srv/tree/big; head -c 9 /srv/tree/big; wc /srv/tree/big",
    "tar": "tar --sort=name -cf - /srv/tree/sub /srv/tree/big 2>/dev/null | md5sum",
    "cp": "cd $D; cp -a /srv/tree/. c && ls -lR --time-style=full-iso c | cat -v | grep -v ^total; diff -r /srv/tree/sub c/sub",
    "cmp": "cmp /srv/tree/big /srv/tree/small; sort /srv/tree/unsorted; dd if=/srv/tree/big bs=3 skip=5 count=2 2>/dev/null",
    "redirection": "read x </srv/tree/small; echo $x; . /srv/tree/none 2>/dev/null || echo none",
    "tests": "cd $D; for f in small empty sub link none dangling; do for t in e f d L r s; do "
    "test -$t /srv/tree/$f; echo $f $t $?; done; done",
    "busybox": "busybox ls -l /srv/tree; busybox cat /srv/tree/link; busybox find /srv/tree | busybox sort | busybox md5sum; "
    "busybox realpath /srv/tree/link; busybox md5sum /srv/tree/big",
    "missing": "echo; cat /srv/tree/none; ls /srv/none; cat /srv/tree/sub; stat /srv/tree/none",
    "xargs": "find /srv/tree/sub/below -type f -print0 | xargs -0 cat | wc -c",
}  # fmt: skip


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("target")) as made:
        assert made.native(["sh", "-c", TREE]).code == 0
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.mark.parametrize("name", SHELL)
def test_shell(staging: Target, name: str, tmp_path: Path) -> None:
    script = f"D=$(mktemp -d {tmp_path}/XXXX); {SHELL[name]}"
    native, plugged = (run(["sh", "-c", script]) for run in (staging.native, staging.plugged))
    assert plugged.out == native.out != ""
    assert plugged.code == native.code
    ours = [line for line in plugged.err.splitlines() if not line.startswith("sidestage: ")]
    assert ours == native.err.splitlines()


@pytest.mark.parametrize("static", [False, True])
def test_c(staging: Target, folder: Path, static: bool) -> None:
    program = folder / f"paths-{static}"
    source = Path(__file__).with_name("paths.c")
    subprocess.run(["gcc", "-O1", "-w", *(["-static"] if static else []), "-o", program, source], check=True)
    native, plugged = (run([str(program)]) for run in (staging.native, staging.plugged))
    assert plugged.out == native.out
    assert plugged.code == native.code == 0


def test_python(staging: Target) -> None:
    native, plugged = (run([sys.executable, "-c", PYTHON]) for run in (staging.native, staging.plugged))
    assert (plugged.out, plugged.code) == (native.out, 0), plugged.err


@pytest.mark.skipif(not shutil.which("node"), reason="no Node here")
def test_node(staging: Target) -> None:
    native, plugged = (run(["node", "-e", NODE]) for run in (staging.native, staging.plugged))
    assert sorted(plugged.out.splitlines()) == sorted(native.out.splitlines()), plugged.err
    assert plugged.code == native.code == 0


def test_tail_follows_without_a_hang(staging: Target) -> None:
    """It sees the end of the file, waits, and sees what the target appends."""
    staging.native(["sh", "-c", "echo first >/srv/tree/log; (sleep 2.5; echo second >>/srv/tree/log) >/dev/null 2>&1 &"])
    plugged = staging.plugged(["timeout", "5", "tail", "-n", "+1", "-f", "/srv/tree/log"])
    assert plugged.out == "first\nsecond\n"
    assert plugged.code == 124


def test_writes_are_local_and_refused_to_the_target(staging: Target) -> None:
    script = "echo mine >/srv/tree/small; echo $?; mkdir /srv/tree/new; echo $?; cat /srv/tree/small"
    plugged = staging.plugged(["sh", "-c", script])
    assert plugged.out.split()[-1] == "hello"
    assert "0" not in plugged.out.split()[:-1]
    assert staging.native(["cat", "/srv/tree/small"]).out == "hello\n"


def test_working_directory(staging: Target) -> None:
    plugged = staging.plugged(["sh", "-c", "cd /srv/tree || echo stays; pwd"])
    assert "stays" in plugged.out
    assert "chdir to /srv/tree" in plugged.err


def test_a_closed_pipe_and_a_big_file(staging: Target) -> None:
    plugged = staging.plugged(["sh", "-c", "yes </srv/tree/small | head -c 3; cat /srv/tree/big | head -n 1"])
    assert (plugged.out, plugged.code) == ("y\ny1\n", 0)


def test_many_threads_read_many_files(staging: Target) -> None:
    code = """
import concurrent.futures as f
def one(n):
    return len(open(f"/srv/tree/{('small', 'big', 'sub/deep', 'empty')[n % 4]}", "rb").read())
with f.ThreadPoolExecutor(20) as pool: print(sum(pool.map(one, range(2000))))
"""
    native, plugged = (run([sys.executable, "-c", code]) for run in (staging.native, staging.plugged))
    assert (plugged.out, plugged.code) == (native.out, 0), plugged.err


def test_unprivileged(folder: Path) -> None:
    """Target and plugged program of a user without any privilege, in a user namespace of the user's own."""
    here = f"PYTHONPATH={ROOT / 'src'} LC_ALL=C {sys.executable} -m sidestage exec -t process/$P -- "
    script = f"""
{laptop()}
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all sh -c '
cd /; HOME=/tmp; export HOME
unshare --user --map-root-user --net --mount --uts sh -c "mount -t tmpfs x /srv; echo remote >/srv/file; exec sleep 60" & P=$!
sleep 1
{here} sh -c "id -u; cat /srv/file; ls /srv"
kill $P'
"""
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=40)
    assert done.stdout.split() == ["65534", "remote", "file"], done.stderr


def test_without_fuse(staging: Target) -> None:
    """Files are copied; what can't be is said."""
    staging.native(["truncate", "-s", "300M", "/srv/tree/huge"])
    script = "md5sum </srv/tree/big; stat -c '%s %Y' /srv/tree/small; ls /srv/tree; head -c 1 /srv/tree/huge; cat /srv/tree/small"
    command = staging.command(["sh", "-c", script])
    hide = 'mount --bind /dev/null /dev/fuse && export PYTHONPATH="$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, str(ROOT / "src"), *command], capture_output=True, text=True, timeout=30
    )
    native = staging.native(["sh", "-c", "md5sum </srv/tree/big; stat -c '%s %Y' /srv/tree/small; cat /srv/tree/small"])
    assert done.stdout == native.out, done.stderr
    for said in "FUSE can't be used", "a directory of the target can't be opened", "too large to be copied":
        assert said in done.stderr
    staging.native(["rm", "/srv/tree/huge"])
