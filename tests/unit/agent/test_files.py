"""The agent's files against a zoo on a real file system: links that would lead out, what must not be opened, names of any bytes."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidestage.agent import files
from sidestage.agent.files import ENTRIES, FIRST, MAX_READ, Files
from sidestage.protocol import wire

SECRET = b"not below the root"
NOT_UTF8 = os.fsdecode(b"\xff\xfe caf\xe9\n\x1b")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`tmp/root` is the target's root; `tmp/secret` is what no path may reach."""
    (tmp_path / "secret").write_bytes(SECRET)
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc" / "conf").write_bytes(b"mine")
    (made / "secret").write_bytes(b"the root's own")
    links = {
        "absolute": "/etc/conf", "relative": "etc/conf", "up": "../../../../etc/conf", "out": str(tmp_path / "secret"),
        "up-out": "../secret", "directory": "/etc", "out-directory": "..", "loop": "loop", "dangling": "/nowhere",
        "magic": "/proc/self/root", NOT_UTF8 + "-link": NOT_UTF8,
    }  # fmt: skip
    for name, target in links.items():
        (made / name).symlink_to(target)
    (made / NOT_UTF8).write_bytes(b"odd name")
    os.mkfifo(made / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        cwd = os.getcwd()
        os.chdir(made)  # sun_path is short
        try:
            sock.bind("socket")
        finally:
            os.chdir(cwd)
    with (made / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
        sparse.seek((1 << 40) - 3)
        sparse.write(b"end")
    (made / "empty").touch()
    return made


@pytest.fixture
def agent(root: Path) -> Iterator[Files]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield Files(fd)
    os.close(fd)


def fails(code: int, what: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        what()
    assert caught.value.errno == code, caught.value


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/etc/conf", b"mine"), ("etc/conf", b"mine"), ("/../../etc/conf", b"mine"), ("/etc/../../secret", b"the root's own"),
        ("/absolute", b"mine"), ("/relative", b"mine"), ("/up", b"mine"), ("/up-out", b"the root's own"),
        ("/directory/conf", b"mine"), ("/out-directory/etc/conf", b"mine"), ("/" + NOT_UTF8, b"odd name"),
        ("/" + NOT_UTF8 + "-link", b"odd name"), ("//etc/./conf", b"mine"), ("/empty", b""),
    ],
)  # fmt: skip
def test_content(agent: Files, path: str, content: bytes) -> None:
    before = descriptors()
    told, data = agent.open(path)
    assert data == content and told["handle"] == 0 and told["eof"] is True
    assert descriptors() == before


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/out", errno.ENOENT), ("/dangling", errno.ENOENT), ("/loop", errno.ELOOP), ("/nothing", errno.ENOENT), ("", errno.ENOENT),
        ("/etc/conf/x", errno.ENOTDIR), ("/fifo", errno.EACCES), ("/socket", errno.EACCES), ("/magic/etc", errno.ENOENT),
        ("/" + "x" * 256, errno.ENAMETOOLONG), ("/x" * 2048, errno.ENAMETOOLONG), ("/etc/conf/", errno.ENOTDIR),
    ],
)  # fmt: skip
def test_refused_and_nothing_left_open(agent: Files, path: str, code: int) -> None:
    before = descriptors()
    fails(code, lambda: agent.open(path))
    assert descriptors() == before


def test_no_magic_link_leads_out() -> None:
    """With the machine's own root, where /proc is: the descriptors and the root of a process are not to be had through it."""
    fd = os.open("/", os.O_PATH)
    try:
        agent = Files(fd)
        for path in ("/proc/self/root/etc", f"/proc/{os.getppid()}/root", "/proc/self/cwd", f"/proc/self/fd/{fd}"):
            fails(errno.ELOOP, lambda path=path: agent.open(path))  # type: ignore[misc]
        assert agent.readlink("/proc/self/root") == b"/"
        told, data = agent.open("/proc/self/status")  # says size 0
        assert b"Name:" in data and told["eof"] is True
        fails(errno.EACCES, lambda: agent.open("/dev/zero"))
    finally:
        os.close(fd)


