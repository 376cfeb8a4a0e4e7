"""The environment of the target's main process."""

from __future__ import annotations


def read(pid: int) -> bytes:
    """NUL-separated K=V of proc_pid_environ(5); raises OSError."""
    with open(f"/proc/{pid}/environ", "rb") as environ:
        return environ.read()
