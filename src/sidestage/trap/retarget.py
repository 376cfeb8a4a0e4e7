"""Turns an execve() that waits for its answer into an execveat() of a descriptor that we give to its caller.

A notification can't change arguments, and to write over the caller's path would change it for its parent too, which shares the
memory while it waits in vfork(2). So only registers are changed, by ptrace(2): the call is interrupted, and made again as
`execveat(fd, "", argv, envp, AT_EMPTY_PATH)`, where "" is the end of the path that is there anyway. The caller is let go as soon
as the new program is there. If the kernel can't run it, registers and descriptors are put back, and the caller gets the error.

A signal or a stop that comes between is left to the kernel: the call begins anew after it, and we with it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
from collections.abc import Callable
from enum import IntEnum, auto

from sidestage.trap import kernel
from sidestage.trap.bpf import number
from sidestage.trap.registers import LAYOUTS
from sidestage.trap.supervisor import Call

AT_EMPTY_PATH = 0x1000
ERESTARTNOINTR = 513  # include/linux/errno.h: the call is made again, whatever signals there are
_NR_CLOSE = {"x86_64": 3, "aarch64": 57}[platform.machine()]
_MACHINE = LAYOUTS[platform.machine()]


class _Stage(IntEnum):
    """What the caller is about to do; each but the first ends with a stop at a system call."""

    STOP = auto()
    EXEC = auto()
    EXEC_RETURNS = auto()
    CLOSE = auto()
    CLOSE_RETURNS = auto()


class Retarget:
    """`failed(errno)` is told when the kernel could not run the file."""

    def __init__(self, call: Call, fd: int, empty: int, argv: int, envp: int, failed: Callable[[int], None]) -> None:
        """Raises OSError, and nothing has happened then: the caller is traced by another, or has no descriptor left."""
        self._call, self._failed = call, failed
        self._stage = _Stage.STOP
        self._saved = b""
        self._error = 0
        kernel.seize(call.tid)
        code = ERESTARTNOINTR
        self._args: tuple[int, ...] = ()
        try:
            self._fd = kernel.put_fd(call.listener, call.id, fd)
            self._args = (self._fd, empty, argv, envp, AT_EMPTY_PATH)
        except OSError as error:
            code = error.errno or ERESTARTNOINTR
        call.sup.traced[call.tid] = self.stopped
        with contextlib.suppress(ProcessLookupError):  # it is being killed: we shall hear of its end
            kernel.interrupt(call.tid)
        call.fail(code)

    def stopped(self, tid: int, status: int) -> None:
        """A change of the caller's state, as wait(2) tells it."""
        try:
            if not os.WIFSTOPPED(status):
                self._forget()  # it has ended
            elif not self._go_on(tid, status >> 16, os.WSTOPSIG(status)):
                self._forget()
        except ProcessLookupError:
            self._forget()  # it is being killed, and is not stopped any more

    def _go_on(self, tid: int, event: int, number_: int) -> bool:
        """False: it has been let go."""
        if event == kernel.EVENT_STOP and number_ == signal.SIGTRAP and self._stage is _Stage.STOP and self._args:
            self._saved = kernel.get_registers(tid)
            self._make(tid, number("execveat") or 0, self._args)
        elif event == 0 and number_ == kernel.SYSCALL_STOP and self._stage in (_Stage.EXEC, _Stage.CLOSE):
            kernel.to_next_call(tid)
        elif event == 0 and number_ == kernel.SYSCALL_STOP and self._stage is _Stage.EXEC_RETURNS:
            self._error = -_MACHINE.result_of(kernel.get_registers(tid))
            self._make(tid, _NR_CLOSE, (self._fd,))
        elif event == 0 and number_ == kernel.SYSCALL_STOP and self._stage is _Stage.CLOSE_RETURNS:
            kernel.set_registers(tid, _MACHINE.returned(self._saved, -self._error))
            kernel.detach(tid)
            self._failed(self._error)
            return False
        else:
            if self._saved and event != kernel.EVENT_EXEC:
                kernel.set_registers(tid, self._saved)
            kernel.detach(tid, 0 if event else number_)
            return False
        self._stage = _Stage(self._stage + 1)
        return True

    def _make(self, tid: int, call: int, args: tuple[int, ...]) -> None:
        kernel.set_registers(tid, _MACHINE.calling(self._saved, call, args))
        kernel.to_next_call(tid)

    def _forget(self) -> None:
        self._call.sup.traced.pop(self._call.tid, None)
