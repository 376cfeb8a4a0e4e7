"""Takes locks as it is told on standard input, and says what came of it: one process for each of its arguments.

A line is the name of the process and a command; so is each answer. `lock N posix|ofd|flock sh|ex|un [start length] [wait]`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import NoReturn

KINDS = {"sh": fcntl.F_RDLCK, "ex": fcntl.F_WRLCK, "un": fcntl.F_UNLCK}
NAMES = {number: name for name, number in KINDS.items()}
FLOCK = struct.Struct("=hh4xqqi4x")
files: dict[str, int] = {}


def lock(name: str, how: str, kind: str, *more: str) -> str:
    wait = "wait" in more
    if how == "flock":
        operation = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}[kind]
        fcntl.flock(files[name], operation | (0 if wait else fcntl.LOCK_NB))
        return "ok"
    start, length = (int(word) for word in more[:2]) if len(more) > 1 else (0, 0)
    commands = (fcntl.F_SETLK, fcntl.F_SETLKW) if how == "posix" else (fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW)
    fcntl.fcntl(files[name], commands[wait], FLOCK.pack(KINDS[kind], 0, start, length, 0))
    return "ok"


def get(name: str, how: str, kind: str, start: str, length: str, pid: str = "") -> str:
    command = fcntl.F_GETLK if how == "posix" else fcntl.F_OFD_GETLK
    asked = FLOCK.pack(KINDS[kind], 0, int(start), int(length), 0)
    found, _whence, first, size, who = FLOCK.unpack(fcntl.fcntl(files[name], command, asked))
    return NAMES[found] + ("" if found == fcntl.F_UNLCK else f" {first} {size}") + (f" {who}" if pid else "")


def opened(name: str, path: str, mode: str) -> str:
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[mode]
    files[name] = os.open(path, flags | (0 if mode == "r" else os.O_CREAT), 0o600)
    return "ok"


def closed(name: str) -> str:
    os.close(files.pop(name))
    return "ok"


def duplicate(name: str, other: str) -> str:
    files[other] = os.dup(files[name])
    return "ok"


def fork(*command: str) -> str:
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, b"child: " + answer(list(command)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with open(read) as said:
        return said.read()


def count(name: str, how: str, times: str) -> str:
    """Adds to a number in the file, under a lock that is taken for each time."""
    for _ in range(int(times)):
        lock(name, how, "ex", "100", "1", "wait")
        os.pwrite(files[name], str(int(os.pread(files[name], 20, 0) or b"0") + 1).encode(), 0)
        lock(name, how, "un", "100", "1")
    return "ok"


def count_mapped(name: str, how: str, times: str) -> str:
    with mmap.mmap(files[name], 8192) as mapped:
        for _ in range(int(times)):
            lock(name, how, "ex", "wait")
            mapped[5000:5008] = struct.pack("=q", struct.unpack("=q", mapped[5000:5008])[0] + 1)
            lock(name, how, "un")
    return "ok"


def alarm(seconds: str) -> str:
    def interrupted(*_: object) -> NoReturn:
        raise InterruptedError(errno.EINTR, "")

    signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    return "ok"


def read(name: str, size: str) -> str:
    return repr(os.pread(files[name], int(size), 0))


def write(name: str, text: str) -> str:
    os.pwrite(files[name], text.encode(), 0)
    return "ok"


COMMANDS: dict[str, Callable[..., str]] = {
    "open": opened, "close": closed, "dup": duplicate, "lock": lock, "get": get, "fork": fork, "alarm": alarm, "read": read,
    "write": write, "count": count, "mapped": count_mapped, "pid": lambda: str(os.getpid()),
}  # fmt: skip


def answer(words: list[str]) -> str:
    try:
        return COMMANDS[words[0]](*words[1:])
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def serve(name: str, commands: int) -> None:
    with open(commands) as lines:
        for line in lines:
            os.write(1, f"{name} {answer(line.split())}\n".encode())


def main() -> None:
    pipes: dict[str, int] = {}
    for name in sys.argv[1:]:
        read, write = os.pipe()
        if not os.fork():
            for other in pipes.values():
                os.close(other)
            os.close(write)
            serve(name, read)
            return
        os.close(read)
        pipes[name] = write
    for line in sys.stdin:
        name, _, command = line.partition(" ")
        if command.strip() == "kill":
            os.close(pipes.pop(name))
        else:
            os.write(pipes[name], command.encode())


if __name__ == "__main__":
    main()
