"""Containers of a real podman or docker, started plugged into the target by `sidestage container`. No registry is asked."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.testkit.build import need
from tests.testkit.dockerd import Daemon
from tests.testkit.target import SIDESTAGE, Target

RUNTIMES = ("crun", "runc")
# What lets podman run as root inside a machine that is itself confined: no cgroup manager, no higher limits than ours
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=10000:10000")
# crun wants cgroup v2 alone; where the machine mixes both versions it is given a mount of its own
_UNIFIED = ("unshare", "--mount", "sh", "-c", 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"', "sh")


@dataclass(frozen=True, slots=True)
class Boxed(Target):
    """A target whose plugged programs run in containers."""

    engine: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    before: tuple[str, ...] = ()  # the command that sidestage is run by
    options: tuple[str, ...] = ()  # of run
    image: tuple[str, ...] = ("--rootfs", "/:O")  # this machine's own root, with what is written left aside

    def command(self, argv: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        start = [*self.engine, "run", "--rm", *self.limits, *self.options, *self.image, *argv]
        return [*self.before, *SIDESTAGE, "container", "-t", f"process/{self.pid}", *flags, "--", *start]

    def containers(self) -> set[str]:
        """Ids of all that the engine knows of."""
        shown = subprocess.run([*self.before, *self.engine, "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True)
        return set(shown.stdout.split())

    @contextlib.contextmanager
    def imported(self, files: Mapping[str, bytes], changes: Sequence[str]) -> Iterator[str]:
        """An image of these files; `changes` are lines of a Containerfile. Names that end in a slash are folders."""
        name = f"localhost/sidestage-test-{uuid.uuid4().hex[:8]}"
        options = [word for line in changes for word in ("--change", line)]
        load = [*self.engine, "import", *options, "-", name]
        made = subprocess.run(load, input=archive(files), capture_output=True, check=False)
        assert made.returncode == 0, made.stderr
        try:
            yield name
        finally:
            subprocess.run([*self.engine, "rmi", "-f", name], capture_output=True, check=True)


def archive(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path.rstrip("/"))
            entry.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            entry.mode, entry.size = 0o755, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return written.getvalue()


def boxed(staging: Target, runtime: str) -> Boxed:
    """By podman, with this runtime."""
    need("podman")
    need(runtime)
    before = _UNIFIED if runtime == "crun" and not os.path.exists("/sys/fs/cgroup/cgroup.controllers") else ()
    limits = (*LIMITS, *(["--cgroups=disabled"] if runtime == "crun" else []))
    engine = ("podman", "--cgroup-manager", "cgroupfs", "--runtime", runtime)
    return Boxed(staging.pid, staging.process, engine, limits, before)


def docked(staging: Target, daemon: Daemon) -> Boxed:
    """By docker, with its own runc."""
    return Boxed(staging.pid, staging.process, daemon.docker, before=daemon.before, image=(*daemon.here, daemon.image))
