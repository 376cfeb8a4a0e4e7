"""What each call says of each kind of path, after the idea of pjdfstest's tables: one line per pair. `errors.py FOLDER`."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

KINDS = (
    "file", "directory", "full", "link", "dangling", "dirlink", "loop", "fifo", "none", "none/x", "file/x", "loop/x",
    "link/", "file/", "directory/", "dirlink/", "none/", "dangling/", "directory/.", "full/..", "dirlink/..", ".", "..",
    "x" * 255, "x" * 256, "./file", "full//inside", "dirlink/../file", "full/../../{}/file", "y/" * 2100,
)  # fmt: skip


def make(base: str) -> None:
    shutil.rmtree(base, ignore_errors=True)
    for name in ("", "directory", "full"):
        os.mkdir(f"{base}/{name}")
    for name in ("file", "full/inside", "other"):
        with open(f"{base}/{name}", "w") as file:
            file.write(name)
    for name, target in {"link": "file", "dangling": "made", "dirlink": "full", "loop": "loop"}.items():
        os.symlink(target, f"{base}/{name}")
    os.mkfifo(f"{base}/fifo")


def opens(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o640))


def calls(base: str) -> dict[str, Callable[[str], Any]]:
    other, new = f"{base}/other", f"{base}/new"
    return {
        "open": lambda p: opens(p, os.O_RDONLY),
        "open for writing": lambda p: opens(p, os.O_WRONLY),
        "create": lambda p: opens(p, os.O_WRONLY | os.O_CREAT),
        "create anew": lambda p: opens(p, os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        "create, no link": lambda p: opens(p, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW),
        "truncate and open": lambda p: opens(p, os.O_RDWR | os.O_TRUNC),
        "open as a directory": lambda p: opens(p, os.O_RDONLY | os.O_DIRECTORY),
        "temporary": lambda p: opens(p, os.O_RDWR | os.O_TMPFILE),
        "mkdir": lambda p: os.mkdir(p, 0o750), "rmdir": os.rmdir, "unlink": os.unlink, "mkfifo": lambda p: os.mkfifo(p, 0o640),
        "symlink": lambda p: os.symlink("text", p), "link to": lambda p: os.link(other, p),
        "link from": lambda p: os.link(p, new, follow_symlinks=False),
        "link from, followed": lambda p: os.link(p, new, src_dir_fd=0, follow_symlinks=True),
        "rename to": lambda p: os.rename(other, p), "rename from": lambda p: os.rename(p, new),
        "rename a directory to": lambda p: os.rename(f"{base}/directory", p),
        "chmod": lambda p: os.chmod(p, 0o711), "chown": lambda p: os.chown(p, 1, 2), "lchown": lambda p: os.lchown(p, 3, 4),
        "truncate": lambda p: os.truncate(p, 3), "utime": lambda p: os.utime(p, (1, 2)),
        "utime of the link": lambda p: os.utime(p, (3, 4), follow_symlinks=False),
        "setxattr": lambda p: os.setxattr(p, "user.a", b"1"), "listxattr": os.listxattr, "chdir": os.chdir,
        "stat": lambda p: os.stat(p).st_size, "lstat": lambda p: oct(os.lstat(p).st_mode), "readlink": os.readlink,
        "access": lambda p: os.access(p, os.W_OK), "listdir": lambda p: sorted(os.listdir(p)),
    }  # fmt: skip


def state(base: str) -> list[Any]:
    """What is there afterwards, times and inodes apart."""
    found = []
    for folder, directories, files in os.walk(base):
        for name in sorted(directories + files):
            info = os.lstat(f"{folder}/{name}")
            size = 0 if name in directories else info.st_size
            found.append((name, oct(info.st_mode), info.st_uid, info.st_gid, size, info.st_nlink))
    return sorted(found)


def main(base: str) -> None:
    for call, function in calls(base).items():
        for kind in KINDS:
            make(base)
            before = state(base)
            os.chdir("/")
            try:
                said = function(f"{base}/{kind.format(os.path.basename(base))}")
            except OSError as error:
                said = errno.errorcode[error.errno or 0]
            with contextlib.suppress(OSError):
                said = (said, os.getcwd()) if call == "chdir" else said
            changed = sorted(set(state(base)) ^ set(before))
            print(call, kind[:20], said, changed)
    os.chdir("/")
    shutil.rmtree(base)


if __name__ == "__main__":
    main(sys.argv[1])
