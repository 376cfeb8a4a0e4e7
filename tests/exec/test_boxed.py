"""`sidestage container`: what podman starts is plugged in, by either runtime, and nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.exec.test_steal import HTTP
from tests.testkit import build
from tests.testkit.box import RUNTIMES, Boxed, boxed, image
from tests.testkit.mirror import mirrored
from tests.testkit.target import CLIENT, DEPENDENCY, ROOT, SERVICE, Target, wait_for

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
PYTHON = os.path.realpath(sys.executable)
TERMINABLE = "import os, signal; signal.signal(15, lambda *_: os._exit(0))\n"  # the first process of a container ignores it else
EVERYTHING = f"""
import json, os, socket
tcp = socket.create_connection(("db.staging.internal", 7000), 10)
peer = tcp.getpeername()[0]; tcp.sendall(b"over tcp"); tcp.shutdown(1)
udp = socket.socket(type=socket.SOCK_DGRAM); udp.settimeout(10); udp.sendto(b"over udp", ("{DEPENDENCY}", 7000))
print(json.dumps([
    os.environ["GREETING"], os.environ["DATABASE_HOST"], open("/srv/config.txt").read(), sorted(os.listdir("/srv/folder")),
    open("/etc/hosts").read().split()[-1], socket.gethostname(), tcp.recv(100).decode(), peer,
    udp.recvfrom(100)[0].decode(),
]))
"""


@pytest.fixture(params=RUNTIMES)
def box(staging: Target, request: pytest.FixtureRequest) -> Boxed:
    return boxed(staging, request.param)


@contextlib.contextmanager
def running(box: Boxed, argv: Sequence[str], flags: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Ends it at last, and looks whether podman has forgotten it."""
    before = box.containers()
    process = subprocess.Popen(
        box.command(argv, flags), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV,
        start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()
    wait_for("the container's end", lambda: box.containers() <= before)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_environment_files_names_and_connections(box: Boxed) -> None:
    done = box.plugged([PYTHON, "-c", EVERYTHING], 60)
    assert done.code == 0, done.err
    assert json.loads(done.out) == [
        "hello from staging", "db.staging.internal", "remote data\n", ["a", "b", "c"], "orders-7f9c", "orders-7f9c", "over tcp",
        DEPENDENCY, "echo over udp",
    ]  # fmt: skip


def test_the_users_own_variables_the_image_and_the_exit_status(box: Boxed, tmp_path: Path) -> None:
    """The target's variables rule over the image's, the user's over the target's; the image's files are here, volumes too."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("mounted\n")
    (tmp_path / "env").write_text("# mine\nDATABASE_HOST=from a file\n")
    files = {"bin/": b"", "bin/busybox": Path(build.need("busybox")).read_bytes(), "work/": b"", "work/config": b"the image's\n"}
    changes = [f"ENV {name}=image" for name in ("GREETING", "COLOR", "EMPTY")]
    changes += ["WORKDIR /work", 'ENTRYPOINT ["/bin/busybox", "sh", "-c"]']
    script = 'echo "$GREETING|$COLOR|$EMPTY|$DATABASE_HOST|$MINE"; for f in config /volume/file; do busybox cat $f; done; exit 7'
    with image(files, changes) as name:
        options = ("-e", "MINE=me", f"--env-file={tmp_path / 'env'}", "-v", f"{volume}:/volume")
        mine = Boxed(box.pid, box.process, box.runtime, box.before, options, (name,))
        done = mine.plugged([script], 60)
        assert done.out.splitlines() == ["hello from staging|image||from a file|me", "the image's", "mounted"], done.err
        assert done.code == 7


def test_a_static_program(box: Boxed, tmp_path: Path) -> None:
    server = build.go("server.go", cgo=False)
    mirrored(box, ["/bin/sh", "-c", f"trap 'exit 0' TERM; {server} tcp4 :8080 & wait"], tmp_path / "out")


def test_stolen(box: Boxed) -> None:
    with running(box, [PYTHON, "-c", TERMINABLE + HTTP], ["--steal"]):
        wait_for("the steal", lambda: box.client(f"http://{SERVICE}:8080/x").out.startswith("local"))
        assert box.client(f"http://{SERVICE}:8080/y").out == f"local /y ::ffff:{CLIENT} ::ffff:{CLIENT}\n"
    wait_for("its end", lambda: box.client(f"http://{SERVICE}:8080/z").out == "staging /z\n")


def test_a_signal_is_the_programs(box: Boxed) -> None:
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(9)); print('up', flush=True); signal.pause()"
    with running(box, [PYTHON, "-c", code]) as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 9


def test_the_programs_own_child_ends_with_the_container(box: Boxed) -> None:
    done = box.plugged(["/bin/sh", "-c", "sleep 1000 & exec cat /srv/config.txt"], 60)
    assert (done.code, done.out) == (0, "remote data\n"), done.err


@pytest.mark.parametrize("victim", ["trap", "session"])
def test_after_a_death_nothing_is_left(box: Boxed, victim: str) -> None:
    """The program is ended, and podman forgets the container, as it would have."""
    with running(box, [PYTHON, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"]) as process:
        assert line(process)
        inside = [pid for pid in _with(b"time.sleep(1000)") if not {b"conmon", b"sidestage", b"podman"} & _words(pid)]
        trap = next(pid for pid in _with(b"sidestage\0container") if os.getpgid(pid) == process.pid)
        os.kill(trap if victim == "trap" else _session_of(trap), signal.SIGKILL)
        wait_for("the program's end", lambda: not any(os.path.exists(f"/proc/{one}") for one in inside))
        if victim == "session":
            assert process.wait(30) == 1
            assert process.stderr is not None and "session process has ended" in process.stderr.read()


def _session_of(trap: int) -> int:
    with open(f"/proc/{trap}/task/{trap}/children") as children:
        return next(int(child) for child in children.read().split() if os.getsid(int(child)) == int(child))


def _with(part: bytes) -> list[int]:
    return [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and part in _command(int(pid))]


def _words(pid: int) -> set[bytes]:
    return {word.rpartition(b"/")[2] for word in _command(pid).split(b"\0")}


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
        return command.read()
    return b""
