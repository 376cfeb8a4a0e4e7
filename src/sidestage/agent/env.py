"""The environment of the target's main process."""

from __future__ import annotations

import os


def own() -> bytes:
    """Ours: in the target's container, or in one that was given its variables, they are the configured ones."""
    return b"\0".join(key + b"=" + value for key, value in os.environb.items())


def read(pid: int) -> bytes:
    """NUL-separated K=V of proc_pid_environ(5); raises OSError."""
    with open(f"/proc/{pid}/environ", "rb") as environ:
        return environ.read()
