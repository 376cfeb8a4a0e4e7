"""docker run: a seccomp profile given by --security-opt carries our filter and the listener's path to the runtime, and the target's
variables go by --env-file. What must be known of the container is read from its bundle, when the runtime hands the listener over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sidestage import config
from sidestage.cli import moby
from sidestage.cli.container import ASK, Container, abilities, by_features
from sidestage.cli.docker_facts import BUILTIN, UNCONFINED, Facts, Here, check, profile_of
from sidestage.cli.engine_line import EngineLine
from sidestage.cli.errors import UserError
from sidestage.cli.policy import SessionPolicy
from sidestage.trap import LaunchError, oci

_UCRED = struct.Struct("=iII")  # unix(7): pid, uid, gid
_ENDPOINT = ("context", "inspect", "--format", "{{json .Endpoints.docker.Host}}")
_SERVER = ("version", "--format", "{{json .Server}}")
_INFO = ("info", "--format", "{{json .}}")
# What docker's client itself reads: a value of the target's can't go to the container by these names in its environment.
_CLIENTS_OWN = ("DOCKER_", "BUILDKIT_", "HOME", "PATH", "SSH_", "XDG_")
_LINE = 60000  # bytes that a line of an env file may have (bufio.MaxScanTokenSize is 65536)


class Docker(Container):
    def __init__(self, line: EngineLine, find: Callable[[str], str]) -> None:
        """Raises UserError."""
        engine = find(line.engine)
        privileged = line.switched("--privileged")
        facts, pid = ask(engine, line.general)
        check(facts, Here(os.uname().nodename, os.uname().release, os.geteuid()), privileged=privileged)
        self._runtime, features = facts.runtime(line.runtime)
        hands_over, self._killable = by_features(features) if features else abilities(self._runtime)
        if not hands_over:
            cure = "choose one that docker knows: docker run --runtime runc ..."
            raise UserError(f"docker's runtime {self._runtime} hands over no listener; runc 1.1 and later and crun do", cure)
        said = [value or "" for _, value in line.seccomp]
        self._base = _profile(profile_of(said, privileged=privileged, daemon=facts.security["seccomp"]))
        super().__init__(line, engine)
        if facts.rootless and os.geteuid():
            self.inside = pid  # the daemon's own user namespace is that of its containers
        self._extra: list[str] = []
        self._compose()

    def _compose(self) -> None:
        ours = [f"--env-file={self._path('env')}", *self._extra, f"--security-opt=seccomp={self._path('seccomp.json')}"]
        self.argv = self._line.argv(self._engine, ours=ours, without=self._line.seccomp)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def prepare(
        self, settings: config.Config, policy: SessionPolicy, variables: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        super().prepare(settings, policy, variables, say)
        lines, named, lost = passed(self._variables)
        for name in lost:
            say(f"{name} can't be given to docker: its client takes no such name or value")
        for name in settings.feature.env.unset:  # docker takes a variable away that is named, and that its client hasn't
            if not self._sets(name) and not name.startswith(_CLIENTS_OWN):
                named[name] = None
        with open(self._path("env"), "w", encoding="utf-8") as file:
            file.write("".join(f"{text}\n" for text in lines))
        for name, value in named.items():
            self._extra.append(f"-e{name}")
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = value
        self._compose()
        if not self._killable:
            self._warn(self._runtime)

    def offers(self, path: str, names: Collection[str]) -> None:
        made = oci.seccomp(self._base, names, path, killable=self._killable)
        with open(self._path("seccomp.json"), "w", encoding="utf-8") as file:
            json.dump(made, file)

    def starts(self, state: Mapping[str, Any], runtime: int) -> None:
        bundle = state["bundle"]
        # That is a path of the daemon's, which may have mounts of its own (rootless docker has)
        for root in ("", f"/proc/{runtime}/root"):
            with contextlib.suppress(OSError), open(f"{root}{bundle}/config.json", encoding="utf-8") as file:
                spec = json.load(file)
                break
        else:
            raise LaunchError(f"the container's configuration in {bundle} can't be read, so it can't be plugged in", 1)
        self._lies(spec, f"/proc/{state['pid']}/root")


def ask(engine: str, general: Sequence[str]) -> tuple[Facts, int]:
    """What docker says, and the pid of its daemon, 0 if that is not a process here. Raises UserError."""
    asked = [("--version",), *((*general, *words) for words in (_ENDPOINT, _SERVER, _INFO))]
    pipe = subprocess.PIPE
    started = [subprocess.Popen([engine, *words], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) for words in asked]
    said: list[tuple[str, str]] = []
    try:
        said = [process.communicate(timeout=ASK) for process in started]
    except subprocess.TimeoutExpired as error:
        raise UserError(f"docker doesn't answer within {ASK:.0f} s", "see `docker info`") from error
    finally:
        for process in started[len(said) :]:
            process.kill()
            process.communicate()
    endpoint, server, info = (_json(out) for out, _ in said[1:])
    info = info or {}
    failure = "; ".join(info.get("ServerErrors") or ())
    if not (failure or (server and info)):
        failure = _last(said[2][1] or said[3][1] or said[1][1])
    pid, uid = _listener(endpoint or "")
    return Facts(said[0][0], endpoint or "", server or {}, info, failure, uid), pid


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _last(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["it says nothing of its daemon"])[-1]


def _listener(endpoint: str) -> tuple[int, int]:
    """Who called listen(2) at that socket: process and user."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as end:
        end.settimeout(ASK)
        end.connect(endpoint.removeprefix("unix://"))
        pid, uid, _ = _UCRED.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return pid, uid
    return 0, 0


def _profile(place: str) -> dict[str, Any] | None:
    """A profile in moby's form; None: there is none. Raises UserError."""
    if place == UNCONFINED:
        return None
    if place == BUILTIN[0]:
        return moby.profile()
    try:
        with open(place, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
            found["defaultAction"]  # it must have one
            return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the seccomp profile {place} can't be read: {error}", "correct --security-opt seccomp=FILE") from error


def passed(variables: Mapping[str, str]) -> tuple[list[str], dict[str, str | None], list[str]]:
    """How variables go to docker: lines of an env file, what must go by its client's environment, and what can't go at all."""
    lines: list[str] = []
    named: dict[str, str | None] = {}
    lost: list[str] = []
    for name, value in variables.items():
        text = f"{name}={value}"
        if not name or name != name.strip() or name.startswith("#") or any(c.isspace() for c in name) or not _utf8(text):
            lost.append(name)
        elif "\n" not in value and not value.endswith("\r") and len(text.encode()) < _LINE:
            lines.append(text)
        elif name.startswith(_CLIENTS_OWN):
            lost.append(name)
        else:
            named[name] = value
    return lines, named, lost


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
