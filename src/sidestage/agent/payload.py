"""What is sent to the target's side, and how it is started. Used on the laptop; does not travel itself.

The command line carries only stage0.py's text. It reads the payload from standard input: a kind (`s` sources, `c` code), its
length, and a zlib stream; then the agent says READY and speaks the protocol. Sources run on any Python from 3.9; where the
interpreter is our own, as on this machine, code objects spare it the compilation, which is half of the start-up.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import select
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.machinery import SourceFileLoader

import sidestage

READY = b"SIDESTAGE-AGENT-READY\n"
MAX_NOISE = 64 << 10  # bytes that a wrapped interpreter may print before READY
BUDGET = 100 << 10  # bytes of the compressed payload
MODULES = {
    "sidestage.protocol": ("body", "errors", "inbox", "messages", "mux", "outbox", "window", "wire"),
    "sidestage.stream": ("connecting", "link", "links", "loop", "pump"),
    "sidestage.http": (
        "answers2", "filters", "hpack", "http1", "http2", "jsonpath", "opening", "orders", "patterns", "route1",
        "route2", "router", "sieve", "streams", "wires",
    ),
    "sidestage.agent": (
        "bulk", "changes", "channel_leg", "conntrack", "container", "env", "files", "holder", "inotify", "lane", "legs",
        "listeners", "locks", "main", "measure", "mesh", "mirror", "netlink", "nft", "outgoing", "passage", "port", "redirect",
        "registry", "rights", "routed", "sifted", "sockdiag", "steal", "target", "tcp", "terminated", "tls_leg", "whole",
    ),
    "sidestage.tls": ("engine", "hello", "identity"),
}  # fmt: skip


@lru_cache(2)
def build(python: str | None = None) -> bytes:
    """The payload for an interpreter: None stands for any; `sys.executable` gets code objects."""
    if python == sys.executable:
        # Each by itself: only what is imported is unpacked, and filters are when somebody filters.
        code = {name: marshal.dumps(SourceFileLoader(name, path).get_code(name)) for name, path in _modules()}
        return b"c" + zlib.compress(marshal.dumps(code | _packages()), 1)
    sources = {name: slim(_read(path)) for name, path in _modules()}
    return b"s" + zlib.compress(json.dumps(sources | _packages()).encode(), 9)


def sha256() -> str:
    """Names the agent's version."""
    return hashlib.sha256(build()).hexdigest()


def preamble(python: str | None = None) -> bytes:
    """What to write to the agent's standard input before the protocol begins."""
    kind, data = build(python)[:1], build(python)[1:]
    return kind + struct.pack("!I", len(data)) + data


def command(python: str, args: Mapping[str, object]) -> list[str]:
    """The command line that starts an agent; `args` are main.run's, as JSON."""
    return [python, "-I", "-S", "-u", "-X", "utf8", "-c", _text("stage0"), json.dumps(dict(args))]


def guard(python: str, name: str, first: int, another: int = 0) -> list[str]:
    """The command line of the main process of a container that agents are started in: seconds that it waits for the first of them,
    and for another after the last has ended."""
    return [python, "-I", "-S", "-c", _text("guard"), name, str(first), str(another)]


def _text(name: str) -> str:
    """A module as a short command line: without comments."""
    lines = _read(os.path.join(_folder(), "agent", f"{name}.py")).splitlines()
    return "\n".join(line.partition("  # ")[0] for line in lines if line.strip() and not line.startswith("#"))


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


def slim(text: str) -> str:
    """A module without its docstrings and its lines of comment, a fifth of what would be sent; lines keep their numbers.

    Docstrings stand alone on their lines and are written with three quotes, as everywhere in this project.
    """
    kept, inside = [], False
    for line in text.split("\n"):
        words = line.strip()
        if inside:
            inside = not words.endswith('"""')
            words = "#"
        elif words.startswith('"""'):
            inside = words.count('"""') == 1
            line = line.partition('"""')[0] + '""'
            words = ""
        kept.append("" if words.startswith("#") else line)
    return "\n".join(kept)


def _packages() -> dict[str, str]:
    return dict.fromkeys(("sidestage", *MODULES), "")


def _modules() -> Iterator[tuple[str, str]]:
    for package, names in MODULES.items():
        for name in names:
            yield f"{package}.{name}", os.path.join(_folder(), package.rpartition(".")[2], f"{name}.py")


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as source:
        return source.read()


def _folder() -> str:
    return os.path.dirname(sidestage.__file__)
