"""doctor's judgement, fed with the facts of machines that lack something: what it says, and the cure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from sidestage.cli import doctor
from sidestage.cli.facts import Facts, _wsl, gather
from sidestage.cli.finding import Finding

GOOD = Facts(
    release="6.8.0-31-generic", machine="x86_64", python=(3, 12, 3), notify=True, killable=True, getfd=True, yama="1",
    engines=("podman",),
)  # fmt: skip
DOCKER = replace(GOOD, container="a docker container", seccomp=True)
APPARMOR = replace(GOOD, userns_error="Operation not permitted", apparmor_userns=True, fuse_error="not permitted")


def found(facts: Facts, name: str) -> Finding:
    return next(finding for finding in doctor.examine(facts) if finding.name == name)


def test_a_machine_that_lacks_nothing() -> None:
    assert {finding.state for finding in doctor.examine(GOOD)} == {"ok"}
    assert not [finding.cure for finding in doctor.examine(GOOD) if finding.cure]


@pytest.mark.parametrize(
    "facts, name, state, cure",
    [
        (replace(GOOD, release="5.15.0-100-generic"), "kernel", "fatal", "5.19"),
        (replace(GOOD, release="5.19"), "kernel", "ok", ""),
        (replace(GOOD, release="odd"), "kernel", "fatal", "5.19"),
        (replace(GOOD, release="5.15.90.1-microsoft-standard-WSL2", wsl=2), "kernel", "fatal", "wsl --update"),
        (replace(GOOD, release="4.4.0-19041-Microsoft", wsl=1), "kernel", "fatal", "wsl --set-version"),
        (replace(GOOD, machine="riscv64", trap_error="not tried"), "architecture", "fatal", "x86_64 or aarch64"),
        (replace(GOOD, python=(3, 10, 9)), "python", "fatal", "3.11"),
        (replace(GOOD, killable=False), "seccomp", "fatal", "5.19"),
        (replace(DOCKER, notify=False, killable=False), "seccomp", "fatal", "seccomp=unconfined"),
        (replace(GOOD, getfd=False), "pidfd_getfd", "fatal", "5.6"),
        (replace(DOCKER, getfd=False), "pidfd_getfd", "fatal", "SYS_PTRACE"),
        (replace(GOOD, trap_error="busy", nested=True), "trap", "fatal", "leave the outer"),
        (replace(DOCKER, trap_error="EPERM"), "trap", "fatal", "seccomp=unconfined"),
        (replace(GOOD, trap_error="EPERM"), "trap", "fatal", "yama"),
        (replace(GOOD, yama=""), "yama", "ok", ""),
        (replace(GOOD, yama="2"), "yama", "fatal", "ptrace_scope=1"),
        (replace(GOOD, yama="2", root=True), "yama", "ok", ""),
        (replace(GOOD, yama="3", root=True), "yama", "fatal", "/etc/sysctl.d"),
        (APPARMOR, "user namespaces", "lack", "apparmor_restrict_unprivileged_userns=0"),
        (APPARMOR, "fuse", "lack", "see user namespaces"),
        (replace(APPARMOR, root=True, fuse_error=""), "user namespaces", "ok", ""),
        (replace(GOOD, userns_error="No space left on device", userns_limit=0), "user namespaces", "lack", "max_user_namespaces"),
        (replace(GOOD, userns_error="Operation not permitted"), "user namespaces", "lack", "unprivileged_userns_clone"),
        (replace(DOCKER, userns_error="Operation not permitted"), "user namespaces", "lack", "a docker container"),
        (replace(GOOD, fuse_device="missing", fuse_error="no such file"), "fuse", "lack", "modprobe fuse"),
        (replace(DOCKER, fuse_device="missing", fuse_error="no such file"), "fuse", "lack", "--device /dev/fuse"),
        (replace(GOOD, fuse_device="closed", fuse_error="denied"), "fuse", "lack", "chmod 666"),
        (replace(DOCKER, fuse_error="denied"), "fuse", "lack", "SYS_ADMIN"),
        (replace(GOOD, fuse_error="fsopen: function not implemented"), "fuse", "lack", "CONFIG_FUSE_FS"),
        (replace(GOOD, engines=()), "containers", "lack", "install podman"),
        (replace(GOOD, engines=(), closed_engines=("docker",)), "containers", "lack", "usermod -aG docker"),
    ],
)
def test_a_lack_has_its_cure(facts: Facts, name: str, state: str, cure: str) -> None:
    finding = found(facts, name)
    assert finding.state == state
    assert cure in finding.cure
    assert bool(finding.cure) == (state != "ok")


@pytest.mark.parametrize("facts, said", [(DOCKER, "a docker container, a seccomp filter"), (replace(GOOD, wsl=2), "WSL 2")])
def test_surroundings_are_named(facts: Facts, said: str) -> None:
    assert found(facts, "inside").detail == said


@pytest.mark.parametrize(
    "release, version",
    [("5.15.90.1-microsoft-standard-WSL2", 2), ("4.19.84-microsoft-standard", 2), ("4.4.0-19041-Microsoft", 1), ("6.1.0", 0)],
)
def test_wsl(release: str, version: int) -> None:
    assert _wsl(release) == version


def test_this_machine_runs_the_other_tests() -> None:
    facts = gather()
    assert (facts.notify, facts.killable, facts.getfd, facts.trap_error) == (True, True, True, "")


def test_the_kernel_can_say_no() -> None:
    from sidestage.trap import kernel

    assert not kernel.knows_filter(1 << 30)


def test_tools_get_json_and_an_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidestage", "doctor", "--output", "json", "--kubeconfig", "/nowhere"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["works"] is (done.returncode == 0)
    names = [finding["name"] for finding in told["findings"]]
    assert names[:-1] == [finding.name for finding in doctor.examine(GOOD)]
    assert names[-1] == "cluster"
    assert all(finding["cure"] for finding in told["findings"] if finding["state"] != "ok")
    assert not re.search(r"[\x00-\x08\x1b]", done.stdout)
