"""What a docker daemon says of itself, and whether a container of it can be plugged in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidestage.cli.errors import UserError

LISTENS = (1, 42)  # API of docker 23: the first whose profiles have a listenerPath (it takes over all of the specification's)
PRIVILEGED = (1, 46)  # of docker 27; some before it leave a privileged container without any profile (moby/moby#47499)
_FEATURES = "org.opencontainers.runtime-spec.features"
_HERE = "sidestage and the daemon must share a machine"
BUILTIN, UNCONFINED = ("builtin", "default"), "unconfined"


@dataclass(frozen=True, slots=True)
class Here:
    """This machine and user."""

    name: str
    kernel: str
    uid: int


@dataclass(frozen=True, slots=True)
class Facts:
    client: str = ""  # `docker --version`
    endpoint: str = ""  # `docker context inspect`
    server: Mapping[str, Any] = field(default_factory=dict)  # `docker version`
    info: Mapping[str, Any] = field(default_factory=dict)  # `docker info`
    failure: str = ""  # of the last two
    owner: int = 0  # whose daemon listens at the endpoint

    @property
    def api(self) -> tuple[int, ...]:
        said = str(self.server.get("ApiVersion") or self.server.get("APIVersion") or "")  # as the client's version spells it
        return tuple(int(part) for part in said.split(".") if part.isdecimal())

    @property
    def security(self) -> dict[str, str]:
        """Of its SecurityOptions, such as name=seccomp,profile=builtin: the name of each, and its profile."""
        options = [dict(word.partition("=")[::2] for word in said.split(",")) for said in self.info.get("SecurityOptions") or ()]
        return {option.get("name", ""): option.get("profile", "") for option in options}

    @property
    def rootless(self) -> bool:
        return "rootless" in self.security

    def runtime(self, named: str) -> tuple[str, str]:
        """The path of the runtime that is used, and what the daemon knows of its features (since docker 25)."""
        name = named or self.info.get("DefaultRuntime") or "runc"
        entry = (self.info.get("Runtimes") or {}).get(name) or {}
        return entry.get("path") or name, (entry.get("status") or {}).get(_FEATURES) or ""


def check(facts: Facts, here: Here, *, privileged: bool) -> None:
    """Raises UserError."""
    if facts.client.startswith("podman"):
        raise UserError("docker is podman here", "write podman run, which is plugged in as podman", 2)
    if facts.endpoint and not facts.endpoint.startswith("unix://"):
        cure = f"run sidestage there, or choose a daemon of this machine: {_LOCAL}"
        raise UserError(f"docker's daemon is at {facts.endpoint}: the container would run on another machine", cure, 2)
    info = facts.info
    if info.get("OperatingSystem") == "Docker Desktop":
        cure = f"use a Docker Engine of this machine ({_LOCAL}), or podman run"
        raise UserError("Docker Desktop runs containers in a virtual machine of its own, out of reach", cure, 2)
    if facts.failure:
        raise UserError(f"docker: {facts.failure}", _failure_cure(facts.failure))
    if any("podman" in str(part.get("Name", "")).lower() for part in facts.server.get("Components") or ()):
        raise UserError(f"podman, not docker, listens at {facts.endpoint}", "write podman run, which is plugged in as podman", 2)
    there = info.get("Name"), info.get("KernelVersion")
    if there != (here.name, here.kernel):
        cause = f"docker's daemon runs on another machine ({there[0]}, Linux {there[1]}), or this shell in a container of its own"
        raise UserError(cause, f"{_HERE}: run sidestage there", 2)
    _check_version(facts, privileged)
    if not facts.rootless and here.uid:
        cause = "this docker's containers are root's: you may start them, but only root may look into them"
        raise UserError(cause, "sudo sidestage container ..., or use rootless docker or podman run")
    if facts.rootless and here.uid not in (0, facts.owner):
        raise UserError("this rootless docker is another user's", "run sidestage as that user, or use podman run")


def _check_version(facts: Facts, privileged: bool) -> None:
    version = facts.server.get("Version") or "of unknown version"
    if facts.api < LISTENS:
        cause = f"docker {version} is too old: it passes no listener to its runtime; docker 23 is the first that does"
        raise UserError(cause, "install a newer docker (docs.docker.com/engine/install), or use podman run")
    if "seccomp" not in facts.security:
        raise UserError("docker's daemon says that it has no seccomp", "use podman run")
    if privileged and facts.api < PRIVILEGED:
        cure = "leave it out, or install docker 27 or later, or use podman run"
        raise UserError(f"docker {version} may ignore a seccomp profile together with --privileged", cure)


_LOCAL = "docker context use default, and unset DOCKER_HOST and DOCKER_CONTEXT"


def _failure_cure(failure: str) -> str:
    if "permission denied" in failure:
        return "sudo sidestage container ..., or use podman run, which needs no root"
    return "see `docker info`; is the daemon started? sudo systemctl start docker"


def profile_of(said: Sequence[str], *, privileged: bool, daemon: str) -> str:
    """Where the container's own seccomp profile is: a file, or one of two words. `said` are the user's --security-opt seccomp=."""
    if said:
        found = said[-1][len("seccomp=") :]
    else:
        found = UNCONFINED if privileged else daemon
    return BUILTIN[0] if found in BUILTIN else found
