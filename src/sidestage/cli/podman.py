"""podman run: a hook of stage `precreate` (oci-hooks(5)) sends us what it is about to start, and gets it back with our filter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sidestage.cli.container import ASK, Container, abilities
from sidestage.cli.engine_line import EngineLine
from sidestage.cli.errors import UserError

DEFAULT_HOOKS = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")  # oci-hooks(5); ours would replace them
_WHICH_RUNTIME = ("info", "--format", "{{.Host.OCIRuntime.Path}}")
# Passes the configuration from podman to us and back; no answer means that it was refused, for which podman needs a status.
_HOOK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as end:
    end.connect(sys.argv[1])
    end.sendall(sys.stdin.buffer.read())
    end.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: end.recv(1 << 16), b""))
sys.stdout.buffer.write(answer)
sys.exit(not answer)
"""


class Podman(Container):
    def __init__(self, line: EngineLine, find: Callable[[str], str]) -> None:
        """Raises UserError."""
        super().__init__(line, find(line.engine))
        hooks = [] if line.hooked else [folder for folder in DEFAULT_HOOKS if os.path.isdir(folder)]
        self.argv = line.argv(self._engine, [f"--hooks-dir={folder}" for folder in [*hooks, self.folder]])
        self._holder: subprocess.Popen[str] | None = None
        if os.getuid():
            try:
                self._holder, self.inside = _hold(self._engine, line.general)
            except BaseException:
                super().discard()
                raise
        # Which runtime it uses is needed late, and takes podman half a second to tell.
        told = ["echo", line.runtime] if line.runtime else [self._engine, *line.general, *_WHICH_RUNTIME]
        null = subprocess.DEVNULL
        self._runtime = subprocess.Popen(told, stdin=null, stdout=subprocess.PIPE, stderr=null, text=True)

    def discard(self) -> None:
        super().discard()
        if self._holder:
            self._holder.communicate()
        if self._runtime.poll() is None:
            self._runtime.kill()
        self._runtime.communicate()

    def offers(self, path: str, names: Collection[str]) -> None:
        hook = {"path": sys.executable, "args": [sys.executable, "-ISc", _HOOK, path]}
        with open(os.path.join(self.folder, "hooks.json"), "w", encoding="utf-8") as file:
            json.dump({"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": ["precreate"]}, file)

    def begins(self, spec: dict[str, Any]) -> bool:
        self._lies(spec, spec.get("root", {}).get("path", "/"))
        process = spec["process"]
        unset = {name.upper() for name in self._settings.feature.env.unset}
        own = dict(item.partition("=")[::2] for item in process.get("env") or ())
        process["env"] = [
            f"{name}={value}" for name, value in {**own, **self._variables}.items()
            if name.upper() not in unset or self._sets(name)
        ]  # fmt: skip
        return self._killable()

    def starts(self, state: Mapping[str, Any], runtime: int) -> None:
        pass  # all that is to be known was known before

    def _killable(self) -> bool:
        try:
            path = self._runtime.communicate(timeout=ASK)[0].strip()
        except subprocess.TimeoutExpired:
            path = ""
        _, killable = abilities(path)
        if not killable:
            self._warn(path)
        return killable


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
