"""A target for tests: one process in its own network, mount and UTS namespaces, with neighbours in the same network.

All addresses are on the loopback interface of that network: the service's, its dependencies', its clients'. Nothing outside can be
reached, and everything is gone with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SERVICE, DEPENDENCY, NAMESERVER, CLIENT = "10.77.0.10", "10.77.0.20", "10.77.0.2", "10.77.0.50"
SERVICE6, CLIENT6 = "fd77::10", "fd77::50"
ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).with_name("inside.py")
_SETUP = """\
mount --make-rprivate /
ip link set lo up
for a in 10.77.0.10 10.77.0.20 10.77.0.2 10.77.0.50; do ip addr add $a/32 dev lo; done
for a in fd77::10 fd77::20 fd77::50; do ip -6 addr add $a/128 dev lo nodad; done
hostname orders-7f9c
mkdir -p "$FOLDER"/data
mount -t tmpfs data /srv
printf 'remote data\\n' >/srv/config.txt; chmod 640 /srv/config.txt; touch -d @1700000000 /srv/config.txt
mkdir /srv/folder; for n in a b c; do echo $n >/srv/folder/$n; done; ln -s /srv/config.txt /srv/link
head -c 300000 /dev/zero >/srv/big
printf 'nameserver 10.77.0.2\\nsearch staging.internal\\noptions timeout:2 attempts:1\\n' >"$FOLDER"/resolv.conf
printf '127.0.0.1 localhost\\n10.77.0.10 orders-7f9c\\n' >"$FOLDER"/hosts
mount --bind "$FOLDER"/resolv.conf /etc/resolv.conf
mount --bind "$FOLDER"/hosts /etc/hosts
exec "$PYTHON" "$INSIDE"
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Target:
    pid: int
    process: subprocess.Popen[bytes]

    def native(self, argv: Sequence[str], timeout: float = 30, env: Mapping[str, str] | None = None) -> Result:
        """Run inside the target's namespaces: what the plugged run must equal."""
        enter = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", f"--wd={os.getcwd()}", "--"]
        return run([*enter, *argv], timeout, {**os.environ, **ENV, **(env or {})})

    def plugged(
        self, argv: Sequence[str], timeout: float = 30, flags: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Result:
        return run(self.command(argv, flags), timeout, {**os.environ, **(env or {}), "PYTHONPATH": str(ROOT / "src")})

    def command(self, argv: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        return [*SIDESTAGE, "exec", "-t", f"process/{self.pid}", *flags, "--", *argv]

    def endpoint(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this process in the target's network: a namespace is a thread's when it is made, then the socket's."""
        with open(f"/proc/{self.pid}/ns/net") as there, open("/proc/thread-self/ns/net") as here:
            setns(there.fileno())
            try:
                return socket.socket(family, kind)
            finally:
                setns(here.fileno())

    def connect(self, address: tuple[str, int], source: str = "") -> socket.socket:
        """A client in the target's network."""
        sock = self.endpoint(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            sock.settimeout(10)
            if source:
                sock.bind((source, 0))
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    def rules(self) -> str:
        """All of its network's nftables."""
        return self.native(["nft", "list", "ruleset"]).out

    def client(self, url: str, source: str = CLIENT) -> Result:
        """A client in the target's network asks for `url`."""
        return self.native(["curl", "-sS", "-g", "-m", "5", "--interface", source, url])


def setns(fd: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


SIDESTAGE = [sys.executable, "-m", "sidestage"]
ENV = {"GREETING": "hello from staging", "DATABASE_HOST": "db.staging.internal", "EMPTY": ""}


def run(argv: Sequence[str], timeout: float, env: Mapping[str, str]) -> Result:
    """A command to its end; one that doesn't end is killed with all that it started in its process group."""
    process = subprocess.Popen(
        list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env), text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"{' '.join(argv)} did not end within {timeout} s\n{out}\n{err}") from None
    return Result(process.returncode, out, err)


def same(staging: Target, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 60) -> Result:
    """The same output and exit status plugged as inside the target; returns the plugged result."""
    native, plugged = staging.native(argv, timeout, env), staging.plugged(argv, timeout, env=env)
    assert native.code == 0, native
    assert native.out, "it shows nothing"
    assert plugged.out == native.out, plugged.err
    assert plugged.code == native.code
    return plugged


@contextlib.contextmanager
def target(folder: Path) -> Iterator[Target]:
    """A running target; `folder` is for the files that are mounted over its /etc."""
    env = {**os.environ, **ENV, "FOLDER": str(folder), "PYTHON": sys.executable, "INSIDE": str(INSIDE)}
    process = subprocess.Popen(
        ["unshare", "--net", "--uts", "--mount", "sh", "-euc", _SETUP], stdout=subprocess.PIPE, env=env
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Target(process.pid, process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_for(what: str, condition: object, seconds: float = 30) -> None:
    """Until `condition()` is true; fails the test after `seconds`."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)
