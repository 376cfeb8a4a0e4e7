"""Starts the program under the filter. The child installs it, hands its listener over by number, closes it, and executes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
from collections.abc import Collection, Mapping, Sequence

from sidestage.trap import kernel

_INT = struct.Struct("=i")
NESTED = "another tool holds a seccomp listener on this process already, and the kernel allows only one"


class LaunchError(Exception):
    """The program could not be started; `status` is what a shell would exit with (POSIX 2.8.2)."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def start(argv: Sequence[str], env: Mapping[str, str], program: bytes, mask: Collection[int] = ()) -> tuple[int, int]:
    """Fork, filter, execute with the signal mask; returns (pid, listener)."""
    try:
        kernel.check_sizes()
    except OSError as error:
        raise LaunchError(f"{error.strerror}; `sidestage doctor` says more", 1) from error
    up_r, up_w = os.pipe()
    down_r, down_w = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            os.close(up_r)
            os.close(down_w)
            _child(argv, env, program, mask, up_w, down_r, parent)
        finally:
            os._exit(126)
    os.close(up_w)
    os.close(down_r)
    try:
        number = int(_INT.unpack(_exactly(up_r))[0])
        if number < 0:
            text = NESTED if number == -errno.EBUSY else f"seccomp: {os.strerror(-number)}; `sidestage doctor` says more"
            raise LaunchError(text, 1)
        pidfd = kernel.pidfd_open(pid)
        try:
            listener = kernel.pidfd_getfd(pidfd, number)
        finally:
            os.close(pidfd)
    except BaseException:
        os.close(down_w)
        os.close(up_r)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    os.write(down_w, b"x")
    os.close(down_w)
    _exec_pipes[pid] = up_r
    return pid, listener


_exec_pipes: dict[int, int] = {}


def exec_error(pid: int) -> int:
    """After the end of `pid`: the errno of its execve, or 0 when it was executed."""
    fd = _exec_pipes.pop(pid)
    data = os.read(fd, _INT.size)
    os.close(fd)
    return int(_INT.unpack(data)[0]) if data else 0


def _exactly(fd: int) -> bytes:
    data = os.read(fd, _INT.size)
    if len(data) != _INT.size:
        raise LaunchError("the child ended before it could be supervised", 1)
    return data


def _child(
    argv: Sequence[str], env: Mapping[str, str], program: bytes, mask: Collection[int], up: int, down: int, parent: int
) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored is inherited (signal(7))
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Everything that allocates or imports comes before the filter: from then on some calls wait for the supervisor.
    encoded = [os.fsencode(arg) for arg in argv]
    environ = {os.fsencode(k): os.fsencode(v) for k, v in env.items()}
    try:
        listener = kernel.install(program)
    except OSError as error:
        os.write(up, _INT.pack(-(error.errno or 1)))
        os._exit(126)
    os.write(up, _INT.pack(listener))
    os.read(down, 1)
    os.close(listener)  # a copy here would keep callers waiting for ever when the supervisor dies
    with contextlib.suppress(OSError):
        os.close(down)
    try:
        os.execve(encoded[0], encoded, environ)
    except OSError as error:
        os.write(up, _INT.pack(error.errno or 8))
