"""Going to the target: its network and host name by setns(2), its files by a descriptor of its root.

We stay in our own mount namespace: the interpreter goes on finding its own files, and paths are walked below the root's
descriptor with openat2(2), where neither `..` nor an absolute link leads out.
"""

from __future__ import annotations

import ctypes
import os
from typing import List, Optional

from sidestage.agent import rights

# SO_MARK of our own connections to the target's ports, which are neither redirected nor mirrored.
# Clear of the bits that kube-proxy (0x4000, 0x8000) and Istio (0xfff) test.
MARK = 0x51DE0
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWUTS = 0x10000000, 0x40000000, 0x04000000
_libc = ctypes.CDLL(None, use_errno=True)


class Target:
    """`pid` None: no process to impersonate, our own namespaces (targetless).

    `here` is `container` or `pod` where we run in the target's own: its network is ours already. Where we may not look at its
    process, being another user without rights, its files are those of our container, or can't be had (`root` is -1).
    """

    def __init__(self, pid: Optional[int], here: str = "") -> None:
        self.pid = pid or os.getpid()
        self.pidfd = -1 if pid is None else os.pidfd_open(pid)
        self.root = -1
        self.closed = False  # may we not look at the process?
        try:
            if pid is not None:
                self._enter()
            self.root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            if not here:
                raise
            self.closed = True
            if here == "container":
                self.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _enter(self) -> None:
        base = f"/proc/{self.pid}/ns/"
        fds = {name: os.open(base + name, os.O_RDONLY | os.O_CLOEXEC) for name in ("user", "net", "uts")}
        # An ordinary user has the right to enter the others only within the target's user namespace.
        if not _same(fds["user"], "user") and os.geteuid():
            _setns(fds["user"], _CLONE_NEWUSER)
            if os.geteuid():
                # That gives all rights in it (user_namespaces(7)). What root may is settled call by call (changes.py).
                with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as status:
                    rights.drop(rights.of(status.read()))
        for name, flag in (("net", _CLONE_NEWNET), ("uts", _CLONE_NEWUTS)):
            if not _same(fds[name], name):
                _setns(fds[name], flag)
        for fd in fds.values():
            os.close(fd)

    def hostname(self) -> str:
        return os.uname().nodename

    def nameservers(self) -> List[str]:
        """Of the target's resolv.conf(5), in its order."""
        try:
            place = "" if self.closed else f"/proc/{self.pid}/root"  # in a pod all containers have the same
            fd = os.open(f"{place}/etc/resolv.conf", os.O_RDONLY | os.O_CLOEXEC)
            with open(fd, encoding="utf-8", errors="replace") as conf:
                words = [line.split() for line in conf]
        except OSError:
            return []
        return [line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]

    def addresses(self) -> List[str]:
        """The addresses of the target's network namespace, loopback left out."""
        found = []
        with open("/proc/net/fib_trie", encoding="ascii") as trie:
            last = ""
            for line in trie:
                if "|--" in line:
                    last = line.split()[-1]
                elif "/32 host LOCAL" in line and not last.startswith("127.") and last not in found:
                    found.append(last)
        try:
            with open("/proc/net/if_inet6", encoding="ascii") as lines:
                for line in lines:
                    text = line.split()[0]
                    if text != "0" * 31 + "1" and not text.startswith("fe80"):
                        found.append(":".join(text[at : at + 4] for at in range(0, 32, 4)))
        except FileNotFoundError:
            pass  # a kernel without IPv6
        return found


def _same(fd: int, name: str) -> bool:
    ours, theirs = os.stat(f"/proc/self/ns/{name}"), os.fstat(fd)
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def _setns(fd: int, kind: int) -> None:
    if _libc.setns(fd, kind):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
