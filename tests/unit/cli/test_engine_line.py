"""How the command line of podman or docker is read: what is refused, what is put in, and which variables are the user's."""

from __future__ import annotations

import pytest

from sidestage.cli.engine_line import read
from sidestage.cli.errors import UserError


@pytest.mark.parametrize(
    "command, want",
    [
        ("podman run busybox ls -l", "podman --hooks-dir=/h run --network=host busybox ls -l"),
        ("podman container run busybox", "podman --hooks-dir=/h run --network=host busybox"),
        ("podman --log-level debug run -it x sh", "podman --log-level=debug --hooks-dir=/h run --network=host -i -t x sh"),
        ("podman run --network host x", "podman --hooks-dir=/h run --network=host x"),
        ("podman run --net=host x", "podman --hooks-dir=/h run --net=host x"),
        ("podman run --pod p x", "podman --hooks-dir=/h run --pod=p x"),
        ("podman run -eA=1 -e B -p 8:8 --name n x -d", "podman --hooks-dir=/h run --network=host -eA=1 -eB -p8:8 --name=n x -d"),
        ("podman run -d=false --detach=false x", "podman --hooks-dir=/h run --network=host -dfalse --detach=false x"),
        ("podman run --rm -- x --help", "podman --hooks-dir=/h run --network=host --rm x --help"),
    ],
)
def test_what_is_run(command: str, want: str) -> None:
    line = read(command.split(), {})
    assert line.argv(line.engine, ["--hooks-dir=/h"]) == want.split()


@pytest.mark.parametrize(
    "command, want",
    [
        ("docker run busybox ls -l", "docker run --network=host --ours busybox ls -l"),
        ("docker -H unix:///s --context c -lerror run x", "docker -Hunix:///s --context=c -lerror run --network=host --ours x"),
        ("docker -D container run -it x", "docker -D run --network=host --ours -i -t x"),
        ("docker run --network n -h name -p 8:8 x", "docker run --ours --network=n -hname -p8:8 x"),
        ("docker run --use-api-socket --init x --rm", "docker run --network=host --ours --use-api-socket --init x --rm"),
        ("docker run --restart no x", "docker run --network=host --ours --restart=no x"),
        (
            "docker run --security-opt seccomp=f --security-opt no-new-privileges --security-opt=seccomp:g x",
            "docker run --network=host --ours --security-opt=no-new-privileges x",
        ),
    ],
)
def test_what_is_run_by_docker(command: str, want: str) -> None:
    line = read(command.split(), {})
    assert line.argv(line.engine, ours=["--ours"], without=line.seccomp) == want.split()


def test_switches_and_values() -> None:
    line = read("docker run --privileged --privileged=false --init=true -t --runtime=crun x".split(), {})
    assert [line.switched(name) for name in ("--privileged", "--init", "--rm")] == [False, True, False]
    assert line.runtime == "crun"
    assert read("podman --runtime=runc run x".split(), {}).runtime == "runc"


@pytest.mark.parametrize(
    "command, cause, cure",
    [
        ("podman", "podman alone", "podman run IMAGE"),
        ("podman run", "no image", "podman run IMAGE"),
        ("podman run --rm -e A=1", "no image", "podman run IMAGE"),
        ("podman run --help", "starts nothing", "without sidestage"),
        ("podman run -d x", "--detach", "leave it out"),
        ("podman run -itd x", "--detach", "leave it out"),
        ("podman run --detach x", "--detach", "leave it out"),
        ("podman exec c sh", "podman exec", "podman run IMAGE"),
        ("podman compose run web", "podman compose", "this one service"),
        ("podman-compose run web", "podman-compose", "this one service"),
        ("docker compose run web", "docker compose", "docker run [--network"),
        ("docker-compose run web", "docker-compose", "docker run [--network"),
        ("docker run", "no image", "docker run IMAGE"),
        ("docker run -d x", "docker run --detach", "leave it out"),
        ("docker run --restart always x", "--restart=always", "leave it out"),
        ("docker run --restart=on-failure:3 x", "--restart", "leave it out"),
        ("docker start c", "docker start", "docker run IMAGE"),
        ("nerdctl run x", "nerdctl", "use podman"),
        ("sudo podman run x", "sudo", "before sidestage"),
        ("podman --remote run x", "another machine", "run sidestage there"),
        ("podman -c vm run x", "another machine", "run sidestage there"),
        ("podman-remote run x", "another machine", "run sidestage there"),
        ("/opt/engine run x", "no engine", "use podman"),
    ],
)
def test_what_is_refused(command: str, cause: str, cure: str) -> None:
    with pytest.raises(UserError) as caught:
        read(command.split(), {})
    first, second = str(caught.value).splitlines()
    assert cause in first
    assert cure in second


def test_another_machine_by_a_variable() -> None:
    with pytest.raises(UserError, match="another machine"):
        read(["podman", "run", "x"], {"CONTAINER_HOST": "ssh://vm"})


def test_whose_variables() -> None:
    line = read("podman --runtime /usr/bin/runc run -e A=1 --env=B -eC=x --env LC_* --env-file f --env-file=g x -e D=1".split(), {})
    assert {name for name in ("A", "B", "C", "D", "LC_ALL", "LC") if line.sets(name)} == {"A", "B", "C", "LC_ALL"}
    assert line.env_files == ("f", "g")
    assert line.runtime == "/usr/bin/runc"
