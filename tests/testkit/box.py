"""Containers of a real podman, started plugged into the target by `sidestage container`. No registry is asked for anything."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.testkit.build import need
from tests.testkit.target import SIDESTAGE, Target

RUNTIMES = ("crun", "runc")
# What lets podman run as root inside a machine that is itself confined: no cgroup manager, no higher limits than ours
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=10000:10000")
# crun wants cgroup v2 alone; where the machine mixes both versions it is given a mount of its own
_UNIFIED = ("unshare", "--mount", "sh", "-c", 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"', "sh")


@dataclass(frozen=True, slots=True)
class Boxed(Target):
    """A target whose plugged programs run in containers."""

    runtime: str = ""
    before: tuple[str, ...] = ()  # the command that sidestage is run by
    options: tuple[str, ...] = ()  # of podman run
    image: tuple[str, ...] = ("--rootfs", "/:O")  # this machine's own root, with what is written left aside

    def command(self, argv: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        start = [*self.podman, "run", "--rm", *self.limits, *self.options, *self.image, *argv]
        return [*self.before, *SIDESTAGE, "container", "-t", f"process/{self.pid}", *flags, "--", *start]

    @property
    def podman(self) -> list[str]:
        return ["podman", "--cgroup-manager", "cgroupfs", "--runtime", self.runtime]

    @property
    def limits(self) -> list[str]:
        return [*LIMITS, *(["--cgroups=disabled"] if self.runtime == "crun" else [])]

    def containers(self) -> set[str]:
        """Ids of all that podman knows of."""
        shown = subprocess.run([*self.before, *self.podman, "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True)
        return set(shown.stdout.split())


def boxed(staging: Target, runtime: str) -> Boxed:
    need("podman")
    need(runtime)
    before = _UNIFIED if runtime == "crun" and not os.path.exists("/sys/fs/cgroup/cgroup.controllers") else ()
    return Boxed(staging.pid, staging.process, runtime, before)


@contextlib.contextmanager
def image(files: Mapping[str, bytes], changes: Sequence[str]) -> Iterator[str]:
    """An image of these files; `changes` are lines of a Containerfile. Names that end in a slash are folders."""
    name = f"localhost/sidestage-test-{uuid.uuid4().hex[:8]}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path.rstrip("/"))
            entry.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            entry.mode, entry.size = 0o755, len(data)
            tar.addfile(entry, io.BytesIO(data))
    options = [word for line in changes for word in ("--change", line)]
    load = ["podman", "import", "-q", *options, "-", name]
    made = subprocess.run(load, input=archive.getvalue(), capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    try:
        yield name
    finally:
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True, check=True)


def inspect(podman: Sequence[str], name: str) -> dict[str, object]:
    shown = subprocess.run([*podman, "inspect", name], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(shown.stdout)[0]
    return found
