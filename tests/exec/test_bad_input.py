"""What can't work: one message with its cure, non-zero, nothing started and nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testkit.target import ROOT, Target, run

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C"}
SIDESTAGE = [sys.executable, "-m", "sidestage", "exec"]
MARK = "echo it ran"


def refused(argv: list[str], code: int, *said: str) -> None:
    before = sessions()
    done = run(argv, 40, ENV)
    assert (done.code, done.out) == (code, ""), done
    lines = done.err.strip().splitlines()
    assert lines[0].startswith("sidestage: "), done.err
    assert len(lines) <= 3, done.err
    assert lines[-1].startswith("  "), "no cure"
    assert "Traceback" not in done.err
    for text in said:
        assert text in done.err
    assert sessions() <= before


def sessions() -> set[str]:
    """Processes of this user's runs that are ours: the session process and the agent have our source in their command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"sidestage\0exec" in line and parent == "1":
                found.add(entry.name)
    return found


def test_a_dead_process(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    refused([*SIDESTAGE, "-t", f"process/{ended.pid}", "--", "sh", "-c", MARK], 1, f"no process {ended.pid}", "pgrep")


def test_unknown_targets() -> None:
    refused([*SIDESTAGE, "-t", "proces/1", "--", "sh", "-c", MARK], 1, "did you mean 'process'")
    refused([*SIDESTAGE, "-t", "process/orders", "--", "sh", "-c", MARK], 1, "'orders' is not a process id")


def test_no_permission(staging: Target) -> None:
    """An ordinary user, and a process of root's."""
    here = f"export PYTHONPATH={ROOT / 'src'}; umask 0; cd /; HOME=/tmp; export HOME; "
    command = " ".join(["/usr/bin/python3", "-m", "sidestage", "exec", "-t", f"process/{staging.pid}", "--", "echo", "it-ran"])
    reach = "chmod a+x /root 2>/dev/null; " if str(ROOT).startswith("/root") else ""
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    refused(["sh", "-c", f'{reach}exec "$@"', "-", *drop, "sh", "-c", here + command], 1, "owner of process", "root")


def test_a_misspelt_key_names_the_nearest(staging: Target, tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"feature": {"netwrok": {}}}))
    refused([*staging.command(["sh", "-c", MARK], ["-f", str(config)])], 1, "netwrok", "network")


def test_commands_that_can_not_run(staging: Target, tmp_path: Path) -> None:
    refused(staging.command(["no-such-command"]), 127, "command not found")
    script = tmp_path / "script"
    script.write_text("echo it ran\n")
    refused(staging.command([str(script)]), 126, "not executable", "chmod +x")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    refused(staging.command([str(script)]), 127, "no such file")
    script.write_bytes(b"\x7fELF broken")
    refused(staging.command([str(script)]), 126, "exec format error")
    refused(staging.command([str(tmp_path)]), 127, str(tmp_path))


def test_nested(staging: Target) -> None:
    inner = " ".join(staging.command(["echo", "it-ran"]))
    done = staging.plugged(["sh", "-c", f"{inner}; echo status $?"])
    assert done.out == "status 1\n"
    assert "already runs inside `sidestage exec`" in done.err


def test_nested_without_its_mark(staging: Target) -> None:
    """The kernel allows one listener a process, so it is found out in any case."""
    inner = " ".join(staging.command(["echo", "it-ran"]))
    done = staging.plugged(["sh", "-c", f"env -i PATH=$PATH PYTHONPATH={ROOT / 'src'} {inner}; echo status $?"], timeout=50)
    assert done.out == "status 1\n"
    assert "seccomp listener" in done.err


MISSING = """
import ctypes, sys
from sidestage.trap import kernel
real = kernel._libc.syscall
def syscall(number, *args):
    if number == kernel._NR_SECCOMP and args[0] == {operation}:
        ctypes.set_errno({errno}); return -1
    return real(number, *args)
kernel._libc.syscall = syscall
sys.argv = ["sidestage", *sys.argv[1:]]
from sidestage.cli.main import main
main()
"""


@pytest.mark.parametrize("operation, errno, said", [(3, 22, "no seccomp user notification"), (1, 22, "doctor")])
def test_a_kernel_without_it(staging: Target, operation: int, errno: int, said: str) -> None:
    code = MISSING.format(operation=operation, errno=errno)
    argv = [sys.executable, "-c", code, "exec", "-t", f"process/{staging.pid}", "--", "sh", "-c", MARK]
    done = run(argv, 40, ENV)
    assert done.code not in (0, 70), done.err
    assert done.out == ""
    assert said in done.err
    assert "\n  " in done.err


def test_output_for_tools(staging: Target) -> None:
    """One JSON object a line on standard error; standard output is the program's."""
    done = staging.plugged(["sh", "-c", "echo out; curl -s 10.77.0.20:7999; exit 3"], flags=["--output", "json"])
    assert (done.code, done.out) == (3, "out\n")
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert [line["type"] for line in lines if line["type"] in ("task", "done", "ready")] == ["task", "done", "ready"]


def test_plain_output(staging: Target) -> None:
    done = staging.plugged(["true"], flags=["--output", "plain"])
    assert len(done.err.splitlines()) == 1
    assert "runs as orders-7f9c" in done.err
    assert "\x1b" not in done.err
