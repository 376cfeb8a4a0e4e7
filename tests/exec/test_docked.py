"""`sidestage container -- docker run`: what is docker's alone. What it shares with podman is in test_boxed.py."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidestage.trap import oci
from tests.exec.test_boxed import ENV, PYTHON, TERMINABLE, line, running
from tests.testkit import build
from tests.testkit.box import Boxed, docked
from tests.testkit.dockerd import Daemon, daemon
from tests.testkit.target import SIDESTAGE, Target, run

pytestmark = build.first_engines
WAITS = TERMINABLE + "print('up', flush=True)\nwhile True: signal.pause()"
# Three that docker refuses by default, and one that is told to us
TRIES = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(*call):
    return os.strerror(ctypes.get_errno()) if libc.syscall(*call) < 0 else "done"
print(tried(250, 0, -3, 0), "|", tried(165, b"none", b"/tmp", b"tmpfs", 0, 0))
try: socket.socket(40, 1); print("vsock")
except OSError as error: print(error.strerror)
try: os.mkdir("/tmp/made"); print("made")
except OSError as error: print(error.strerror)
"""
# Who may read our source and Python, wherever they lie
USER = ("setpriv", "--reuid=1234", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


@pytest.fixture(scope="module")
def docker() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


@pytest.fixture
def box(staging: Target, docker: Daemon) -> Boxed:
    return docked(staging, docker)


def seccomp_of(docker: Daemon, name: str) -> dict[str, Any]:
    """What the runtime was given."""
    found: dict[str, Any] = json.loads(next(docker.folder.glob(f"exec/**/{docker.id(name)}/config.json")).read_text())
    profile: dict[str, Any] = found["linux"]["seccomp"]
    return profile


def allowed(profile: dict[str, Any]) -> dict[str, set[str]]:
    """By call, for which arguments."""
    found: dict[str, set[str]] = {}
    for rule in profile["syscalls"]:
        if rule["action"] in (oci.ALLOW, oci.NOTIFY):
            for name in rule["names"]:
                found.setdefault(name, set()).add(json.dumps(rule.get("args") or []))
    return found


@pytest.mark.parametrize("options", [(), ("--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"), ("--cap-drop=all",)], ids=str)
def test_nothing_is_allowed_that_docker_itself_does_not_allow(box: Boxed, docker: Daemon, options: tuple[str, ...]) -> None:
    """The daemon's built-in profile, as it comes to the runtime, beside what comes there with ours."""
    named = dataclasses.replace(box, options=(*options, f"--name=plugged{os.getpid()}"))
    with running(named, [PYTHON, "-c", WAITS]) as process:
        assert line(process) == "up"
        plugged = seccomp_of(docker, f"plugged{os.getpid()}")
    name = docker.run(["run", "-d", "--rm", *options, *box.image, "/bin/sleep", "1000"]).strip()
    native = seccomp_of(docker, name)
    docker.run(["kill", name])
    assert plugged["defaultAction"] == native["defaultAction"] == oci.ERRNO
    assert plugged["architectures"] == native["architectures"][:1]
    ours, theirs = allowed(plugged), allowed(native)
    wrong = {call: args for call, args in ours.items() if call not in theirs}
    assert not wrong
    for call in ours.keys() - oci.TESTED - {"socket"}:  # docker's own rules for socket differ in form between its releases
        assert ours[call] == theirs[call], call
    assert theirs.keys() - ours.keys() <= {"file_getattr", "file_setattr"}


def test_what_is_refused_stays_refused(box: Boxed) -> None:
    done = box.plugged([PYTHON, "-c", TRIES], 60)
    assert done.out.splitlines() == [
        "Operation not permitted | Operation not permitted", "Operation not permitted", "made",
    ], done.err  # fmt: skip


@pytest.mark.parametrize("option", ["--security-opt=seccomp=unconfined", "--privileged"])
def test_without_a_profile(box: Boxed, option: str) -> None:
    """Then docker allows all, to whom the capabilities allow it."""
    done = dataclasses.replace(box, options=(option, "--cap-add=SYS_ADMIN")).plugged([PYTHON, "-c", TRIES], 60)
    assert done.out.splitlines()[0].endswith("| done"), done.out + done.err
    assert done.out.splitlines()[1] != "Operation not permitted"


def test_a_profile_of_the_users_own(box: Boxed, tmp_path: Path) -> None:
    """Its refusals hold, those of calls that would be told to us too."""
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],
        "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }))  # fmt: skip
    box = dataclasses.replace(box, options=(f"--security-opt=seccomp={mine}",))
    done = box.plugged([PYTHON, "-c", TRIES + "print(open('/srv/config.txt').read())"], 60)
    assert done.out.splitlines()[-3:] == ["No space left on device", "remote data", ""], done.out + done.err


