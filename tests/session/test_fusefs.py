"""The FUSE server with a real kernel: programs read what a directory holds, through a detached mount."""

from __future__ import annotations

import errno as e
import fcntl
import hashlib
import json
import mmap
import os
import select
import socket
import stat as st
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidestage.session import fusemount
from sidestage.session.fusefs import FuseFiles
from sidestage.session.memfiles import LIMIT, MemFiles
from sidestage.stream.loop import Loop
from tests.session.directory import DirectoryLink

BIG = 20 << 20


class Served:
    """The server in a process of its own (a page fault on our mount would hold this one's GIL); `open` is what trap does."""

    def __init__(self, root: Path, delay: float = 0.0) -> None:
        server, self.root = fusemount.mount()
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._control.close()
                _Server(server, control, root, delay).loop.run()
            finally:
                os._exit(0)
        control.close()
        os.close(server)  # so that the end of the server is the end of the mount, not a hang

    def ask(self, what: str, *args: Any) -> Any:
        self._control.settimeout(10)
        self._control.send(json.dumps([what, *args]).encode())
        return json.loads(self._control.recv(1 << 16))

    def node(self, path: str, flags: int = 0) -> dict[str, Any]:
        result, errno = self.ask("open", path, flags)
        if errno:
            raise OSError(errno, path)
        return dict(result)

    def open(self, path: str, flags: int = 0) -> int:
        return os.open(self.node(path, flags)["node"], os.O_RDONLY | flags, dir_fd=self.root)

    def end(self) -> None:
        self._control.close()
        os.close(self.root)
        assert os.waitpid(self._pid, 0)[1] == 0


class _Server:
    def __init__(self, fuse: int, control: socket.socket, root: Path, delay: float) -> None:
        self.loop = Loop()
        self.link = DirectoryLink(self.loop, root, delay)
        self.files = FuseFiles(self.loop, self.link, fuse)  # type: ignore[arg-type]
        self._control = control
        self.loop.watch(control.fileno(), select.EPOLLIN, self._asked)

    def _asked(self, _: int) -> None:
        data = self._control.recv(1 << 16)
        if not data:
            self.loop.stop()
            return
        what, *args = json.loads(data)
        if what == "open":
            self.files.open(args[0], args[1], lambda *answer: self._tell(answer))
        elif what == "state":
            self._tell([self.link.calls, len(self.link.handles), len(self.files.nodes)])
        elif what == "root":
            self.link._root = Path(args[0])
            self._tell(None)
        elif what == "gone":
            self.link.gone = True
            self._tell(None)

    def _tell(self, what: Any) -> None:
        self._control.send(json.dumps(what).encode())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    app = tmp_path / "tree/app"
    (app / "sub").mkdir(parents=True)
    (app / "small").write_bytes(b"hello\n")
    (app / "empty").touch()
    (app / "exact").write_bytes(os.urandom(128 << 10))
    (app / "big").write_bytes(os.urandom(BIG))
    (app / "link").symlink_to("small")
    (app / "sub/deep").write_text("deep")
    os.mkfifo(app / "pipe")
    for number in range(500):
        (app / "sub" / f"file-{number:03}-{'x' * 40}").touch()
    return tmp_path / "tree"


@pytest.fixture
def served(tree: Path) -> Iterator[Served]:
    served = Served(tree)
    yield served
    served.end()


