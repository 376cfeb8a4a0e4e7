"""`sidestage container`: what becomes of a container's program, whichever engine starts it. podman.py and docker.py differ."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sidestage import config
from sidestage.cli.engine_line import EngineLine, read
from sidestage.cli.errors import UserError
from sidestage.cli.policy import SessionPolicy, Surroundings, files_policy
from sidestage.trap import oci

ASK = 20.0  # seconds for an engine or its runtime to say what it is
_KILLABLE_CRUN = (1, 8, 1)
_MADE_HERE = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/.containerenv", "/dev", "/proc", "/sys")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INTERRUPTED = "{} lets signals interrupt calls that wait for the target: programs may see EINTR; {} do not"


def container(command: Sequence[str], find: Callable[[str], str]) -> Container:
    """Raises UserError."""
    line = read(command, os.environ)
    if line.name == "docker":
        from sidestage.cli.docker import Docker

        return Docker(line, find)
    from sidestage.cli.podman import Podman

    return Podman(line, find)


class Container:
    """trap.ports.Box, but for what the kinds add. `argv` and `env`, of the engine's client, are final when it is prepared."""

    inside = 0  # a process in the user namespace of an ordinary user's containers
    argv: list[str]

    def __init__(self, line: EngineLine, engine: str) -> None:
        """Raises UserError."""
        self._line, self._engine = line, engine
        self._set = _set_by(line)
        self.env = dict(os.environ)
        self.folder = tempfile.mkdtemp(prefix="sidestage-", dir=os.environ.get("XDG_RUNTIME_DIR") or None)

    def prepare(
        self, settings: config.Config, policy: SessionPolicy, variables: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        """What is known when the session has begun: `variables` are for the program, over the image's."""
        self._settings, self._policy, self._say = settings, policy, say
        self._variables = {name: value for name, value in variables.items() if not self._sets(name)}
        if settings.feature.fs.execute:
            say("feature.fs.execute has no effect in a container: its programs are those of its image")

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def offers(self, path: str, names: Collection[str]) -> None:
        raise NotImplementedError

    def begins(self, spec: dict[str, Any]) -> bool:
        raise NotImplementedError

    def starts(self, state: Mapping[str, Any], runtime: int) -> None:
        raise NotImplementedError

    def _sets(self, name: str) -> bool:
        return name in self._set or self._line.sets(name)

    def _lies(self, spec: Mapping[str, Any], root: str) -> None:
        """The program lies in a container so configured, at `root`."""
        self._policy.files = files_policy(self._settings, surroundings(spec, root))

    def _warn(self, runtime: str) -> None:
        self._say(_INTERRUPTED.format(runtime or "this runtime", "crun 1.8.1 and runc 1.2 (with libseccomp 2.6)"))


def _set_by(line: EngineLine) -> set[str]:
    """The variables of the user's own files, which rule over the target's as `-e` does. Raises UserError."""
    found: set[str] = set()
    for path in line.env_files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as text:
                found |= {row.strip().partition("=")[0] for row in text if row.strip() and not row.lstrip().startswith("#")}
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}", f"correct {line.name}'s --env-file") from error
    return found


def abilities(runtime: str) -> tuple[bool, bool]:
    """Does it hand over a listener, and does it know the flag by which signals wait while a call is ours?"""
    runtime = shutil.which(runtime, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or runtime

    def said(*words: str) -> str:
        try:
            done = subprocess.run([runtime, *words], capture_output=True, text=True, check=True, timeout=ASK)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout

    told = said("features")  # runc 1.1 and later, and crun 1.8.6
    if told:
        return by_features(told)
    version = re.match(r"crun version (\d+)\.(\d+)(?:\.(\d+))?", said("--version"))
    return bool(version), version is not None and tuple(int(part or 0) for part in version.groups()) >= _KILLABLE_CRUN


def by_features(told: str) -> tuple[bool, bool]:
    """The same, of what a runtime tells of itself (features.md of the OCI specification)."""
    try:
        seccomp = json.loads(told)["linux"]["seccomp"]
        return oci.NOTIFY in (seccomp.get("actions") or ()), oci.KILLABLE in (seccomp.get("supportedFlags") or ())
    except (ValueError, KeyError, TypeError, AttributeError):
        return False, False


def surroundings(spec: Mapping[str, Any], root: str) -> Surroundings:
    """Of the container's program. What the user has mounted into it is local, as what is in the working directory is."""
    process = spec["process"]
    env = dict(item.partition("=")[::2] for item in process.get("env") or ())
    home = env.get("HOME") or ("/root" if not process.get("user", {}).get("uid") else "/")
    path = env.get("PATH", _PATH).split(":")
    program = process["args"][0]
    if "/" not in program:
        places = [f"{folder}/{program}" for folder in path if folder.startswith("/")]
        program = next((place for place in places if os.path.lexists(root + place)), program)
    mounted = [mount["destination"].rstrip("/") for mount in spec.get("mounts") or () if mount["destination"].rstrip("/")]
    local = [
        f"^{re.escape(place)}(/|$)" for place in mounted
        if not any(place == made or place.startswith(f"{made}/") for made in _MADE_HERE)
    ]  # fmt: skip
    return Surroundings(home, process.get("cwd") or "/", program, env.get("TMPDIR", "/tmp"), path, local, runs=False)
