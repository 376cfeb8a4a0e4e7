"""What trap needs from outside: decisions, and the facts of the target. Implemented in views, given by cli."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Decision(enum.Enum):
    LOCAL = "local"
    REMOTE = "remote"
    NOT_FOUND = "not found"


@dataclass(frozen=True, slots=True)
class Begin:
    """What session says when the agent is there. `root` is a descriptor of the FUSE mount's root, or -1."""

    hostname: str = ""  # empty: the program sees the local one
    addresses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    root: int = -1
    opener: int = -1  # opens what is below it, where we may not; a socket


class Policy(Protocol):
    writes: bool  # may any path be the target's for writing?
    names: bool  # do connect's decisions depend on the names that session's event `name` tells?

    def path(self, path: str, write: bool) -> tuple[Decision, str]:
        """The decision, and the path to use (feature.fs.mapping may have changed it)."""

    def execute(self, path: str) -> bool:
        """May a program of the target be run here?"""

    def connect(self, family: int, host: str, port: int, kind: str) -> tuple[str, int] | None: ...
    def unix(self, path: str) -> bool: ...
    def listen(self, host: str, port: int) -> bool: ...
    def local_port(self, port: int) -> int:
        """The local port for a listener asked for on `port` (listen_ports)."""


class Box(Protocol):
    """A container that is to be started by its engine."""

    folder: str  # one of our own, which the engine and its runtime can reach

    def offers(self, path: str, names: Collection[str]) -> None:
        """The engine is about to be started; the listener of a filter that tells these calls is expected at unix socket `path`."""

    def begins(self, spec: dict[str, Any]) -> bool:
        """Change the container's configuration (OCI runtime specification) in place. Are signals to wait while a call is ours?

        Raises LaunchError when it can't be plugged in. Not every engine asks.
        """

    def starts(self, state: Mapping[str, Any], runtime: int) -> None:
        """The program is about to begin. `state` is of its container (the specification's "Container Process State"), and process
        `runtime` told it. Raises LaunchError when it can't be plugged in.
        """
