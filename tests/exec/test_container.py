"""A container of a real podman as the target: its root file system is a folder, so no image must be pulled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit.box import RUNTIMES, boxed
from tests.testkit.target import ROOT, SIDESTAGE, Target, run

# What lets podman run as root inside a machine that is itself confined: no cgroup manager, no higher limits than ours
PODMAN = ["podman", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=10000:10000"]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for command in ("podman", "runc", "busybox"):
        if not shutil.which(command):
            pytest.skip(f"{command} is not installed")
    root = tmp_path_factory.mktemp("rootfs")
    for folder in ("bin", "etc", "srv", "proc", "dev", "sys", "tmp"):
        (root / folder).mkdir()
    shutil.copy(shutil.which("busybox") or "", root / "bin")
    (root / "bin" / "sleep").symlink_to("busybox")
    (root / "srv" / "file").write_text("in the container\n")
    name = f"sidestage-test-{uuid.uuid4().hex[:8]}"
    started = subprocess.run(
        [*PODMAN, "run", "-d", "--name", name, *LIMITS, "--network=none", "--hostname=boxed", "--env=COLOR=blue",
         "--rootfs", str(root), "/bin/sleep", "300"], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    try:
        yield name
    finally:
        subprocess.run([*PODMAN, "rm", "-f", "-t", "0", name], capture_output=True, check=True, timeout=60)


def plugged(name: str, argv: list[str]) -> tuple[int, str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = run([*SIDESTAGE, "exec", "-t", f"container/{name}", "--", *argv], 60, env)
    return done.code, done.out, done.err


def test_container(container: str) -> None:
    code = "import json, os, socket; print(json.dumps([socket.gethostname(), os.environ['COLOR'], open('/srv/file').read()]))"
    status, out, err = plugged(container, [sys.executable, "-c", code])
    assert status == 0, err
    assert json.loads(out) == ["boxed", "blue", "in the container\n"]


def test_no_such_container(container: str) -> None:
    del container
    status, out, err = plugged("nobody-has-this", ["true"])
    assert (status, out) == (1, "")
    assert "no container 'nobody-has-this'" in err
    assert len(err.splitlines()) == 2


def test_a_stopped_container(container: str) -> None:
    stopped = f"{container}-stopped"
    subprocess.run([*PODMAN, "create", "--name", stopped, *LIMITS, "--rootfs", "/", "true"], check=True, capture_output=True)
    try:
        status, _, err = plugged(stopped, ["true"])
        assert status == 1
        assert f"start it: podman start {stopped}" in err
    finally:
        subprocess.run([*PODMAN, "rm", "-f", stopped], check=True, capture_output=True)


INSIDE = """
grep -q '^Seccomp:.2' /proc/self/status && echo confined
$PYTHON -m sidestage exec -t process/1 -- sh -c 'echo $COLOR; uname -n'
$PYTHON -m sidestage doctor | grep -E '^[a-z]+ +fuse|^sidestage exec'
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("flags, fuse", [([], "lack   fuse"), (["--device", "/dev/fuse"], "ok     fuse")], ids=["plain", "fuse"])
def test_exec_inside_a_container(staging: Target, runtime: str, flags: list[str], fuse: str) -> None:
    """With the profile that podman gives to every container; without /dev/fuse it works too, and doctor says what to add."""
    box = boxed(staging, runtime)
    done = run(
        [*box.before, *box.engine, "run", "--rm", *box.limits, *flags, "--network=none", "--hostname=boxed", "--env=COLOR=blue",
         f"--env=PYTHON={sys.executable}", f"--env=PYTHONPATH={ROOT / 'src'}", "--rootfs", "/:O", "/bin/sh", "-c", INSIDE],
        60, os.environ,
    )  # fmt: skip
    confined, color, hostname, said, verdict = done.out.splitlines()
    assert (confined, color, hostname, verdict) == ("confined", "blue", "boxed", "sidestage exec works here"), done.err
    assert said.startswith(fuse)


def test_what_doctor_says_inside_a_container_that_allows_too_little(staging: Target, tmp_path: Path) -> None:
    """A profile without seccomp(2) and pidfd_getfd(2), as some engines have: doctor names the option that gives them."""
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["seccomp", "pidfd_getfd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }))  # fmt: skip
    box = boxed(staging, "runc")
    done = run(
        [*box.engine, "run", "--rm", *box.limits, "--network=none", f"--security-opt=seccomp={profile}",
         f"--env=PYTHONPATH={ROOT / 'src'}", "--rootfs", "/:O", sys.executable, "-m", "sidestage", "doctor"],
        60, os.environ,
    )  # fmt: skip
    assert done.code == 1
    assert "start it with --security-opt seccomp=unconfined" in done.out, done.out
    assert "sidestage exec can't work here" in done.out
