"""From a container's id to its main process: the forms that runtimes give to cgroup paths, and a real process."""

from __future__ import annotations

import os
import re

import pytest

from sidestage.agent import container

ID = "3f" * 32
POD = "pod1b2c_3d"


@pytest.mark.parametrize(
    "path, inside",
    [
        (f"0::/kubepods.slice/kubepods-{POD}.slice/cri-containerd-{ID}.scope", True),  # containerd, systemd, v2
        (f"0::/../../kubepods-{POD}.slice/cri-containerd-{ID}.scope", True),  # seen from another cgroup namespace
        (f"0::/kubepods/burstable/{POD}/{ID}", True),  # cgroupfs
        (f"0::/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope", True),  # CRI-O
        (f"0::/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope/container", True),
        (f"0::/kubepods.slice/kubepods-{POD}.slice/crio-conmon-{ID}.scope", False),  # its monitor is outside
        (f"0::/system.slice/docker-{ID}.scope", True),
        (f"0::/system.slice/docker-{ID}.scope/init.scope", True),  # systemd inside
        (f"12:pids:/kubepods/{POD}/{ID}\n11:memory:/kubepods/{POD}/{ID}\n1:name=systemd:/kubepods/{POD}/{ID}", True),  # v1
        (f"12:pids:/docker/{ID}\n0::/", True),
        (f"0::/kubepods/{POD}/{'ab' * 32}", False),
        ("0::/", False),
        ("", False),
    ],
)
def test_the_forms_of_runtimes(path: str, inside: bool) -> None:
    assert container.belongs(path + "\n", ID) is inside


def test_a_process_that_is_not_there() -> None:
    with pytest.raises(ProcessLookupError):
        container.find("f" * 64)


def test_the_oldest_process_of_a_cgroup_is_found() -> None:
    """Our own cgroup has a name, if not that of a container: its oldest process is at least as old as we are."""
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        names = re.findall(r"[^/:\n]{8,}", lines.read())
    if not names:
        pytest.skip("this process is in the root cgroup")
    assert started(container.find(names[-1])) <= started(os.getpid())


def started(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])
