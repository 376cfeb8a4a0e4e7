"""What is sent to the target's side, and how it is started. Used on the laptop; does not travel itself.

The command line carries only stage0.py's text. It reads the payload from standard input: its length, then the zlib
stream of a JSON object {module: source}; then the agent says READY and speaks the protocol.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import struct
import time
import zlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

READY = b"SIDESTAGE-AGENT-READY\n"
MAX_NOISE = 64 << 10  # bytes that a wrapped interpreter may print before READY
BUDGET = 100 << 10  # bytes of the compressed payload
MODULES = {
    "sidestage.protocol": ("errors", "messages", "mux", "wire"),
    "sidestage.stream": ("link", "loop", "pump"),
    "sidestage.agent": ("env", "files", "main", "mirror", "outgoing", "target", "tcp"),
}


@lru_cache(1)
def build() -> bytes:
    """The compressed payload."""
    sources = {"sidestage": ""}
    for package, names in MODULES.items():
        sources[package] = ""
        folder = resources.files(package)
        for name in names:
            sources[f"{package}.{name}"] = (folder / f"{name}.py").read_text(encoding="utf-8")
    return zlib.compress(json.dumps(sources).encode(), 6)


def sha256() -> str:
    return hashlib.sha256(build()).hexdigest()


def preamble() -> bytes:
    """What to write to the agent's standard input before the protocol begins."""
    return struct.pack("!I", len(build())) + build()


def command(python: str, args: Mapping[str, object]) -> list[str]:
    """The command line that starts an agent; `args` are main.run's, as JSON."""
    stage0 = (resources.files("sidestage.agent") / "stage0.py").read_text(encoding="utf-8")
    code = "\n".join(line for line in stage0.splitlines() if not line.lstrip().startswith(("#", '"""')) and line.strip())
    return [python, "-I", "-S", "-u", "-X", "utf8", "-c", code, json.dumps(dict(args))]


def read_sync(fd: int, timeout: float) -> None:
    """Skip to just behind READY on `fd`; raises EOFError at the stream's end, TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    seen = b""
    while not seen.endswith(READY):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"no answer within {timeout:.0f} s")
        byte = os.read(fd, 1)  # one at a time: what follows belongs to the link
        if not byte:
            raise EOFError("the stream ended")
        seen += byte
        if len(seen) > MAX_NOISE:
            raise EOFError("something else is printed there instead of the agent's greeting")
