"""What belongs to the user: exit status, signals, standard streams, terminal, children. As if sidestage weren't there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, Target, wait_for

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PS1": "prompt> ", "TERM": "dumb", "LC_ALL": "C"}


def start(staging: Target, argv: list[str], stdin: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        staging.command(argv), env=ENV, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 255])
def test_exit_status(staging: Target, code: int) -> None:
    assert staging.plugged(["sh", "-c", f"exit {code}"]).code == code


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "ABRT", "INT", "PIPE", "USR1"])
def test_killed(staging: Target, name: str) -> None:
    assert staging.plugged(["sh", "-c", f"kill -{name} $$"]).code == 128 + signal.Signals[f"SIG{name}"]


def test_standard_streams(staging: Target) -> None:
    done = subprocess.run(staging.command(["cat"]), input=b"piped\n" * 50_000, capture_output=True, env=ENV, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"piped\n" * 50_000)
    done = subprocess.run(staging.command(["wc", "-c"]), stdin=subprocess.DEVNULL, capture_output=True, env=ENV, timeout=30)
    assert done.stdout == b"0\n"
    with start(staging, ["sh", "-c", "echo out; echo err >&2; exec cat"], stdin=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == b"out\n"
        process.stdin.write(b"later\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"later\n"
        _, err = process.communicate(timeout=20)
    assert err.endswith(b"err\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_closed_streams(staging: Target, tmp_path: Path, closed: str) -> None:
    """The program finds closed what was closed, and everything else works."""
    code = "ls -l /proc/self/fd | awk '{print $9}' | xargs >$0.fds; cat /srv/config.txt >$0; exit 7"
    out = tmp_path / "out"
    native = staging.native(["sh", "-c", f'exec "$@" {closed}', "-", "sh", "-c", code, str(out)])
    expected = (native.code, out.read_text(), Path(f"{out}.fds").read_text())
    out.unlink()
    command = ["sh", "-c", f'exec "$@" {closed}', "-", *staging.command(["sh", "-c", code, str(out)])]
    done = subprocess.run(command, capture_output=True, env=ENV, timeout=30, text=True)
    assert (done.returncode, out.read_text(), Path(f"{out}.fds").read_text()) == expected
    assert done.stdout == ""


def test_a_reader_that_goes_away(staging: Target) -> None:
    script = f"set -o pipefail; {' '.join(staging.command(['yes']))} 2>/dev/null | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=ENV, timeout=30, text=True)
    assert done.stdout == f"y\n{128 + signal.SIGPIPE}\n"


TRAPS = "for s in TERM INT HUP USR1 USR2 QUIT; do trap \"echo $s; exit 9\" $s; done; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT"])
def test_a_signal_to_sidestage_is_the_programs(staging: Target, name: str) -> None:
    with start(staging, ["bash", "-c", TRAPS]) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        out, _ = process.communicate(timeout=20)
    assert (out.decode().split(), process.returncode) == ([name], 9)


def test_what_is_ignored_stays_ignored(staging: Target) -> None:
    """nohup(1), and the mask that the caller set."""
    show = "grep -E 'Sig(Blk|Ign)' /proc/self/status"
    code = f"import os, signal; signal.pthread_sigmask(0, [{int(signal.SIGUSR2)}]); os.execvp('sh', ['sh', '-c', '''%s'''])"
    native = staging.native(["sh", "-c", f"trap '' HUP TERM; exec python3 -c \"{code % show}\""])
    command = " ".join(staging.command(["sh", "-c", f"'\"{show}\"'"]))
    assert native.out.count("\n") == 2
    wrapped = f"trap '' HUP TERM; exec python3 -c \"{code}\"".replace("%s", command.replace("'\"", "\\\"").replace("\"'", "\\\""))
    done = subprocess.run(["sh", "-c", wrapped], capture_output=True, env=ENV, timeout=30, text=True)
    ignored = [int(line.split()[1], 16) for line in done.stdout.splitlines()]
    expected = [int(line.split()[1], 16) for line in native.out.splitlines()]
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert [value & ~python_ignores for value in ignored] == [value & ~python_ignores for value in expected]


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_children_in_the_background_end_too(staging: Target) -> None:
    done = staging.plugged(["bash", "-c", "sleep 300 & sleep 301 >/dev/null & setsid sleep 302 & jobs -p; disown -a"])
    assert done.code == 0
    assert "3 that the program left running were ended" in done.err
    assert len(done.out.split()) == 3
    for pid in done.out.split():
        assert not alive(pid)


def test_a_stopped_child_without_a_terminal(staging: Target) -> None:
    """Nobody would continue sidestage, so it must not stop as well."""
    script = "(sleep 0.5; kill -CONT $$) & kill -STOP $$; cat /srv/config.txt"
    assert staging.plugged(["bash", "-c", script]).out == "remote data\n"


class Terminal:
    """An interactive bash in a pseudo terminal."""

    def __init__(self) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], ENV)
        self.seen = ""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.wait("prompt> ")

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode())

    def wait(self, pattern: str, seconds: float = 20) -> str:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < deadline, f"{pattern!r} did not come: {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        return self.seen

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.end()


def typed(staging: Target, program: str) -> str:
    return " ".join(staging.command([program])) + "\n"


def test_ctrl_c_is_heard_once(staging: Target, terminal: Terminal, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import signal, time, sys\ngot = []\nsignal.signal(signal.SIGINT, lambda *a: got.append(1))\n"
        "print('rea' 'dy', flush=True)\n"
        "while not got: time.sleep(0.05)\ntime.sleep(0.5)\nprint('interrupts:', len(got), sys.stdin.isatty()); sys.exit(5)\n"
    )
    terminal.type(typed(staging, f"{sys.executable} {script}"))
    terminal.wait("ready")
    terminal.type("\x03")
    terminal.wait("interrupts: 1 True\r\n.*prompt> ")
    terminal.type("echo status=$?\n")
    terminal.wait("status=5\r\n")


def test_ctrl_c_ends_a_program_without_handler(staging: Target, terminal: Terminal) -> None:
    terminal.type(typed(staging, "sleep 100"))
    terminal.wait("runs as")
    time.sleep(0.3)
    terminal.type("\x03")
    terminal.wait("prompt> ")
    terminal.type("echo status=$?\n")
    terminal.wait("status=130\r\n")


def test_ctrl_z_and_fg(staging: Target, terminal: Terminal) -> None:
    terminal.type(typed(staging, "bash -c 'echo rea''dy; read line; echo got $line; cat /srv/config.txt'"))
    terminal.wait("ready\r\n")
    terminal.type("\x1a")
    terminal.wait(r"Stopped.*prompt> ")
    terminal.type("echo at the sh''ell\n")
    terminal.wait("at the shell\r\n")
    terminal.type("fg\n")
    time.sleep(0.3)
    terminal.type("some words\n")
    terminal.wait("got some words\r\nremote data\r\n.*prompt> ")


def test_a_program_with_its_own_idea_of_ctrl_z(staging: Target, terminal: Terminal, tmp_path: Path) -> None:
    """As editors do: tidy up first, with system calls that must be answered, then stop."""
    script = tmp_path / "editor.py"
    script.write_text(
        "import os, signal\n"
        "def stop(*a): print('tidy', open('/srv/config.txt').read().strip(), flush=True); os.kill(os.getpid(), signal.SIGSTOP)\n"
        "signal.signal(signal.SIGTSTP, stop); print('rea' 'dy', flush=True); print('read', input(), flush=True)\n"
    )
    terminal.type(typed(staging, f"{sys.executable} {script}"))
    terminal.wait("ready\r\n")
    terminal.type("\x1a")
    terminal.wait("tidy remote data\r\n")
    terminal.wait(r"Stopped.*prompt> ")
    terminal.type("fg\n")
    time.sleep(0.3)
    terminal.type("words\n")
    terminal.wait("read words\r\n")


def test_window_size(staging: Target, terminal: Terminal) -> None:
    code = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done"
    terminal.type(typed(staging, f'bash -c "{code}"'))
    terminal.wait("33 99\r\n")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
    terminal.wait("44 111\r\n")


def test_progress_on_a_terminal(staging: Target, terminal: Terminal) -> None:
    terminal.type(typed(staging, "true"))
    seen = terminal.wait("runs as.*prompt> ")
    assert "orders-7f9c" in seen


def test_hang_up(staging: Target, tmp_path: Path) -> None:
    """The terminal's window is closed: nothing is left."""
    terminal = Terminal()
    marker = tmp_path / "pid"
    terminal.type(typed(staging, f"sh -c 'echo $$ >{marker}; exec sleep 300'"))
    wait_for("the program", lambda: marker.exists() and marker.read_text().strip())
    pid = marker.read_text().strip()
    terminal.end()
    wait_for("the program's end", lambda: not alive(pid))
