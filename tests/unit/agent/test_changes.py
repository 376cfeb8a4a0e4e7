"""The agent's changes on a real file system: nothing leads out of the root, the target is who does it, errors are the kernel's."""

from __future__ import annotations

import errno
import gc
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.testkit.target import wait_for

from sidestage.agent.changes import Changes
from sidestage.agent.files import Files

OTHER = 65533  # an ordinary user's number


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"not below the root")
    made = tmp_path / "root"
    (made / "d").mkdir(parents=True)
    (made / "f").write_bytes(b"hello")
    (made / "out").symlink_to(tmp_path)
    (made / "up").symlink_to("../../../..")
    (made / "dangling").symlink_to("/d/made")
    os.mkfifo(made / "pipe")
    return made


@pytest.fixture
def changes(root: Path) -> Iterator[Changes]:
    mask = os.umask(0o022)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield Changes(Files(fd), None, pytest.fail)
    os.close(fd)
    os.umask(mask)


def ask(changes: Changes, op: str, raw: bytes = b"", **args: Any) -> dict[str, Any]:
    return changes.call(op, args, raw)[0]


def fails(code: int, what: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        what()
    assert caught.value.errno == code, caught.value


def test_a_file_from_beginning_to_end(changes: Changes, root: Path) -> None:
    made = ask(changes, "create", path="/d/new", flags=os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o640)
    handle = made["handle"]
    assert made["created"] and stat.S_IMODE(made["stat"][2]) == 0o640
    assert ask(changes, "write", b"0123456789", handle=handle, offset=0) == {"size": 10}
    assert ask(changes, "setattr", handle=handle, size=4, mode=0o600)["touched"][0][7] == 4
    assert ask(changes, "allocate", handle=handle, mode=0, offset=0, length=9)["stat"][7] == 9
    changes.sync({"handle": handle, "data": True})
    assert (root / "d/new").read_bytes() == b"0123" + bytes(5)
    again = ask(changes, "create", path="/d/new", flags=os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode=0o640)
    assert not again["created"] and again["stat"][7] == 0


def test_appending_handles_do_not_overwrite_each_other(changes: Changes, root: Path) -> None:
    flags = os.O_WRONLY | os.O_APPEND
    first, second = (ask(changes, "create", path="/f", flags=flags)["handle"] for _ in range(2))
    ask(changes, "write", b"1", handle=first, offset=5)
    ask(changes, "write", b"2", handle=second, offset=5)
    assert (root / "f").read_bytes() == b"hello12"


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("create", {"path": "/f", "flags": os.O_CREAT | os.O_EXCL | os.O_WRONLY}, errno.EEXIST),
        ("create", {"path": "/d", "flags": os.O_WRONLY}, errno.EISDIR),
        ("create", {"path": "/none", "flags": os.O_WRONLY}, errno.ENOENT),
        ("create", {"path": "/pipe", "flags": os.O_WRONLY}, errno.ENXIO),
        ("create", {"path": "/pipe", "flags": os.O_RDONLY}, errno.ENXIO),
        ("create", {"path": "/out/secret", "flags": os.O_WRONLY}, errno.ENOENT),
        ("create", {"path": "/out/new", "flags": os.O_CREAT | os.O_WRONLY}, errno.ENOENT),
        ("create", {"path": "/f/", "flags": os.O_CREAT | os.O_WRONLY}, errno.EISDIR),
        ("mkdir", {"path": "/out/x", "mode": 0o755}, errno.ENOENT),
        ("mkdir", {"path": "/d/..", "mode": 0o755}, errno.EEXIST),
        ("mkdir", {"path": "/", "mode": 0o755}, errno.EEXIST),
        ("rmdir", {"path": "/d/."}, errno.EINVAL),
        ("rmdir", {"path": "/.."}, errno.ENOTEMPTY),
        ("rmdir", {"path": "/f"}, errno.ENOTDIR),
        ("unlink", {"path": "/d"}, errno.EISDIR),
        ("unlink", {"path": "/f/"}, errno.ENOTDIR),
        ("rename", {"path": "/f", "to": "/out/secret"}, errno.ENOENT),
        ("rename", {"path": "/f", "to": "/d", "flags": 1}, errno.EEXIST),
        ("rename", {"path": "/d", "to": "/d/below"}, errno.EINVAL),
        ("link", {"path": "/d", "to": "/d2"}, errno.EPERM),
        ("link", {"path": "/f", "to": "/d"}, errno.EEXIST),
        ("symlink", {"text": "x", "path": "/f"}, errno.EEXIST),
        ("setattr", {"path": "/f", "size": -1}, errno.EINVAL),
        ("setattr", {"path": "/d", "size": 1}, errno.EISDIR),
        ("setattr", {"path": "/dangling", "follow": False, "mode": 0o600}, errno.EOPNOTSUPP),
        ("setattr", {"path": "/f", "times": [0, 1 << 40, 0, 0]}, errno.EINVAL),
        ("getxattr", {"path": "/f", "name": "user.none"}, errno.ENODATA),
        ("seek", {"handle": 1, "offset": 0, "whence": 3}, errno.EBADF),
        ("write", {"handle": 7, "offset": 0}, errno.EBADF),
    ],
)
def test_refusals_are_the_kernels(changes: Changes, root: Path, op: str, args: dict[str, Any], code: int) -> None:
    gc.collect()  # what other tests left behind is not closed meanwhile
    before = len(os.listdir("/proc/self/fd")), sorted(os.listdir(root)), sorted(os.listdir(root.parent))
    fails(code, lambda: ask(changes, op, **args))
    assert before == (len(os.listdir("/proc/self/fd")), sorted(os.listdir(root)), sorted(os.listdir(root.parent)))