def test_a_link_that_changes_all_the_time_never_leads_out(agent: Files, root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "secret").write_bytes(b"inside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(root / "a" / "b", root / "b")  # below it, .. is now another directory
            os.rename(root / "b", root / "a" / "b")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(agent.open("/a/b/../../../secret")[1])
                seen.add(agent.open("/a/b/secret")[1])
            except OSError as error:
                seen.add(errno.errorcode[error.errno or 0].encode())
    finally:
        done.set()
        thread.join()
    assert SECRET not in seen and seen <= {b"the root's own", b"inside", b"ENOENT", b"EAGAIN", b"EXDEV"}


def test_links_not_followed(agent: Files) -> None:
    fails(errno.ELOOP, lambda: agent.open("/absolute", follow=False))
    assert agent.open("/directory/conf", follow=False)[1] == b"mine"
    assert stat.S_ISLNK(agent.stat("/out", False)[2]) and agent.stat("/absolute", True)[7] == 4
    assert agent.readlink("/up-out") == b"../secret" and agent.readlink("/" + NOT_UTF8 + "-link") == os.fsencode(NOT_UTF8)
    fails(errno.EINVAL, lambda: agent.readlink("/etc/conf"))
    fails(errno.ENOENT, lambda: agent.readlink("/nothing"))


@pytest.mark.parametrize("size", [1, FIRST - 1, FIRST, FIRST + 1, 3 * MAX_READ + 5])
def test_sizes(agent: Files, root: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (root / "file").write_bytes(content)
    told, data = agent.open("/file")
    assert data == content[:FIRST] and told["eof"] is (size < FIRST) and bool(told["handle"]) is (size >= FIRST)
    if handle := int(str(told["handle"])):
        while part := agent.read(handle, len(data), 1 << 30):
            assert len(part) <= MAX_READ
            data += part
        assert data == content
        agent.close(handle)
        fails(errno.EBADF, lambda: agent.read(handle, 0, 1))


def test_sparse(agent: Files) -> None:
    told, data = agent.open("/sparse")
    handle = int(str(told["handle"]))
    assert data == bytes(FIRST) and agent.stat("/sparse", True)[7] == 1 << 40
    assert agent.read(handle, (1 << 40) - 5, 100) == b"\0\0end" and agent.read(handle, 1 << 41, 1) == b""
    agent.close(handle)


def names(agent: Files, path: str) -> dict[str, tuple[int, int]]:
    told, data = agent.open(path)
    handle = int(str(told["handle"]))
    assert handle and data == b""
    found: dict[str, tuple[int, int]] = {}
    while part := agent.readdir(handle):
        assert len(part) <= ENTRIES and len(json.dumps(part)) < wire.MAX_PAYLOAD - 100
        assert not found.keys() & {name for name, _, _ in part}
        found |= {name: (ino, kind) for name, ino, kind in part}
    agent.close(handle)
    return found


def test_a_directory(agent: Files, root: Path) -> None:
    found = names(agent, "/")
    assert found.keys() == {*os.listdir(root)} and NOT_UTF8 in found
    assert json.loads(json.dumps(list(found))) == list(found)
    for name, (ino, kind) in found.items():
        info = os.lstat(root / name)
        assert (ino, kind) == (info.st_ino, stat.S_IFMT(info.st_mode) >> 12), name


@pytest.mark.parametrize(
    "tail",
    ["", "x" * 251, "文" * 83, os.fsdecode(b"\xff" * 251), "😀" * 62],
    ids=["short", "ascii", "cjk", "bytes", "astral"],
)
def test_a_long_directory_comes_in_parts_that_fit_a_frame(agent: Files, root: Path, tail: str) -> None:
    (root / "long").mkdir()
    expected = {f"{number:04}{tail}" for number in range(ENTRIES + 500)}
    for entry in expected:
        os.symlink("x", root / "long" / entry)
    assert names(agent, "/long").keys() == expected


def test_an_entry_that_goes_while_it_is_listed(agent: Files, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "busy").mkdir()
    for number in range(10):
        os.mkfifo(root / "busy" / str(number))
    told, _ = agent.open("/busy")
    real = files._type

    def late(entry: os.DirEntry[str]) -> int:
        (root / "busy" / entry.name).unlink()
        return real(entry)

    monkeypatch.setattr(files, "_type", late)
    handle = int(str(told["handle"]))
    assert {kind for _, _, kind in agent.readdir(handle)} <= {0, 1}
    agent.close(handle)


def test_access_and_statfs(agent: Files, root: Path) -> None:
    agent.access("/etc/conf", os.R_OK)
    agent.access("/fifo", os.F_OK)
    fails(errno.ENOENT, lambda: agent.access("/dangling", os.F_OK))
    (root / "etc" / "conf").chmod(0o600)
    fails(errno.EACCES, lambda: agent.access("/etc/conf", os.X_OK))  # not even root may run it
    told, native = agent.statfs("/etc/conf"), os.statvfs(root)
    assert (told[1], told[2], told[5], told[7]) == (native.f_bsize, native.f_blocks, native.f_files, native.f_namemax)


def test_a_deep_path(agent: Files, root: Path) -> None:
    deep = "/".join(["d" * 100] * 35)
    (root / deep).mkdir(parents=True)
    (root / deep / "file").write_bytes(b"deep")
    assert agent.open("/" + deep + "/file")[1] == b"deep"


@pytest.mark.parametrize("handle", [0, -1, 99])
def test_a_handle_that_is_none(agent: Files, handle: int) -> None:
    fails(errno.EBADF, lambda: agent.read(handle, 0, 1))
    fails(errno.EBADF, lambda: agent.readdir(handle))
    fails(errno.EBADF, lambda: agent.close(handle))


def test_a_file_is_no_directory(agent: Files, root: Path) -> None:
    (root / "big").write_bytes(bytes(FIRST))
    told, _ = agent.open("/big")
    handle = int(str(told["handle"]))
    fails(errno.ENOTDIR, lambda: agent.readdir(handle))
    agent.close(handle)
    handle = int(str(agent.open("/etc")[0]["handle"]))
    fails(errno.EISDIR, lambda: agent.read(handle, 0, 1))
    agent.close(handle)
