"""`sidestage doctor`: what this machine can do, tried for real where that harms nothing, and the cure for each lack."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

KERNEL_FLOOR = (5, 19)  # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, see seccomp(2)
PYTHON_FLOOR = (3, 11)
ARCHITECTURES = ("x86_64", "aarch64")


class Finding(NamedTuple):
    name: str
    state: str  # ok | lack (something is slower or left out) | fatal (exec can't work)
    detail: str
    cure: str = ""


def main(argv: Sequence[str]) -> int:
    """Prints the findings; 1 if `exec` can't work here."""
    from sidestage.cli.errors import UserError

    if argv and argv[0] in ("-h", "--help"):
        print("sidestage doctor [--output auto|plain|json]    what this machine can do, and the cure for each lack")
        return 0
    output = argv[1] if len(argv) == 2 and argv[0] == "--output" else "auto" if not argv else ""
    if output not in ("auto", "plain", "json"):
        raise UserError(f"doctor does not know {' '.join(argv)!r}", "write: sidestage doctor [--output json]", 2)
    findings = examine()
    works = all(finding.state != "fatal" for finding in findings)
    if output == "json":
        import json

        print(json.dumps({"works": works, "findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        for finding in findings:
            print(f"{finding.state:5}  {finding.name}: {finding.detail}" + (f"\n       {finding.cure}" if finding.cure else ""))
        print("sidestage exec works here" if works else "sidestage exec can't work here: see what is fatal")
    return 0 if works else 1


def examine() -> list[Finding]:
    scope = _text("/proc/sys/kernel/yama/ptrace_scope")
    checks: list[Callable[[], Finding]] = [
        lambda: kernel(platform.release()), architecture, python, trap, lambda: yama(scope),
        user_namespaces, fuse, surroundings, containers,
    ]  # fmt: skip
    return [check() for check in checks]


def kernel(release: str) -> Finding:
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    if tuple(numbers) >= KERNEL_FLOOR:
        return Finding("kernel", "ok", release)
    cure = "run `wsl --update`" if "microsoft" in release.lower() else "use Linux 5.19 or later (Debian 12, Ubuntu 22.10)"
    return Finding("kernel", "fatal", f"{release} is too old: signals would interrupt trapped calls", cure)


def architecture() -> Finding:
    machine = platform.machine()
    if machine in ARCHITECTURES:
        return Finding("architecture", "ok", machine)
    return Finding("architecture", "fatal", f"no system call table for {machine}", f"use {' or '.join(ARCHITECTURES)}")


def python() -> Finding:
    found = sys.version_info[:2] >= PYTHON_FLOOR
    return Finding("python", "ok" if found else "fatal", platform.python_version(), "" if found else "use 3.11 or later")


def trap() -> Finding:
    """Starts a real program under a real filter, and fetches its listener by pidfd_getfd."""
    if platform.machine() not in ARCHITECTURES:
        return Finding("trap", "fatal", "not tried on this architecture")
    from sidestage.trap import bpf, launch

    try:
        pid, listener = launch.start([shutil.which("true") or sys.executable], {}, bpf.assemble(bpf.program([])))
    except (launch.LaunchError, OSError) as error:
        text = str(error)
        if text == launch.NESTED:
            cure = "leave the outer sidestage or sandbox first"
        else:
            cure = "in a container: start it with --security-opt seccomp=unconfined; else see kernel and yama"
        return Finding("trap", "fatal", text, cure)
    os.close(listener)
    os.waitpid(pid, 0)
    launch.exec_error(pid)
    return Finding("trap", "ok", "a program was started under a filter, and its listener fetched")


def yama(scope: str) -> Finding:
    if scope == "3":
        cure = "it lasts until the next boot: remove kernel.yama.ptrace_scope from /etc/sysctl.d"
        return Finding("yama", "fatal", "ptrace is forbidden for all", cure)
    if scope == "2" and os.geteuid():
        return Finding("yama", "fatal", "ptrace is for administrators only", "sudo sysctl kernel.yama.ptrace_scope=1")
    return Finding("yama", "ok", f"scope {scope}" if scope else "not active")


def user_namespaces() -> Finding:
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(OSError, AttributeError):
            _unshare()
            code = 0
        os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        return Finding("user namespaces", "ok", "allowed")
    cure = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1"
    if not os.geteuid():
        return Finding("user namespaces", "ok", "not to be had, and not needed by root")
    return Finding("user namespaces", "lack", "forbidden: remote files are copied to memory instead of FUSE", cure)


def _unshare() -> None:
    import ctypes

    clone_newuser = 0x10000000  # linux/sched.h; os.unshare is Python 3.12
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newuser):
        raise OSError(ctypes.get_errno(), "unshare")


def fuse() -> Finding:
    """Really mounts, in a private mount namespace: fsopen, user namespace and /dev/fuse at once."""
    from sidestage.session import fusemount

    try:
        server, root = fusemount.mount()
    except OSError as error:
        cure = "sudo modprobe fuse; sudo chmod 666 /dev/fuse; in a container: --device /dev/fuse"
        return Finding("fuse", "lack", f"{error.strerror}: remote files are copied to memory", cure)
    os.close(server)  # first: the kernel then answers for the server, and closing the root can't wait for it
    os.close(root)
    return Finding("fuse", "ok", "mounted without fusermount")


def surroundings() -> Finding:
    release = platform.release().lower()
    places = [name for name, there in (
        ("WSL2", "microsoft" in release),
        ("a container", os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")),
        ("a seccomp filter", _status("Seccomp") == "2"),
    ) if there]  # fmt: skip
    return Finding("inside", "ok", ", ".join(places) if places else "nothing else")


def containers() -> Finding:
    found = [name for name in ("podman", "docker") if shutil.which(name)]
    if found:
        return Finding("containers", "ok", " and ".join(found))
    return Finding("containers", "lack", "neither podman nor docker: targets container/NAME can't be found", "install podman")


def _status(key: str) -> str:
    lines = (line.partition(":") for line in _text("/proc/self/status").splitlines())
    return next((value.strip() for name, _, value in lines if name == key), "")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