def test_variables_of_several_lines_and_variables_that_are_taken_away(box: Boxed, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    env = {"override": {"CERTIFICATE": "one\ntwo\n", "LONG": "x" * 70000, "MINE": "target"}, "unset": ["COLOR"]}
    settings.write_text(json.dumps({"feature": {"env": env}}))
    changes = ["ENV COLOR=image", "ENV SHAPE=image", 'ENTRYPOINT ["/bin/busybox"]']
    files = {"bin/": b"", "bin/busybox": Path(build.need("busybox")).read_bytes()}
    script = 'echo "$CERTIFICATE|${COLOR-none}|$SHAPE|$MINE|${#LONG}"'
    with box.imported(files, changes) as name:
        mine = dataclasses.replace(box, options=("-e", "MINE=me"), image=(name,))
        done = mine.plugged(["sh", "-c", script], 60, ["-f", str(settings)])
    assert (done.code, done.out) == (0, "one\ntwo\n|none|image|me|70000\n"), done.err


def test_another_user_without_capabilities_on_a_root_that_is_read_only(box: Boxed) -> None:
    options = ("--user=1234:1234", "--cap-drop=all", "--read-only", "--security-opt=no-new-privileges", "--network=none")
    script = "id -u; cat /srv/config.txt; touch /var/x || echo no"
    done = dataclasses.replace(box, options=options).plugged(["/bin/sh", "-c", script], 60)
    assert (done.code, done.out) == (0, "1234\nremote data\nno\n"), done.err


def test_a_container_that_stays_is_not_started_again_without_us(box: Boxed, docker: Daemon) -> None:
    """Its profile names a socket that is gone."""
    name = f"stays{os.getpid()}"
    argv = box.command(["/bin/cat", "/srv/config.txt"])
    argv[argv.index("--rm")] = f"--name={name}"
    try:
        done = run(argv, 60, ENV)
        assert (done.code, done.out) == (0, "remote data\n"), done.err
        again = subprocess.run([*docker.docker, "start", "-a", name], capture_output=True, text=True, check=False)
        assert again.returncode != 0
        assert "seccomp" in again.stderr
    finally:
        docker.run(["rm", "-f", name])


def test_the_engines_own_failures_are_its_own(box: Boxed) -> None:
    done = dataclasses.replace(box, image=("--pull=never", "localhost/no-such-image")).plugged(["x"], 60)
    assert done.code == 125
    assert "no-such-image" in done.err


@pytest.mark.parametrize(
    "before, env, cause, cure",
    [
        ((), {"DOCKER_HOST": "tcp://127.0.0.1:9"}, "tcp://127.0.0.1:9: the container would run on", "run sidestage there"),
        ((), {"DOCKER_HOST": "ssh://u@nowhere.invalid"}, "ssh://u@nowhere.invalid: the container would", "run sidestage there"),
        ((), {"DOCKER_HOST": "unix:///nowhere/sock"}, "nowhere/sock", "systemctl start docker"),
        ((*USER, "--clear-groups"), {}, "permission denied", "sudo sidestage container"),
        ((*USER, "--groups=4321"), {}, "only root may look into them", "sudo sidestage container"),
        (("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"), {}, "on another machine", "run sidestage there"),
    ],
    ids=["tcp", "ssh", "down", "others", "group", "elsewhere"],
)
def test_what_is_refused(box: Boxed, docker: Daemon, before: tuple[str, ...], env: dict[str, str], cause: str, cure: str) -> None:
    """By a cause and a cure, and nothing is started."""
    client = docker.admit(4321)
    host = {"DOCKER_HOST": docker.docker[-1], **env}
    argv = [*before, *SIDESTAGE, "container", "-t", f"process/{box.pid}", "--", client, "run", "--rm", docker.image, "true"]
    done = run(argv, 60, {**ENV, **host, "HOME": "/nonexistent"})
    assert done.code in (1, 2)
    first, second = done.err.strip().splitlines()[-2:]
    assert cause in first
    assert cure in second
    assert not box.containers()
