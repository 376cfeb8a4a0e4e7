"""Calls that change the target's files, of real programs: what they print and leave behind is the same native and plugged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.testkit.build import need
from tests.testkit.target import Target

WRITE = ("--fs-mode", "write")
FRESH = "rm -rf /srv/w; mkdir /srv/w"
LEFT = "cd /srv/w && find . -printf '%p %y %s %m %n %U:%G %l\\n' | sort; find . -type f -size -20M | sort | xargs -r md5sum"

SHELL = {
    "names": """
        echo one >/srv/w/a; mkdir /srv/w/d /srv/w/d/e; mv /srv/w/a /srv/w/d/b; ln /srv/w/d/b /srv/w/h; ln -s d/b /srv/w/s
        rmdir /srv/w/d; rm /srv/w/d; mv /srv/w/d /srv/w/d/e/f; mkfifo /srv/w/p; ls -l --time-style=+ /srv/w; rm -r /srv/w/d
    """,
    "attributes": """
        umask 027; >/srv/w/f; mkdir /srv/w/d; chmod 4755 /srv/w/f; chown 5:6 /srv/w/f; ln -s f /srv/w/s
        chown -h 7:8 /srv/w/s; touch -d @1700000000.25 /srv/w/f /srv/w/d; touch -h -d @5 /srv/w/s
        stat -c '%n %a %u %g %.9Y' /srv/w/*; truncate -s 70000 /srv/w/f; stat -c '%s %a' /srv/w/f
        chmod 600 /srv/w/none; truncate -s 0 /srv/w/d
    """,
    "appending": """
        for n in 1 2 3 4; do (for i in $(seq 50); do echo "$n $i" >>/srv/w/log; done) & done; wait
        sort /srv/w/log | md5sum; wc -l /srv/w/log; echo x | tee -a /srv/w/log; tail -n 1 /srv/w/log; rm /srv/w/log; >/srv/w/f
    """,
    "large": """
        dd if=/dev/zero bs=1M count=9 2>/dev/null | tr '\\0' 'x' >/srv/w/big; md5sum </srv/w/big
        printf y | dd of=/srv/w/big bs=1 count=1 seek=5000000 conv=notrunc 2>/dev/null; md5sum /srv/w/big; head -c 9 /srv/w/big
    """,
    "copies": """
        cp -a /srv/folder /srv/w/c; cp -a /srv/w/c /srv/w/e; cp /srv/big /srv/w; diff -r /srv/folder /srv/w/e && echo same
        ls -R /srv/w; sed -i s/a/z/ /srv/w/c/a; cat /srv/w/c/a
        rm -f /srv/w/e/*; ls /srv/w/e; install -m 640 /srv/config.txt /srv/w/i; ls -l --time-style=+ /srv/w/i
    """,
    "a save as editors do it": """
        echo old >/srv/w/f; printf new >/srv/w/.f.swp; sync /srv/w/.f.swp; mv /srv/w/.f.swp /srv/w/f; cat /srv/w/f
    """,
    "across the sides": """
        D=$(mktemp -d); echo x >/srv/w/x; mv /srv/w/x $D/x && cat $D/x; ls /srv/w; mv $D/x /srv/w/y && cat /srv/w/y
        ln /srv/w/y $D/y 2>/dev/null || echo no link; rm -r $D
    """,
    "errors": """
        exec 2>&1; mkdir /srv/w/a/b; rmdir /srv/w/none; >/srv/w/none/x; >/srv/w; ln -s l /srv/w/l; >/srv/w/l
        mkdir /srv/w/m/; rmdir /srv/w/m/; echo >/srv/w/f; rm /srv/w/f/; mv /srv/w/f /srv/w/g/; set -C; >/srv/w/f
        ln /srv/w/f /srv/w/f; mv -T /srv/w/f /srv/w; rmdir /srv/w/.
    """,
}
PYTHON = r"""
import errno, fcntl, mmap, os, sys
def fails(what, *args, **words):
    try: print(what(*args, **words))
    except OSError as error: print(what.__name__, errno.errorcode[error.errno])
base = "/srv/w/"
fd = os.open(base + "m", os.O_RDWR | os.O_CREAT, 0o666)
os.ftruncate(fd, 8192)
one = mmap.mmap(fd, 8192); one[100:105] = b"hello"; one.flush(); print(open(base + "m", "rb").read()[100:105])
other = os.open(base + "m", os.O_RDWR); two = mmap.mmap(other, 8192)
two[:3] = b"abc"; print(one[:3]); os.pwrite(fd, b"XY", 1); print(two[:4])
fcntl.lockf(fd, fcntl.LOCK_EX)
if not (child := os.fork()):
    mine = os.open(base + "m", os.O_RDWR)
    fails(fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print(fcntl.flock(mine, fcntl.LOCK_EX)); sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
temporary = os.open("/srv/w", os.O_TMPFILE | os.O_RDWR, 0o640); os.write(temporary, b"tmp")
os.link(f"/proc/self/fd/{temporary}", base + "named", src_dir_fd=0, follow_symlinks=True)
print(open(base + "named").read(), oct(os.stat(base + "named").st_mode))
os.setxattr(base + "named", "user.x", b"value"); os.setxattr(temporary, "user.y", b"w" * 5000)
print(os.listxattr(base + "named"), os.getxattr(temporary, "user.x"), len(os.getxattr(base + "named", "user.y")))
os.removexattr(base + "named", "user.x"); os.removexattr(temporary, "user.y"); fails(os.getxattr, base + "named", "user.x")
fails(os.rename, base + "named", "/tmp/x")
fails(os.open, base + "m", os.O_CREAT | os.O_EXCL)
first, second = (os.open(base + "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for _ in "12")
reader = os.open(base + "log", os.O_RDONLY)
for writer in (first, second, first):
    os.write(writer, b"line\n"); print(os.read(reader, 100), os.fstat(second).st_size, os.stat(base + "log").st_size)
os.truncate(base + "log", 3); print(os.fstat(reader).st_size, os.pread(reader, 100, 0))
os.chmod(base + "log", 0o640); print(oct(os.fstat(reader).st_mode))
os.posix_fallocate(fd, 0, 100000); print(os.fstat(fd).st_size)
fails(os.write, reader, b"x"); fails(os.read, first, 1); fails(os.ftruncate, reader, 1)
again = os.open(f"/proc/self/fd/{reader}", os.O_RDWR); os.pwrite(again, b"A", 0); print(os.pread(reader, 5, 0))
hole = os.open(base + "sparse", os.O_RDWR | os.O_CREAT, 0o600); os.ftruncate(hole, 10 << 30); os.pwrite(hole, b"end", (5 << 30) + 1)
print(os.lseek(hole, 0, os.SEEK_DATA) >> 20, os.lseek(hole, 5 << 30, os.SEEK_HOLE) >> 20, os.pread(hole, 3, (5 << 30) + 1))
print(os.stat(base + "sparse").st_blocks < 100)
directory = os.open("/srv/w", os.O_DIRECTORY)
os.write(os.open("rel", os.O_CREAT | os.O_WRONLY, dir_fd=directory), b"rel"); os.mkdir("d", dir_fd=directory)
os.rename("rel", "d/r", src_dir_fd=directory, dst_dir_fd=directory); below = os.open("d", os.O_DIRECTORY, dir_fd=directory)
os.rename(base + "d", base + "e"); print(os.listdir(below), open(os.open("r", os.O_RDONLY, dir_fd=below)).read())
os.fchdir(below); open("here", "w").write("x"); os.mkdir("sub"); os.chmod("here", 0o604); print(sorted(os.listdir(".")))
os.fsync(below); os.unlink("here"); print(sorted(os.listdir(below)))
for _ in range(2): print(sorted(os.listdir("/srv/w")))
with open(base + "gone", "w+") as file:
    file.write("abc"); file.flush(); os.unlink(base + "gone"); file.seek(0)
    print(os.fstat(file.fileno()).st_nlink, file.read(), file.write("d"))
os.utime(base + "log", ns=(1, 2)); print(os.stat(base + "log").st_mtime_ns)
sync = os.open(base + "sync", os.O_CREAT | os.O_WRONLY | os.O_SYNC | os.O_DSYNC, 0o600); os.write(sync, b"x"); os.fdatasync(sync)
print(fcntl.fcntl(sync, fcntl.F_GETFL) & os.O_SYNC == os.O_SYNC, os.path.exists(base + "none"))
fails(os.mknod, base + "log"); fails(os.mkdir, base + "log/x"); fails(os.open, base + "e", os.O_RDWR); fails(os.rmdir, base + "e")
"""


def both(staging: Target, argv: list[str]) -> tuple[str, str]:
    found = []
    for how in (staging.native, lambda argv: staging.plugged(argv, 60, WRITE)):
        assert staging.native(["sh", "-c", FRESH]).code == 0
        result = how(argv)
        ours = [line for line in result.err.splitlines() if not line.startswith("sidestage: ")]
        left = staging.native(["sh", "-c", LEFT])
        assert left.out
        found.append(f"{result.out}\n{result.code} {ours}\n{left.out}")
    return found[0], found[1]


@pytest.mark.parametrize("name", SHELL)
def test_shell(staging: Target, name: str) -> None:
    native, plugged = both(staging, ["/usr/bin/sh", "-c", f"cd /tmp; {SHELL[name]}"])
    assert plugged.splitlines() == native.splitlines()


def test_python(staging: Target) -> None:
    native, plugged = both(staging, [sys.executable, "-c", PYTHON])
    assert plugged.splitlines() == native.splitlines()
    assert "Traceback" not in native


def test_every_call_on_every_kind_of_path(staging: Target) -> None:
    """Result, error and what is left, of a thousand pairs. A pipe of the target can't be opened: docs/files.md."""
    argv = [sys.executable, str(Path(__file__).with_name("errors.py")), "/srv/w"]
    native, plugged = staging.native(argv, 120), staging.plugged(argv, 300, WRITE)
    assert (native.code, plugged.code) == (0, 0), plugged.err
    differ = [pair for pair in zip(native.out.splitlines(), plugged.out.splitlines(), strict=True) if pair[0] != pair[1]]
    assert differ == [
        ("open fifo None []", "open fifo ENXIO []"), ("truncate and open fifo None []", "truncate and open fifo ENXIO []"),
    ]  # fmt: skip


def test_no_space(staging: Target) -> None:
    """ENOSPC of the target's file system is told as it is, and at the write that meets it."""
    setup = "rm -rf /srv/small; mkdir /srv/small && mount -t tmpfs -o size=1m small /srv/small"
    fill = "head -c 3000000 /dev/zero >/srv/small/x; echo $?; ls -l /srv/small | cut -d' ' -f5; rm /srv/small/x"
    readonly = "mount -o remount,ro /srv/small"
    refused = ">/srv/small/y; mkdir /srv/small/z; test -w /srv/small; echo $?"
    try:
        assert staging.native(["sh", "-c", setup]).code == 0
        for script in (fill, refused):
            if script is refused:
                assert staging.native(["sh", "-c", readonly]).code == 0
            native = staging.native(["/usr/bin/sh", "-c", script])
            plugged = staging.plugged(["/usr/bin/sh", "-c", script], 30, WRITE)
            assert plugged.out == native.out
            assert [line for line in plugged.err.splitlines() if not line.startswith("sidestage")] == native.err.splitlines()
    finally:
        staging.native(["sh", "-c", "umount /srv/small"])


NEW_CALLS = """
import ctypes, errno, struct
libc = ctypes.CDLL(None, use_errno=True)
for path in b"/srv/folder/a", b"/usr":
    for number in 464, 465, 468:  # getxattrat, listxattrat, file_getattr
        args = ctypes.create_string_buffer(64)
        result = libc.syscall(number, -100, path, 0, b"user.x" if number == 464 else args, args, 16 if number == 464 else 0)
        print(result < 0 and ctypes.get_errno() == errno.ENOSYS)
"""


@pytest.mark.parametrize("mode", ["read", "write"])
def test_calls_that_are_too_new(staging: Target, mode: str) -> None:
    """Of the target's files they are said not to be there, so that programs use the older ones; what is local is the kernel's."""
    here = staging.native([sys.executable, "-c", NEW_CALLS]).out.split()
    result = staging.plugged([sys.executable, "-c", NEW_CALLS], 60, ("--fs-mode", mode))
    assert result.out.split() == ["True"] * 3 + here[3:], result


def test_quota(staging: Target) -> None:
    """EDQUOT of the target's file system, a real one: Btrfs with a limit on a subvolume."""
    need("mkfs.btrfs")
    setup = """
        truncate -s 128M /srv/disk; mkfs.btrfs -q /srv/disk >&2; mkdir /srv/quota; mount -o loop /srv/disk /srv/quota
        btrfs quota enable /srv/quota; btrfs subvolume create /srv/quota/s; btrfs qgroup limit 4M /srv/quota/s
        btrfs quota rescan -w /srv/quota
    """
    script = "head -c 9000000 /dev/urandom >/srv/quota/s/x; echo $?; rm /srv/quota/s/x; echo ok >/srv/quota/s/y; cat /srv/quota/s/y"
    try:
        made = staging.native(["sh", "-euc", setup])
        assert made.code == 0, made
        native = staging.native(["/usr/bin/sh", "-c", script])
        plugged = staging.plugged(["/usr/bin/sh", "-c", script], 60, WRITE)
        assert "Disk quota exceeded" in native.err
        assert plugged.out == native.out == "1\nok\n"
        assert [line for line in plugged.err.splitlines() if not line.startswith("sidestage")] == native.err.splitlines()
    finally:
        staging.native(["sh", "-c", "umount /srv/quota; rm -rf /srv/quota /srv/disk"])


def test_proc_and_sys_of_the_target(staging: Target, tmp_path: object) -> None:
    """Mapped paths that lead there: listed and read, files of size 0 too."""
    config = f"{tmp_path}/sidestage.json"
    with open(config, "w") as out:
        out.write('{"feature": {"fs": {"mode": "read", "mapping": {"^/target/(.*)": "/$1"}, "read_only": ["^/proc/", "^/sys/"]}}}')
    script = """
        cat {0}/proc/sys/kernel/hostname; ls {0}/proc/sys/net/ipv4/conf/all | wc -l; wc -l <{0}/proc/filesystems
        head -c 8 {0}/proc/meminfo
        cut -d: -f1 {0}/proc/net/dev | tail -n +3; ls {0}/sys/class/net; cat {0}/sys/class/net/lo/mtu; ls {0}/proc | grep -c meminfo
        tr '\\0' ' ' <{0}/proc/{1}/cmdline | wc -c; readlink {0}/proc/{1}/cwd; ls {0}/proc/{1}/fd | wc -l; stat -c %F {0}/proc/1
    """
    native = staging.native(["/usr/bin/sh", "-c", script.format("", staging.pid)])
    plugged = staging.plugged(["/usr/bin/sh", "-c", script.format("/target", staging.pid)], 60, ("-f", config))
    assert native.code == 0 and native.err == ""
    assert plugged.out.splitlines() == native.out.splitlines(), plugged


def test_read_write_patterns(staging: Target, tmp_path: object) -> None:
    """In read mode, what the patterns name is written at the target, and only that."""
    config = f"{tmp_path}/sidestage.json"
    with open(config, "w") as out:
        out.write('{"feature": {"fs": {"mode": "read", "read_write": ["^/srv/w/"]}}}')
    assert staging.native(["sh", "-c", FRESH]).code == 0
    script = "echo x >/srv/w/x && cat /srv/w/x; echo y 2>/dev/null >/srv/folder/y || echo local; cat /srv/folder/a"
    result = staging.plugged(["/usr/bin/sh", "-c", script], 30, ("-f", config))
    assert result.out == "x\nlocal\na\n", result
    assert staging.native(["cat", "/srv/w/x"]).out == "x\n"