def test_links_stay_below_the_root(changes: Changes, root: Path) -> None:
    """`/up` is the root itself, however many `..` it has; a link to nowhere is created through, below the root."""
    ask(changes, "mkdir", path="/up/made", mode=0o755)
    ask(changes, "create", path="/dangling", flags=os.O_CREAT | os.O_WRONLY, mode=0o600)
    ask(changes, "symlink", text="../" * 9, path="/d/../link")
    assert (root / "made").is_dir() and (root / "d/made").is_file() and (root / "link").is_symlink()
    ask(changes, "rename", path="/f", to="/up/g")
    ask(changes, "link", path="/g", to="/up/h")
    assert (root / "g").samefile(root / "h") and sorted(os.listdir(root.parent)) == ["root", "secret"]


def test_names_and_attributes(changes: Changes, root: Path) -> None:
    told = ask(changes, "link", path="/f", to="/h")["touched"]
    assert told[0][3] == 2
    ask(changes, "rename", path="/f", to="/d", flags=2)  # RENAME_EXCHANGE
    assert (root / "d").is_file() and (root / "f").is_dir()
    ask(changes, "setattr", path="/d", times=[1, 2, 0, (1 << 30) - 2])  # UTIME_OMIT
    assert os.stat(root / "d").st_atime_ns == 1_000_000_002
    ask(changes, "mknod", path="/f/fifo", mode=stat.S_IFIFO | 0o600, device=0)
    assert stat.S_ISFIFO(os.stat(root / "f/fifo").st_mode)
    gone = ask(changes, "unlink", path="/h")["touched"]
    assert gone[0][:2] == told[0][:2]
    tmp = ask(changes, "create", path="/f", flags=os.O_TMPFILE | os.O_RDWR, mode=0o600)["handle"]
    ask(changes, "link", handle=tmp, to="/named")
    assert (root / "named").exists()