def settle(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read(fd: int, size: int = 1 << 20) -> bytes:
    with os.fdopen(fd, "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(size), b""))


def test_small_file_takes_one_call(served: Served) -> None:
    assert read(served.open("/app/small")) == b"hello\n"
    assert served.ask("state")[0] == ["open"]


@pytest.mark.parametrize("name", ["small", "empty", "exact", "big"])
@pytest.mark.parametrize("size", [777, 4096, 1 << 20])
def test_content(served: Served, tree: Path, name: str, size: int) -> None:
    assert read(served.open(f"/app/{name}"), size) == (tree / "app" / name).read_bytes()
    settle(lambda: served.ask("state")[1:] == [0, 1])


def test_attributes_are_the_targets(served: Served, tree: Path) -> None:
    os.utime(tree / "app/small", ns=(1_000_000_000_123_456_789, -1_500_000_001))
    theirs = os.stat(tree / "app/small")
    fd = served.open("/app/small")
    mine = os.fstat(fd)
    for name in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_atime_ns", "st_blocks"):
        assert getattr(mine, name) == getattr(theirs, name), name
    os.close(fd)


def test_random_access(served: Served, tree: Path) -> None:
    fd = served.open("/app/big")
    data = (tree / "app/big").read_bytes()
    for offset in (BIG - 10, 5 << 20, (5 << 20) - 4096, 131072, 131071, 0, 7, BIG, BIG + 5):
        assert os.pread(fd, 5000, offset) == data[offset : offset + 5000]
    os.close(fd)


def test_mmap_flock_and_another_process(served: Served, tree: Path) -> None:
    fd = served.open("/app/big")
    data = (tree / "app/big").read_bytes()
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[9 << 20 : (9 << 20) + 100] == data[9 << 20 : (9 << 20) + 100]
        os.close(fd)
        assert hashlib.sha256(mapped).digest() == hashlib.sha256(data).digest()
    fd = served.open("/app/small")
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert subprocess.run(["cat"], stdin=fd, capture_output=True, check=True).stdout == b"hello\n"
    os.close(fd)


def test_directory(served: Served, tree: Path) -> None:
    fd = served.open("/app/sub", os.O_DIRECTORY)
    assert sorted(os.listdir(fd)) == sorted(os.listdir(tree / "app/sub"))
    kinds = {entry.name: entry.is_file() for entry in os.scandir(fd)}
    assert len(kinds) == 501 and all(kinds.values())
    os.close(fd)
    settle(lambda: served.ask("state")[1] == 0)


def test_working_directory(served: Served) -> None:
    """fchdir(2) into a remote directory, then relative names: the kernel asks us by itself."""
    fd = served.open("/app", os.O_DIRECTORY)
    command = "cat small link sub/deep; ls sub | wc -l; test -e none || echo none; cd sub && cat deep"
    script = f"import os; os.fchdir({fd}); os.execv('/bin/sh', ['sh', '-c', {command!r}])"
    out = subprocess.run([sys.executable, "-c", script], pass_fds=[fd], capture_output=True, text=True, timeout=20)
    os.close(fd)
    assert out.stdout.split() == ["hello", "hello", "deep501", "none", "deep"], out


def test_changes_are_refused(served: Served) -> None:
    fd = served.open("/app/small")
    changes: list[Callable[[], None]] = [lambda: os.ftruncate(fd, 0), lambda: os.fchmod(fd, 0o777), lambda: os.utime(fd)]
    for change in changes:
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno in (e.EROFS, e.EINVAL)
    with pytest.raises(OSError, match="Read-only"):
        os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    assert os.read(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), 9) == b"hello\n"
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "flags", "errno"),
    [
        ("/app/none", 0, e.ENOENT),
        ("/app/small", os.O_DIRECTORY, e.ENOTDIR),
        ("/app/link", os.O_NOFOLLOW, e.ELOOP),
        ("/app/pipe", os.O_NONBLOCK, e.ENXIO),
    ],
)
def test_refusals(served: Served, path: str, flags: int, errno: int) -> None:
    with pytest.raises(OSError) as caught:
        served.open(path, flags)
    assert caught.value.errno == errno
    settle(lambda: served.ask("state")[1] == 0)


def test_a_growing_file_is_seen_to_grow(served: Served, tree: Path) -> None:
    fd = served.open("/app/small")
    assert os.read(fd, 100) == b"hello\n" and os.read(fd, 100) == b""
    with (tree / "app/small").open("ab") as log:
        log.write(b"more\n")
    settle(lambda: os.read(fd, 100) == b"more\n")
    with (tree / "app/small").open("ab") as log:
        log.write(b"x" * (300 << 10))
    os.lseek(fd, 0, os.SEEK_SET)
    settle(lambda: os.fstat(fd).st_size == 11 + (300 << 10))
    assert os.read(fd, 1 << 20) == (tree / "app/small").read_bytes()
    os.close(fd)


