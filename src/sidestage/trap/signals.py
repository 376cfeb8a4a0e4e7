"""The signals of sidestage itself, read as data: what another process sends us is meant for the program, and passed on.

What the terminal sends (Ctrl-C, Ctrl-\\, Ctrl-Z, hang-up) goes to its whole foreground group, so the program has it already.
"""

from __future__ import annotations

import os
import signal
import struct

from sidestage.trap import kernel

PASSED_ON = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGTSTP, signal.SIGCONT,
)  # fmt: skip
_INFO = struct.Struct("=Iii116x")  # struct signalfd_siginfo: number, errno, code
_READ_AT_ONCE = 16


class Signals:
    """Blocks them for as long as it is open; dispositions stay as they were, so that the program inherits them (nohup)."""

    def __init__(self) -> None:
        numbers = (*PASSED_ON, signal.SIGCHLD)
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # what the program is to begin with
        self.fd = kernel.signalfd(numbers)

    def for_program(self) -> list[int]:
        """Those that have come and were sent by a process: si_code is not positive then (sigaction(2))."""
        found = []
        try:
            while data := os.read(self.fd, _INFO.size * _READ_AT_ONCE):
                found += [number for number, _, code in _INFO.iter_unpack(data) if number != signal.SIGCHLD and code <= 0]
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        """What has come and wasn't read is dropped: it was for a program that has ended."""
        self.for_program()
        os.close(self.fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


def stop_as_a_job() -> bool:
    """Stop, if a shell with job control waits for us: it sees that the job has stopped. True after it continued us."""
    parent = os.getppid()
    try:
        is_job = os.getpgid(parent) != os.getpgrp() and os.getsid(parent) == os.getsid(0)
    except OSError:
        return False
    if is_job:
        os.kill(os.getpid(), signal.SIGSTOP)
    return is_job
