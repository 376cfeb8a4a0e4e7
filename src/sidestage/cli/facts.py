"""What `sidestage doctor` looks at: this machine's facts, read or tried, without judging them. Nothing is changed by it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from dataclasses import dataclass

ARCHITECTURES = ("x86_64", "aarch64")
_CLONE_NEWUSER = 0x10000000  # linux/sched.h; os.unshare is Python 3.12
_ENGINES = {"podman": "", "docker": "/var/run/docker.sock"}  # -> the socket that it needs


@dataclass(frozen=True, slots=True)
class Facts:
    """An `*_error` is empty when it went well."""

    release: str = ""
    machine: str = ""
    python: tuple[int, int, int] = (0, 0, 0)
    root: bool = False
    notify: bool = False  # seccomp user notification, with WAIT_KILLABLE_RECV
    killable: bool = False
    getfd: bool = False  # pidfd_getfd(2)
    trap_error: str = ""  # of a real program under a real filter
    nested: bool = False  # ... because another listener is there
    yama: str = ""  # kernel.yama.ptrace_scope, empty without Yama
    userns_error: str = ""
    apparmor_userns: bool = False  # Ubuntu 23.10 and later restrict them by AppArmor
    userns_limit: int = 1  # user.max_user_namespaces
    fuse_device: str = "usable"  # usable | closed | missing: /dev/fuse
    fuse_error: str = ""
    container: str = ""  # the kind that we run in
    seccomp: bool = False  # a filter is on us already
    wsl: int = 0  # 1, 2, or 0 for none
    engines: tuple[str, ...] = ()
    closed_engines: tuple[str, ...] = ()  # installed, but their socket is not for us


def gather() -> Facts:
    notify, killable, getfd = _calls()
    trap_error, nested = _trap()
    engines = [name for name in _ENGINES if shutil.which(name)]
    closed = [name for name in engines if _ENGINES[name] and not os.access(_ENGINES[name], os.R_OK | os.W_OK)]
    major, minor, micro = (int(part.rstrip("+")) for part in platform.python_version_tuple()[:3])
    return Facts(
        release=platform.release(), machine=platform.machine(), python=(major, minor, micro), root=not os.geteuid(),
        notify=notify, killable=killable, getfd=getfd, trap_error=trap_error, nested=nested,
        yama=_text("/proc/sys/kernel/yama/ptrace_scope"), userns_error=_user_namespace(),
        apparmor_userns=_text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
        userns_limit=int(_text("/proc/sys/user/max_user_namespaces") or 1),
        fuse_device=_device("/dev/fuse"), fuse_error=_fuse(), container=_container(),
        seccomp=_status("Seccomp") == "2", wsl=_wsl(platform.release()),
        engines=tuple(name for name in engines if name not in closed), closed_engines=tuple(closed),
    )  # fmt: skip


def _calls() -> tuple[bool, bool, bool]:
    """Whether the kernel, and whatever filters us, knows the calls; tried with arguments that can do nothing."""
    if platform.machine() not in ARCHITECTURES:
        return False, False, False
    from sidestage.trap import kernel

    notify, killable = (kernel.knows_filter(flag) for flag in (kernel.FILTER_NEW_LISTENER, kernel.FILTER_WAIT_KILLABLE_RECV))
    return notify, killable, kernel.knows_getfd()


def _trap() -> tuple[str, bool]:
    """Starts a real program under a real filter, and fetches its listener."""
    if platform.machine() not in ARCHITECTURES:
        return "not tried on this architecture", False
    import sys

    from sidestage.trap import bpf, launch

    try:
        pid, listener = launch.start([shutil.which("true") or sys.executable], {}, bpf.assemble(bpf.program([])))
    except (launch.LaunchError, OSError) as error:
        return str(error), str(error) == launch.NESTED
    os.close(listener)
    os.waitpid(pid, 0)
    launch.exec_error(pid)
    return "", False


def _user_namespace() -> str:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        text = b"unshare is not to be had"
        with contextlib.suppress(Exception):
            text = _unshare().encode()
        os.write(write, text)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as end:
        text = end.read()
    os.waitpid(pid, 0)
    return text.decode()


def _unshare() -> str:
    import ctypes

    done = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER)
    return os.strerror(ctypes.get_errno()) if done else ""


def _device(path: str) -> str:
    if not os.path.exists(path):
        return "missing"
    return "usable" if os.access(path, os.R_OK | os.W_OK) else "closed"


def _fuse() -> str:
    """Really mounts, in a private mount namespace: fsopen, user namespace and /dev/fuse at once."""
    from sidestage.session import fusemount

    try:
        server, root = fusemount.mount()
    except OSError as error:
        return error.strerror or str(error)
    os.close(server)  # first: the kernel then answers for the server, and closing the root can't wait for it
    os.close(root)
    return ""


def _container() -> str:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "a Kubernetes pod"
    if os.path.exists("/run/.containerenv"):
        return "a podman container"
    if os.path.exists("/.dockerenv"):
        return "a docker container"
    kind = os.environ.get("container")  # noqa: SIM112 (as systemd's Container Interface spells it)
    return f"a container ({kind})" if kind else ""


def _wsl(release: str) -> int:
    """WSL 1 has no Linux kernel: it says 4.4.0-19041-Microsoft; WSL 2 says ...-microsoft-standard-WSL2."""
    if "microsoft" not in release.lower():
        return 0
    return 2 if "wsl2" in release.lower() or "microsoft-standard" in release else 1


def _status(key: str) -> str:
    lines = (line.partition(":") for line in _text("/proc/self/status").splitlines())
    return next((value.strip() for name, _, value in lines if name == key), "")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
