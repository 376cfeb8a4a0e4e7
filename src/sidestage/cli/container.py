"""`sidestage container`: what is told to the engine, and what becomes of the container's configuration when it asks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidestage import config
from sidestage.cli.engine_line import EngineLine, read
from sidestage.cli.errors import UserError
from sidestage.cli.policy import SessionPolicy, Surroundings, files_policy
from sidestage.trap import oci

DEFAULT_HOOKS = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")  # oci-hooks(5); ours would replace them
_WHICH_RUNTIME = ("info", "--format", "{{.Host.OCIRuntime.Path}}")
ASK = 20.0  # seconds for podman and its runtime to say what they are
_KILLABLE_CRUN = (1, 8, 1)
_MADE_HERE = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/run/.containerenv", "/dev", "/proc", "/sys")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INTERRUPTED = (
    "{} lets signals interrupt calls that wait for the target: programs may see EINTR; crun 1.8.1 and runc 1.2 do not"
)


class Container:
    """trap.ports.Box."""

    def __init__(self, command: Sequence[str], find: Callable[[str], str]) -> None:
        """Raises UserError."""
        self._line = read(command, os.environ)
        self._engine = find(self._line.engine)
        self._set = _set_by(self._line)
        self.folder = tempfile.mkdtemp(prefix="sidestage-", dir=os.environ.get("XDG_RUNTIME_DIR") or None)
        hooks = [] if self._line.hooked else [folder for folder in DEFAULT_HOOKS if os.path.isdir(folder)]
        self.argv = self._line.argv(self._engine, [*hooks, self.folder])
        self._holder: subprocess.Popen[str] | None = None
        self.inside = 0  # a process in the user namespace of an ordinary user's containers
        if os.getuid():
            self._holder, self.inside = _hold(self._engine, self._line.general)
        # Which runtime it uses is needed late, and takes podman half a second to tell.
        told = ["echo", self._line.runtime] if self._line.runtime else [self._engine, *self._line.general, *_WHICH_RUNTIME]
        null = subprocess.DEVNULL
        self._runtime = subprocess.Popen(told, stdin=null, stdout=subprocess.PIPE, stderr=null, text=True)

    def prepare(
        self, settings: config.Config, policy: SessionPolicy, variables: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        """What is known when the session has begun: `variables` are for the program, over the image's."""
        self._settings, self._policy, self._variables, self._say = settings, policy, variables, say

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._holder:
            self._holder.communicate()
        if self._runtime.poll() is None:
            self._runtime.kill()
        self._runtime.communicate()

    def begins(self, spec: dict[str, Any]) -> bool:
        at = surroundings(spec)
        if self._settings.feature.fs.execute:
            self._say("feature.fs.execute has no effect in a container: its programs are those of its image")
        self._policy.files = files_policy(self._settings, at)
        process = spec["process"]
        unset = {name.upper() for name in self._settings.feature.env.unset}
        own = dict(item.partition("=")[::2] for item in process.get("env") or ())
        ours = {name: value for name, value in self._variables.items() if not self._sets(name)}
        process["env"] = [
            f"{name}={value}" for name, value in {**own, **ours}.items() if name.upper() not in unset or self._sets(name)
        ]
        return self._killable()

    def _sets(self, name: str) -> bool:
        return name in self._set or self._line.sets(name)

    def _killable(self) -> bool:
        try:
            path = self._runtime.communicate(timeout=ASK)[0].strip()
        except subprocess.TimeoutExpired:
            path = ""
        if knows_killable(shutil.which(path, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or path):
            return True
        self._say(_INTERRUPTED.format(path or "this runtime"))
        return False


def _hold(engine: str, general: Sequence[str]) -> tuple[subprocess.Popen[str], int]:
    """A process in the user namespace of an ordinary user's containers, and its number; it ends with its standard input."""
    command = [engine, *general, "unshare", "sh", "-c", "echo $$; exec cat >/dev/null"]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    assert holder.stdout is not None
    number = holder.stdout.readline().strip()
    if not number.isdecimal():
        holder.communicate()
        raise UserError("`podman unshare` fails, so podman can't start containers for this user", "run it, and see what it says")
    return holder, int(number)


def _set_by(line: EngineLine) -> set[str]:
    """The variables of the user's own files, which rule over the target's as `-e` does. Raises UserError."""
    found: set[str] = set()
    for path in line.env_files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as text:
                found |= {row.strip().partition("=")[0] for row in text if row.strip() and not row.lstrip().startswith("#")}
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}", "correct podman's --env-file") from error
    return found


def knows_killable(runtime: str) -> bool:
    """Does it know the flag by which signals wait while a call is ours? runc 1.1 and later, and crun 1.8.6, tell their features."""
    def said(*words: str) -> str:
        try:
            done = subprocess.run([runtime, *words], capture_output=True, text=True, check=True, timeout=ASK)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout

    try:
        features = json.loads(said("features") or "{}")["linux"]["seccomp"]
    except (ValueError, KeyError, TypeError):
        version = re.match(r"crun version (\d+)\.(\d+)(?:\.(\d+))?", said("--version"))
        return version is not None and tuple(int(part or 0) for part in version.groups()) >= _KILLABLE_CRUN
    return oci.KILLABLE in (features.get("supportedFlags") or ())


def surroundings(spec: Mapping[str, Any]) -> Surroundings:
    """Of the container's program. What the user has mounted into it is local, as what is in the working directory is."""
    process = spec["process"]
    env = dict(item.partition("=")[::2] for item in process.get("env") or ())
    home = env.get("HOME") or ("/root" if not process.get("user", {}).get("uid") else "/")
    path = env.get("PATH", _PATH).split(":")
    program = process["args"][0]
    if "/" not in program:
        top = spec.get("root", {}).get("path", "/")
        places = [f"{folder}/{program}" for folder in path if folder.startswith("/")]
        program = next((place for place in places if os.path.lexists(top + place)), program)
    mounted = [mount["destination"].rstrip("/") for mount in spec.get("mounts") or () if mount["destination"].rstrip("/")]
    local = [
        f"^{re.escape(place)}(/|$)" for place in mounted
        if not any(place == made or place.startswith(f"{made}/") for made in _MADE_HERE)
    ]  # fmt: skip
    return Surroundings(home, process.get("cwd") or "/", program, env.get("TMPDIR", "/tmp"), path, local, runs=False)