def test_a_file_without_a_size(served: Served, tree: Path) -> None:
    """/proc says 0 and has more."""
    served.ask("root", "/proc/1")
    assert b"Name:" in read(served.open("/status"))


def test_end_of_the_link(served: Served) -> None:
    fd = served.open("/app/big")
    served.ask("gone")
    with pytest.raises(OSError) as caught:
        os.pread(fd, 4096, 10 << 20)
    assert caught.value.errno == e.EIO
    assert os.pread(fd, 4096, 0)  # was there already
    os.close(fd)


def test_interrupted_read(tree: Path) -> None:
    """A program that waits for the target can be killed."""
    served = Served(tree, delay=3)
    fd = served.open("/app/big")
    program = subprocess.Popen(["tail", "-c", "+9000000"], stdin=fd, stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    start = time.monotonic()
    program.kill()
    program.wait(10)
    assert time.monotonic() - start < 1
    os.close(fd)
    served.end()


def test_unclaimed_nodes_are_dropped(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidestage.session.fusefs.UNCLAIMED", 0.05)
    served = Served(tree)
    served.node("/app/big")
    time.sleep(0.1)
    name = served.node("/app/big")["node"]
    settle(lambda: served.ask("state")[1] == 1)
    time.sleep(0.1)
    served.node("/app/small")
    with pytest.raises(FileNotFoundError):
        os.open(name, os.O_RDONLY, dir_fd=served.root)
    served.end()


def test_mount_says_why_not() -> None:
    with pytest.raises(OSError, match="no such file") as caught:
        fusemount.mount("/dev/no-fuse")
    assert caught.value.errno == e.ENOENT


def test_unprivileged(tree: Path) -> None:
    """The same without any privilege, in a user namespace of its own; /dev/fuse as distributions have it."""
    code = "import test_fusefs, sys, pathlib; s = test_fusefs.Served(pathlib.Path(sys.argv[1])); "
    code += "print(test_fusefs.read(s.open('/app/small'))); s.end()"
    device = "mount -t tmpfs x /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse && "
    drop = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "
    env = {"PYTHONPATH": f"{Path(__file__).parent}:{os.pathsep.join(sys.path)}", "PATH": os.environ["PATH"]}
    for part in [tree, *tree.parents][:4]:
        part.chmod(0o755)
    script = f'{device} exec {drop} {sys.executable} -c "$0" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, code, str(tree)], env=env, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "b'hello\\n'\n", done.stderr


# -- without FUSE --


def mem_open(root: Path, path: str, flags: int = 0) -> int:
    loop = Loop()
    out: list[Any] = []

    def done(result: dict[str, Any], errno: int) -> None:
        out.extend([result, errno])
        loop.later(0.01, loop.stop)

    link = DirectoryLink(loop, root)
    loop.soon(lambda: MemFiles(loop, link).open(path, flags, done))  # type: ignore[arg-type]
    loop.run()
    assert not link.handles
    if out[1]:
        raise OSError(out[1], path)
    return int(out[0]["fds"][0])


@pytest.mark.parametrize("name", ["small", "empty", "exact", "big"])
def test_copies(tree: Path, name: str) -> None:
    fd = mem_open(tree, f"/app/{name}")
    assert os.fstat(fd).st_size == (tree / "app" / name).stat().st_size
    assert os.fstat(fd).st_mtime_ns == (tree / "app" / name).stat().st_mtime_ns
    assert st.S_IMODE(os.fstat(fd).st_mode) == 0o444
    with pytest.raises(OSError):
        os.write(fd, b"x")
    assert read(fd) == (tree / "app" / name).read_bytes()


def test_copies_refuse(tree: Path) -> None:
    os.truncate(tree / "app/big", LIMIT + 1)
    for path, errno in ("/app", e.ENOSYS), ("/app/big", e.EFBIG), ("/app/none", e.ENOENT), ("/app/pipe", e.ENXIO):
        with pytest.raises(OSError) as caught:
            mem_open(tree, path)
        assert caught.value.errno == errno