def test_extended_attributes(changes: Changes) -> None:
    ask(changes, "setxattr", b"value", path="/f", name="user.a", flags=0)
    assert changes.call("getxattr", {"path": "/f", "name": "user.a"}, b"") == ({}, b"value")
    assert changes.call("listxattr", {"path": "/f"}, b"") == ({}, b"user.a\0")
    fails(errno.EEXIST, lambda: ask(changes, "setxattr", b"", path="/f", name="user.a", flags=1))
    ask(changes, "removexattr", path="/f", name="user.a")
    fails(errno.E2BIG, lambda: ask(changes, "setxattr", bytes(65537), path="/f", name="user.a", flags=0))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_target_is_who_does_it(changes: Changes, root: Path) -> None:
    """Ownership and permission are those of the target's process; ours come back behind each call."""
    target = subprocess.Popen(["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--groups=4242", "sleep", "60"])
    try:
        wait_for("sleep", lambda: os.readlink(f"/proc/{target.pid}/exe").endswith("sleep"))
        os.chown(root / "d", 0, 4242)
        os.chmod(root / "d", 0o2770)
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        groups = os.getgroups()
        theirs = Changes(Files(fd), target.pid, pytest.fail)
        ask(theirs, "create", path="/d/new", flags=os.O_CREAT | os.O_WRONLY, mode=0o644)
        ask(theirs, "mkdir", path="/d/sub", mode=0o755)
        for name in ("new", "sub"):
            info = os.stat(root / "d" / name)
            assert (info.st_uid, info.st_gid) == (OTHER, 4242)
        fails(errno.EACCES, lambda: ask(theirs, "create", path="/f", flags=os.O_WRONLY))
        fails(errno.EACCES, lambda: ask(theirs, "unlink", path="/f"))
        fails(errno.EPERM, lambda: ask(theirs, "setattr", path="/f", mode=0o777))
        fails(errno.EACCES, lambda: theirs.access("/f", os.W_OK))
        assert ask(theirs, "create", path="/f", flags=os.O_RDONLY)["handle"]  # reading is by our own rights
        (root / "ours").touch()
        assert os.stat(root / "ours").st_uid == 0
        os.close(fd)
    finally:
        os.setgroups(groups)
        target.kill()
        target.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize("other", [False, True])
def test_nothing_is_done_with_rights_that_the_target_lacks(root: Path, other: bool) -> None:
    """Root without rights over files owns what it has made, and no more; who may not act as another does nothing at all."""
    script = """if True:
        import os, sys
        from sidestage.agent.changes import Changes
        from sidestage.agent.files import Files
        root, pid = sys.argv[1], int(sys.argv[2])
        changes = Changes(Files(os.open(root, os.O_PATH | os.O_DIRECTORY)), pid, print)
        for path in "/d/of-another", "/mine":
            try:
                print(changes.call("mkdir", {"path": path, "mode": 0o700}, b"") and "made")
            except OSError as error:
                print(error.errno)
        os.mkdir(root + "/d/ours")
    """
    os.chown(root / "d", OTHER, OTHER)
    os.chmod(root / "d", 0o700)
    who = ["--clear-groups", f"--reuid={OTHER}", f"--regid={OTHER}"] if other else ["--bounding-set", "-all", "--inh-caps", "-all"]
    target = subprocess.Popen(["setpriv", *who, "sleep", "60"])
    try:
        wait_for("sleep", lambda: os.readlink(f"/proc/{target.pid}/exe").endswith("sleep"))
        agent = [sys.executable, "-c", script, str(root), str(target.pid)]
        if other:
            agent = ["setpriv", "--bounding-set", "-setuid,-setgid", "--inh-caps", "-setuid,-setgid", *agent]
        done = subprocess.run(agent, capture_output=True, text=True, timeout=60, check=False)
    finally:
        target.kill()
        target.wait()
    if other:
        warned, *errors = done.stdout.splitlines()
        assert "may not act as user" in warned and errors == [str(errno.EPERM)] * 2, done
        assert not (root / "mine").exists()
    else:
        assert done.stdout.split() == [str(errno.EACCES), "made"], done
    assert (root / "d" / "ours").is_dir(), done.stderr  # our own rights are back
