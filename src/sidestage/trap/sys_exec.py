"""execve, execveat: a program of this machine runs as always; one that only the target has runs here, if it may.

Its contents are opened as by open(2), and the call is turned into one of that descriptor (retarget.py). A script is not
given to the kernel, which would tell the interpreter a wrong name: a stub execs the interpreter, whose call comes here too.
What follows links to a file of the system (a virtual environment's `python`) runs this machine's, as files of the system are local.
"""

from __future__ import annotations

import errno as e
import os
import platform
import stat as st
from dataclasses import dataclass
from typing import Any

from sidestage.trap import kernel, scripts
from sidestage.trap.paths import AT_EMPTY_PATH, AT_FDCWD, Paths, signed
from sidestage.trap.ports import Decision
from sidestage.trap.retarget import Retarget
from sidestage.trap.supervisor import Call, Supervisor
from sidestage.trap.sys_open import open_node

_REFUSED = "a program of the target, which runs here only if feature.fs.execute names it"


@dataclass(frozen=True, slots=True)
class _Program:
    call: Call
    named: bytes  # as the caller names it
    path: str  # of the target
    empty: int  # the address of an empty string
    argv: int
    envp: int


def install(sup: Supervisor) -> None:
    programs = _Programs(Paths.of(sup))
    sup.on("execve", lambda c: programs.asked(c, AT_FDCWD, *c.args[:3]))
    sup.on("execveat", lambda c: programs.asked(c, signed(c.args[0]), *c.args[1:4]) if not c.args[4] & AT_EMPTY_PATH else c.cont())


class _Programs:
    def __init__(self, paths: Paths) -> None:
        self._paths, self._sup = paths, paths.sup

    def asked(self, call: Call, dirfd: int, address: int, argv: int, envp: int) -> None:
        try:
            place = self._paths.where(call, dirfd, address)
            named = call.string(address)
        except OSError:
            call.cont()
            return
        if isinstance(place, int) or not place.remote or (named.startswith(b"/") and os.path.exists(_here(call, place.path))):
            call.cont()
            return
        empty = address + len(named)
        if dirfd != AT_FDCWD:
            named = os.fsencode(place.path)  # the interpreter hasn't this descriptor
        program = _Program(call, named, place.path, empty, argv, envp)
        self._sup.broker.request("realpath", {"path": place.path}, lambda *told: self._found(program, *told))

    def _found(self, program: _Program, result: dict[str, Any], errno: int, _fds: list[int]) -> None:
        call = program.call
        mode = 0 if errno else result["stat"][2]
        if errno or not st.S_ISREG(mode) or not mode & 0o111:
            call.fail(errno or e.EACCES)
            return
        if not self._sup.policy.execute(program.path):
            self._sup.say(f"{program.path}: {_REFUSED}")
            call.fail(e.EACCES)
            return
        real = result["real"]
        here = _here(call, real)
        if self._sup.policy.path(real, False) == (Decision.LOCAL, real) and os.access(here, os.X_OK):
            try:
                fd = os.open(here, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                call.fail(error.errno or e.EACCES)
            else:
                self._run(program, fd)
            return

        def opened(result: dict[str, Any], errno: int, fds: list[int]) -> None:
            if errno:
                call.fail(errno)
                return
            try:
                fd = fds[0] if fds else open_node(self._paths, result, os.O_RDONLY, writable=False)
            except OSError as error:
                call.fail(error.errno or e.EIO)
                return
            if not fds:
                self._paths.remember(result["node"], program.path)
            self._run(program, fd)

        self._sup.broker.request("open", {"path": program.path, "flags": os.O_RDONLY}, opened)

    def _run(self, program: _Program, fd: int) -> None:
        """`fd` is ours to close."""
        try:
            head = os.pread(fd, scripts.HEAD, 0)
            asked = scripts.shebang(head)
            if asked:
                self._script(program, asked)
            else:
                self._retarget(program, fd, scripts.loader(head))
        except OSError as error:
            program.call.fail(error.errno or e.EIO)
        finally:
            os.close(fd)

    def _script(self, program: _Program, asked: scripts.Shebang) -> None:
        call = program.call
        depth = scripts.depth(call.args[3]) + 1
        if depth > scripts.MAX_DEPTH:
            raise OSError(e.ELOOP, "a script that interprets a script that ...")

        def told(_result: dict[str, Any], errno: int, _fds: list[int]) -> None:
            if errno:
                call.fail(errno)
                return
            try:
                fd = kernel.in_memory(scripts.stub(platform.machine(), program.named, asked, depth))
            except OSError as error:
                call.fail(error.errno or e.EACCES)
                return
            with open(fd, "rb"):
                self._retarget(program, fd, "")

        # The caller is to hear now what its execve() would say of the interpreter: when the stub looks for it, it's too late.
        interpreter = os.fsdecode(asked.interpreter)
        here = _here(call, interpreter)
        if self._sup.policy.path(interpreter, False)[0] is Decision.REMOTE and not os.path.exists(here):
            self._sup.broker.request("access", {"path": interpreter, "mode": os.X_OK}, told)
        elif interpreter.startswith("/") and not os.access(here, os.X_OK):
            call.fail(e.EACCES if os.path.exists(here) else e.ENOENT)
        else:
            told({}, 0, [])

    def _retarget(self, program: _Program, fd: int, loader: str) -> None:
        def failed(errno: int) -> None:
            if errno == e.ENOENT and loader:
                self._sup.say(f"{program.path}: its loader, {loader}, is not on this machine; a static program needs none")

        try:
            Retarget(program.call, fd, program.empty, program.argv, program.envp, failed)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            self._sup.say(f"{program.path}: can't be run: ptrace(2), which is needed for it (is it debugged?), says: {why}")
            program.call.fail(e.EACCES)


def _here(call: Call, path: str) -> str:
    """A file of this machine as the caller has it."""
    return f"/proc/{call.tid}/root{path}"
