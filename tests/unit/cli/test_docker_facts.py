"""What docker says of its daemon decides whether its containers can be plugged in, and what is said if not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sidestage.cli.container import by_features
from sidestage.cli.docker import passed
from sidestage.cli.docker_facts import Facts, Here, check, profile_of
from sidestage.cli.errors import UserError

HERE = Here("laptop", "6.1.0", 0)
SECCOMP = "name=seccomp,profile=builtin"
INFO: dict[str, Any] = {
    "Name": "laptop", "KernelVersion": "6.1.0", "OperatingSystem": "Debian GNU/Linux 13",
    "SecurityOptions": ["name=apparmor", SECCOMP],
    "DefaultRuntime": "runc", "Runtimes": {"runc": {"path": "runc"}, "mine": {"path": "/opt/mine"}},
}  # fmt: skip
GOOD = Facts("Docker version 29.1.0", "unix:///var/run/docker.sock", {"Version": "29.1.0", "APIVersion": "1.52"}, INFO)
ROOTLESS = {**INFO, "SecurityOptions": [SECCOMP, "name=rootless"]}


def info(**changed: Any) -> dict[str, Any]:
    return {"info": {**INFO, **changed}}


def server(version: str, api: str) -> dict[str, Any]:
    return {"server": {"Version": version, "ApiVersion": api}}


@pytest.mark.parametrize(
    "changed, here, privileged",
    [
        ({}, HERE, False),
        ({}, HERE, True),
        (server("23.0.0", "1.42"), HERE, False),
        ({"info": ROOTLESS, "owner": 1000}, Here("laptop", "6.1.0", 1000), False),
        ({"info": ROOTLESS, "owner": 1000}, HERE, False),
    ],
)
def test_what_can_be_plugged_in(changed: dict[str, Any], here: Here, privileged: bool) -> None:
    check(dataclasses.replace(GOOD, **changed), here, privileged=privileged)


@pytest.mark.parametrize(
    "changed, here, cause, cure",
    [
        ({"client": "podman version 4.3.1"}, HERE, "docker is podman", "podman run"),
        ({"endpoint": "tcp://10.0.0.1:2376"}, HERE, "tcp://10.0.0.1:2376", "run sidestage there"),
        ({"endpoint": "ssh://vm", "failure": "x"}, HERE, "another machine", "docker context use default"),
        (info(OperatingSystem="Docker Desktop", Name="docker-desktop"), HERE, "virtual machine", "Docker Engine"),
        ({"failure": "Cannot connect to the Docker daemon"}, HERE, "Cannot connect", "systemctl start docker"),
        ({"failure": "permission denied while trying to connect"}, HERE, "permission denied", "sudo sidestage"),
        ({"server": {"Components": [{"Name": "Podman Engine"}]}}, HERE, "podman, not docker", "podman run"),
        (info(Name="vm"), HERE, "another machine (vm, Linux 6.1.0)", "run sidestage there"),
        (info(KernelVersion="5.15"), HERE, "another machine", "run sidestage there"),
        (server("20.10.24+dfsg1", "1.41"), HERE, "docker 20.10.24+dfsg1 is too old", "install a newer docker"),
        (server("", ""), HERE, "of unknown version", "install a newer docker"),
        (info(SecurityOptions=["name=apparmor"]), HERE, "no seccomp", "podman run"),
        ({}, Here("laptop", "6.1.0", 1000), "only root may look into them", "sudo sidestage container"),
        ({"info": ROOTLESS, "owner": 1001}, Here("laptop", "6.1.0", 1000), "another user's", "as that user"),
    ],
)
def test_what_is_refused(changed: dict[str, Any], here: Here, cause: str, cure: str) -> None:
    with pytest.raises(UserError) as caught:
        check(dataclasses.replace(GOOD, **changed), here, privileged=False)
    first, second = str(caught.value).splitlines()
    assert cause in first
    assert cure in second


def test_privileged_needs_a_daemon_that_takes_a_profile_then() -> None:
    with pytest.raises(UserError, match="--privileged"):
        check(dataclasses.replace(GOOD, **server("25.0.2", "1.44")), HERE, privileged=True)


def test_the_runtime() -> None:
    assert GOOD.runtime("") == ("runc", "")
    assert GOOD.runtime("mine") == ("/opt/mine", "")
    assert GOOD.runtime("io.containerd.runc.v2") == ("io.containerd.runc.v2", "")
    told = {"path": "runc", "status": {"org.opencontainers.runtime-spec.features": "{}"}}
    assert dataclasses.replace(GOOD, **info(Runtimes={"runc": told})).runtime("") == ("runc", "{}")


@pytest.mark.parametrize(
    "seccomp, want",
    [
        ({"actions": ["SCMP_ACT_NOTIFY"], "supportedFlags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, (True, True)),
        ({"actions": ["SCMP_ACT_NOTIFY"]}, (True, False)),
        ({"actions": None}, (False, False)),
    ],
)
def test_what_a_runtime_can(seccomp: dict[str, Any], want: tuple[bool, bool]) -> None:
    assert by_features(json.dumps({"linux": {"seccomp": seccomp}})) == want
    assert by_features("[]") == by_features("?") == (False, False)


@pytest.mark.parametrize(
    "said, privileged, daemon, want",
    [
        ([], False, "builtin", "builtin"),
        ([], False, "default", "builtin"),
        ([], False, "/etc/docker/seccomp.json", "/etc/docker/seccomp.json"),
        ([], True, "builtin", "unconfined"),
        (["seccomp=unconfined"], False, "builtin", "unconfined"),
        (["seccomp=mine.json"], True, "unconfined", "mine.json"),
        (["seccomp=mine.json", "seccomp:builtin"], False, "unconfined", "builtin"),
    ],
)
def test_whose_profile_it_is(said: list[str], privileged: bool, daemon: str, want: str) -> None:
    assert profile_of(said, privileged=privileged, daemon=daemon) == want


def test_how_variables_go_to_docker() -> None:
    lines, named, lost = passed({
        "A": "1", "EMPTY": "", "SPACES": " x ", "CERT": "a\nb", "LONG": "x" * 70000, "RETURN": "x\r",
        "HOME": "a\nb", "DOCKER_X": "\n", "BAD": "\udcff", "TWO WORDS": "1", "#X": "1",
    })  # fmt: skip
    assert lines == ["A=1", "EMPTY=", "SPACES= x "]
    assert named == {"CERT": "a\nb", "LONG": "x" * 70000, "RETURN": "x\r"}
    assert lost == ["HOME", "DOCKER_X", "BAD", "TWO WORDS", "#X"]
