"""`sidestage container`: what podman starts by either runtime, or docker, is plugged in, and nothing of it stays."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.exec.test_steal import HTTP
from tests.testkit import build
from tests.testkit.box import RUNTIMES, Boxed, boxed, docked
from tests.testkit.dockerd import Daemon, daemon
from tests.testkit.mirror import mirrored
from tests.testkit.target import CLIENT, DEPENDENCY, ROOT, SERVICE, Target, run, wait_for

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
ENGINES = {b"podman", b"docker"}
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


ASYNC_AND_UNIX = f"""
import asyncio, socket
async def main():
    r, w = await asyncio.open_connection("{DEPENDENCY}", 7000)
    w.write(b"nonblocking"); w.write_eof(); print((await r.read()).decode(), flush=True)
asyncio.run(main())
s = socket.socket(socket.AF_UNIX); s.connect("/srv/echo.sock"); s.sendall(b"by a path"); s.shutdown(1); print(s.recv(99).decode())
"""


@pytest.fixture(scope="module")
def docker() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


@pytest.fixture(params=[*RUNTIMES, pytest.param("docker", marks=build.first_engines)])
def box(staging: Target, request: pytest.FixtureRequest) -> Boxed:
    if request.param == "docker":
        return docked(staging, request.getfixturevalue("docker"))
    return boxed(staging, request.param)


@contextlib.contextmanager
def running(box: Boxed, argv: Sequence[str], flags: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Ends it at last, and looks whether the engine has forgotten it."""
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
    wait_for("the end of its folder", lambda: not list(Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")).glob("sidestage-????????")))


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
    with box.imported(files, changes) as name:
        options = ("-e", "MINE=me", f"--env-file={tmp_path / 'env'}", "-v", f"{volume}:/volume")
        mine = dataclasses.replace(box, options=options, image=(name,))
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


def test_a_network_of_its_own(box: Boxed, tmp_path: Path) -> None:
    """With nothing in it but a loopback; all connections are made there, and end up in the target's network."""
    alone = dataclasses.replace(box, options=("--network=none",))
    done = alone.plugged([PYTHON, "-c", EVERYTHING], 60)
    assert done.code == 0, done.err
    assert json.loads(done.out)[-3:] == ["over tcp", DEPENDENCY, "echo over udp"]
    settings = tmp_path / "unix.json"
    settings.write_text(json.dumps({"feature": {"network": {"outgoing": {"unix_streams": ["^/srv/echo"]}}}}))
    done = alone.plugged([PYTHON, "-c", ASYNC_AND_UNIX], 60, ["-f", str(settings)])
    assert (done.code, done.out) == (0, "nonblocking\nby a path\n"), done.err
    server = build.go("server.go", cgo=False)
    mirrored(alone, ["/bin/sh", "-c", f"trap 'exit 0' TERM; {server} tcp4 :8080 & wait"], tmp_path / "out")
    with running(alone, [PYTHON, "-c", TERMINABLE + HTTP], ["--steal"]):
        wait_for("the steal", lambda: box.client(f"http://{SERVICE}:8080/x").out.startswith("local"))
        assert box.client(f"http://{SERVICE}:8080/y").out == f"local /y ::ffff:{CLIENT} ::ffff:{CLIENT}\n"


def test_exec_of_the_engine_comes_into_it_plugged_too(box: Boxed) -> None:
    """Each such process has a filter of its own, whose listener is handed over anew."""
    name = f"sidestage-test-{os.urandom(4).hex()}"
    named = dataclasses.replace(box, options=("--name", name))
    with running(named, [PYTHON, "-c", TERMINABLE + "print('up', flush=True)\nwhile True: signal.pause()"]) as process:
        assert line(process) == "up"
        for _ in range(2):
            done = run([*box.before, *box.engine, "exec", name, "/bin/cat", "/srv/config.txt"], 60, ENV)
            assert (done.code, done.out) == (0, "remote data\n"), done.err
        long = subprocess.Popen([*box.before, *box.engine, "exec", name, PYTHON, "-c", "import time; time.sleep(1000)"], env=ENV)
        wait_for("its start", lambda: any(not ENGINES & _words(pid) for pid in _with(b"import time; time.sleep(1000)")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert long.wait(30) != 0


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_control_c(box: Boxed, terminal: bool) -> None:
    """It is the program's, as in any container: by the engine's proxy of signals, or by the container's own terminal."""
    code = "import sys, time\ntry: print('it runs', flush=True); time.sleep(1000)\n"
    code += "except KeyboardInterrupt: print('interrupted'); sys.exit(5)"
    tty = dataclasses.replace(box, options=("-it",) if terminal else ())
    pid, master = pty.fork()
    if not pid:
        os.execvpe(tty.command(["x"])[0], tty.command([PYTHON, "-c", code]), ENV)
    shown = b""
    try:
        while b"it runs" not in shown:
            shown += os.read(master, 1000)
        os.write(master, b"\3")
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(master, 1000):
                shown += data
        _, how = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(master)
    assert os.waitstatus_to_exitcode(how) == 5, shown
    assert b"interrupted" in shown


@pytest.mark.parametrize("victim", ["trap", "session", "both"])
def test_after_a_death_nothing_is_left(box: Boxed, victim: str) -> None:
    """The program is ended, and the engine forgets the container, as it would have."""
    with running(box, [PYTHON, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"]) as process:
        assert line(process)
        inside = [pid for pid in _with(b"time.sleep(1000)") if not {b"conmon", b"sidestage", *ENGINES} & _words(pid)]
        trap = next(pid for pid in _with(b"sidestage\0container") if os.getpgid(pid) == process.pid)
        session = _session_of(trap)
        for pid in {"trap": [trap], "session": [session], "both": [trap, session]}[victim]:
            os.kill(pid, signal.SIGKILL)
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
