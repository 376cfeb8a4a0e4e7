"""A laptop of its own for fault tests: network, mounts, /dev/shm and temporary folder in namespaces, so that whatever a run
leaves behind can be told from what other programs of this machine do.

Every process of a run carries TOKEN in its environment, which all but a program that clears it pass on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.testkit.target import ROOT, SIDESTAGE, Target

TOKEN = "SIDESTAGE_TEST_TOKEN"
_SETUP = """\
mount --make-rprivate /
ip link set lo up
mount -t tmpfs shm /dev/shm
mkdir -p "$FOLDER/tmp" "$FOLDER/run"
echo ready; exec sleep infinity
"""
_PLACES = {"TMPDIR": "tmp", "XDG_RUNTIME_DIR": "run"}
_TCP_OVER = {"06"}  # TIME_WAIT belongs to nobody
_TABLES = ("tcp", "tcp6", "udp", "udp6", "unix", "packet", "raw")


@dataclass(slots=True)
class Run:
    """One `sidestage exec` under way; it is trap's own process."""

    process: subprocess.Popen[bytes]
    token: str
    out: Path
    err: Path

    def stdout(self) -> str:
        return self.out.read_text(errors="replace")

    def stderr(self) -> str:
        return self.err.read_text(errors="replace")

    def processes(self) -> list[int]:
        return marked(self.token)

    def session(self) -> int:
        """The pid of the session process: trap's child in a session of its own, the agent's parent."""
        return parent(self.agent())

    def agent(self) -> int:
        (found,) = [pid for pid in self.processes() if b"sidestage.agent.main" in cmdline(pid)]
        return found

    def end(self, seconds: float = 20) -> int:
        """Its exit status, as a shell tells it."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {seconds} s; it said: {self.stderr()}\n{describe(self.processes())}") from None
        return code if code >= 0 else 128 - code


@dataclass(slots=True)
class Laptop:
    pid: int
    folder: Path
    runs: list[Run] = field(default_factory=list)

    def start(
        self,
        staging: Target | None,
        argv: Sequence[str],
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        limit: int = 0,
    ) -> Run:
        """Start `sidestage exec` here, plugged into `staging`; with no more than `limit` descriptors a process, if given."""
        token = f"{os.getpid()}-{len(self.runs)}-{time.monotonic_ns()}"
        where = f"process/{staging.pid}" if staging else "targetless"
        out, err = self.folder / f"out-{len(self.runs)}", self.folder / f"err-{len(self.runs)}"
        enter = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--ipc", "--"]
        enter += ["prlimit", f"--nofile={limit}:{limit}"] if limit else []
        mine = {TOKEN: token, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        mine |= {name: str(self.folder / place) for name, place in _PLACES.items()}
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            process = subprocess.Popen(
                [*enter, *SIDESTAGE, "exec", "-t", where, *flags, "--", *argv], stdin=subprocess.DEVNULL, stdout=stdout,
                stderr=stderr, env={**os.environ, **mine, **(env or {})}, start_new_session=True,
            )  # fmt: skip
        run = Run(process, token, out, err)
        self.runs.append(run)
        return run

    def kept(self) -> Counter[str]:
        """What there is that a run could leave behind."""
        return Counter(_sockets(self.pid)) + Counter(_mounts(self.pid)) + Counter(self._files())

    def _files(self) -> Iterator[str]:
        for top in (self.folder / "tmp", self.folder / "run", Path(f"/proc/{self.pid}/root/dev/shm")):
            for folder, folders, names in os.walk(top):
                yield from (f"file {folder}/{name}" for name in (*folders, *names))


class Leaks:
    """What laptop and target held when this was made; `check` demands that they come back to it."""

    def __init__(self, laptop: Laptop, target: Target) -> None:
        self._laptop, self._target = laptop, target
        self._before = self._now()

    def check(self, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while left := self._left():
            assert time.monotonic() < deadline, f"left behind after {seconds} s:\n" + "\n".join(left)
            time.sleep(0.05)

    def _left(self) -> list[str]:
        left = [line for run in self._laptop.runs for line in describe(run.processes())]
        return left + [f"{name} ({count})" for name, count in sorted((self._now() - self._before).items())]

    def _now(self) -> Counter[str]:
        target = Counter(f"target's {name}" for name in (*_sockets(self._target.pid), *_mounts(self._target.pid)))
        return self._laptop.kept() + target


def marked(token: str) -> list[int]:
    """Processes that carry the token and have not ended."""
    want, found = f"{TOKEN}={token}".encode(), []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if want in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found


def cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def memory(pid: int) -> int:
    """Resident bytes that are the process's own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def describe(pids: Sequence[int]) -> list[str]:
    return [f"process {pid}: {cmdline(pid)[-120:].decode(errors='replace')!r}" for pid in pids]


def _sockets(pid: int) -> Iterator[str]:
    """Sockets of the network namespace of `pid`, without what tells one of a kind from another."""
    for table in _TABLES:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            for line in lines:
                fields = line.split()
                if table == "unix":
                    yield "unix socket " + (fields[7] if len(fields) > 7 else "")
                elif table == "packet" or fields[3] not in _TCP_OVER:
                    yield f"{table} socket" + (f" on {fields[1]}" if table.startswith("tcp") and fields[3] == "0A" else "")


def _mounts(pid: int) -> Iterator[str]:
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        yield "mount " + line.split()[4]


@contextlib.contextmanager
def laptop(folder: Path) -> Iterator[Laptop]:
    env = {**os.environ, "FOLDER": str(folder)}
    holder = subprocess.Popen(["unshare", "--net", "--mount", "--ipc", "sh", "-euc", _SETUP], stdout=subprocess.PIPE, env=env)
    assert holder.stdout is not None
    made = Laptop(holder.pid, folder)
    try:
        assert holder.stdout.readline() == b"ready\n"
        yield made
    finally:
        for run in made.runs:
            for pid in run.processes():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            run.process.wait()
        holder.kill()
        holder.wait()
        holder.stdout.close()


class Canary:
    """A client of the target's service, asking all the time; `check` says what it saw. It is native and knows nothing of us."""

    CODE = """
import http.client, json, signal, sys, time
stop = []; signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
asked, wrong, worst = 0, [], 0.0
print("ready", flush=True)
while not stop:
    start = time.monotonic()
    try:
        c = http.client.HTTPConnection(sys.argv[1], 8080, timeout=10); c.request("GET", f"/canary-{asked}")
        body = c.getresponse().read(); c.close()
        if body != f"staging /canary-{asked}\\n".encode(): wrong.append(repr(body))
    except Exception as error: wrong.append(repr(error))
    asked += 1; worst = max(worst, time.monotonic() - start); time.sleep(0.02)
print(json.dumps([asked, wrong[:5], worst]))
"""

    def __init__(self, target: Target, service: str) -> None:
        enter = ["nsenter", "-t", str(target.pid), "--net", "--mount", "--uts", "--"]
        self._process = subprocess.Popen([*enter, sys.executable, "-c", self.CODE, service], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def check(self) -> None:
        """Every request had the target's own answer."""
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate(timeout=30)
        asked, wrong, worst = json.loads(out)
        assert asked, "the canary never asked"
        assert not wrong, f"{len(wrong)} of {asked} requests went wrong: {wrong}"
        assert worst < 5, f"a request took {worst:.1f} s"

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

