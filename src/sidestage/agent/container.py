"""Which process is the target's: from a container's id to the pid of its main process, through /proc.

Needs no container runtime and no socket of one: the id is part of the cgroup's path (cgroups(7)), whoever made it.
"""

from __future__ import annotations

import os
from typing import Optional, Tuple

# cri-containerd-ID.scope, crio-ID.scope, docker-ID.scope (systemd); kubepods/.../ID, docker/ID (cgroupfs); in a private cgroup
# namespace the path begins with /../.. but ends the same. CRI-O's monitor is in a cgroup with the id as well, and is not inside.
_MONITOR = "conmon"
MAX_CGROUP = 64 << 10


def find(container: str) -> int:
    """The oldest process of the container; raises ProcessLookupError."""
    found: Optional[Tuple[int, int]] = None
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/cgroup", encoding="utf-8", errors="replace") as lines:
                if not belongs(lines.read(MAX_CGROUP), container):
                    continue
            with open(f"/proc/{name}/stat", "rb") as stat:
                started = int(stat.read().rpartition(b")")[2].split()[19])  # starttime of proc_pid_stat(5)
        except OSError:
            continue  # it has just ended
        if found is None or (started, int(name)) < found:
            found = started, int(name)
    if found is None:
        raise ProcessLookupError(container)
    return found[1]


def belongs(cgroup: str, container: str) -> bool:
    """Is a process with this /proc/PID/cgroup inside the container?"""
    for line in cgroup.splitlines():
        for part in line.split(":", 2)[-1].split("/"):
            if container in part and _MONITOR not in part:
                return True
    return False
