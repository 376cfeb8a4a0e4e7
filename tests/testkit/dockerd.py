"""A docker daemon of the tests' own, built here from Go modules, with its runc; containerd is Debian's. It shares nothing with any
other docker of this machine, and nothing of it stays.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testkit import build
from tests.testkit.target import wait_for

# What it keeps outside of its own folders goes with its mount namespace. The death of the tests is its own, too.
_START = """
mount --make-rprivate /
for folder in /run/docker /run/containerd; do mkdir -p $folder; mount -t tmpfs none $folder; done
ip link set lo up
exec setpriv --pdeathsig TERM "$@"
"""
_NO_NETWORK = {"bridge": "none", "iptables": "false", "ip6tables": "false", "ip-forward": "false"}
START = 60.0  # seconds
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}


@dataclass(frozen=True, slots=True)
class Daemon:
    docker: tuple[str, ...]  # the client
    folder: Path
    before: tuple[str, ...] = ()  # the command by which others come into its network
    image: str = "localhost/sidestage-test"  # nothing but folders, for `here`

    @property
    def here(self) -> tuple[str, ...]:
        """Options that make the programs of this machine run in it."""
        places = {"/usr", str(build.CACHE), sys.base_prefix}
        return tuple(word for place in sorted(places) for word in ("-v", f"{place}:{place}:ro"))

    def run(self, words: Sequence[str], data: bytes = b"") -> str:
        done = subprocess.run([*self.docker, *words], input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def id(self, name: str) -> str:
        return self.run(["inspect", "--type=container", "--format={{.Id}}", name]).strip()

    def admit(self, group: int) -> str:
        """As docker's installation does with its group. Returns a client that all may run."""
        self.folder.chmod(0o755)
        os.chown(self.folder / "sock", 0, group)
        client = self.folder / "docker"
        if not client.exists():
            shutil.copy(self.docker[0], client)
        return str(client)


@contextlib.contextmanager
def daemon(*, bridged: bool = False) -> Iterator[Daemon]:
    """With `bridged` it has a network namespace of its own, and in it bridges and rules as usual."""
    for command in ("containerd", "unshare", "setpriv"):
        build.need(command)
    binaries = build.engines()
    there = [folder for folder in ("/run/docker", "/run/containerd") if not os.path.exists(folder)]
    group = f"sidestage-test-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="dockerd-", dir="/var/tmp") as base:
        flags = {
            "data-root": f"{base}/data", "exec-root": f"{base}/exec", "pidfile": f"{base}/pid", "host": f"unix://{base}/sock",
            "config-file": f"{base}/daemon.json", "cgroup-parent": f"/{group}", "exec-opt": "native.cgroupdriver=cgroupfs",
            "userland-proxy": "false",
        }  # fmt: skip
        flags |= {"bip": "10.213.0.1/24"} if bridged else _NO_NETWORK
        own = ["--net"] if bridged else []
        Path(base, "daemon.json").write_text("{}")
        argv = [str(binaries / "dockerd"), *(f"--{name}={value}" for name, value in flags.items())]
        path = f"{binaries}:{os.environ['PATH']}:/usr/sbin:/sbin"
        with open(f"{base}/log", "wb") as log:
            process = subprocess.Popen(
                ["unshare", "--mount", *own, "sh", "-euc", _START, "sh", *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PATH": path}, start_new_session=True,
            )  # fmt: skip
        before = ("nsenter", f"--net=/proc/{process.pid}/ns/net") if bridged else ()
        found = Daemon((str(binaries / "docker"), "--host", f"unix://{base}/sock"), Path(base), before)
        try:
            _await(process, found)
            found.run(["import", "-", found.image], _root())
            yield found
        finally:
            process.terminate()
            process.wait(60)
            for place in glob.glob(f"/sys/fs/cgroup/{group}") + glob.glob(f"/sys/fs/cgroup/*/{group}"):
                wait_for(f"an empty {place}", lambda place=place: _removed(place))
    for folder in there:
        with contextlib.suppress(OSError):  # another's by now
            os.rmdir(folder)


def _await(process: subprocess.Popen[bytes], found: Daemon) -> None:
    deadline = time.monotonic() + START
    while subprocess.run([*found.docker, "version"], capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError((found.folder / "log").read_text())
        time.sleep(0.1)


def _removed(place: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.rmdir(place)
        except OSError:
            return False
    return True


def _root() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name in ("usr", "etc", "tmp", "var", "root"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for name, place in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, place
            tar.addfile(link)
    return written.getvalue()
