"""Which process is the target's: from a container's id to the pid of its main process, through /proc.

Needs no container runtime and no socket of one: the id is part of the cgroup's path (cgroups(7)), whoever made it.
"""

from __future__ import annotations

import os
from typing import Callable, Optional, Tuple

# cri-containerd-ID.scope, crio-ID.scope, docker-ID.scope (systemd); kubepods/.../ID, docker/ID (cgroupfs); in a private cgroup
# namespace the path begins with /../.. but ends the same. CRI-O's monitor is in a cgroup with the id as well, and is not inside.
_MONITOR = "conmon"
MAX_CGROUP = 64 << 10


def find(container: str, here: str = "") -> int:
    """The oldest process of the container; raises ProcessLookupError.

    A private cgroup namespace may hide the id: `here` says where we are ourselves. In `container`, the target's own, it is the
    oldest with our own cgroup; in `pod`, beside the target in its process namespace, it is the first process.
    """
    found = _oldest(lambda cgroup: belongs(cgroup, container))
    if found is None and here == "container":
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as lines:
            own = lines.read(MAX_CGROUP)
        found = _oldest(lambda cgroup: cgroup == own)
    if found is None and here == "pod":
        found = 1
    if found is None:
        raise ProcessLookupError(container)
    return found


def _oldest(wanted: Callable[[str], bool]) -> Optional[int]:
    found: Optional[Tuple[int, int]] = None
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/cgroup", encoding="utf-8", errors="replace") as lines:
                if not wanted(lines.read(MAX_CGROUP)):
                    continue
            with open(f"/proc/{name}/stat", "rb") as stat:
                started = int(stat.read().rpartition(b")")[2].split()[19])  # starttime of proc_pid_stat(5)
        except OSError:
            continue  # it has just ended
        if found is None or (started, int(name)) < found:
            found = started, int(name)
    return found[1] if found else None


def belongs(cgroup: str, container: str) -> bool:
    """Is a process with this /proc/PID/cgroup inside the container?"""
    for line in cgroup.splitlines():
        for part in line.split(":", 2)[-1].split("/"):
            if container in part and _MONITOR not in part:
                return True
    return False
