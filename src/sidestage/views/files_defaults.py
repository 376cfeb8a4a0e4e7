"""Which paths are local, the target's or hidden when the user said nothing.

Every entry is a regular expression that is *searched* in the absolute path, ignoring case. The lists are those of mirrord 3.250,
with additions for a view from below libc: the loader and libc's own opens are seen here, and are this machine's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Name look-ups must reach port 53, where they become the target's: caching daemons of this machine would answer for it.
_NAME_SERVICES = (
    r"^(/var)?/run/nscd/socket$",
    r"^/run/systemd/resolve/io\.systemd\.Resolve(\.Monitor)?$",
)

_CREDENTIALS = (r"\.config/gcloud", r"\.kube", r"\.azure", r"\.aws")  # below $HOME: a "remote" process must not use them

READ_ONLY = (r"^/etc/(resolv\.conf|hosts|hostname)$", r"^/etc/ssl/certs(/|$)")

_TREES = (
    "proc sys lib lib32 lib64 libx32 etc usr home bin sbin dev opt tmp var/tmp var/db/timezone/zoneinfo var/cache/ldconfig "
    "var/cache/fontconfig snap run selinux nix"
).split()

_LOCAL = (
    rf"^/({'|'.join(_TREES)})(/|$)",
    r"^/$",
    r"[^/]\.so(\.\d+)*$",  # libfoo.so and, from ld.so, libfoo.so.6
    r"[^/]\.(sh|rb|d|pyc|py|jar|class|js|pth|plist)$",
    r"\.(pdb|dll)$",
    r"(venv|jvm)\.cfg$",
    r"/package\.json$",
    r"/\.yarnrc(\.yml|\.json)?$",
    r"/\.tool-versions$",
    r"^/Program Files",  # WSL
    r"/node_modules",
    r"\.asdf/",
    r"clr-.*-pipe-",  # .NET diagnostics
)

_PREFIX = ("bin", "lib", "lib64", "libexec", "share", "include")  # what an installation keeps beside its bin


def not_found(home: str) -> tuple[str, ...]:
    below = tuple(rf"{_start(home)}/{name}(/|$)" for name in _CREDENTIALS) if _is_real(home) else ()
    return _NAME_SERVICES + below


def local(home: str, cwd: str, executable: str, tempdir: str, search_path: Sequence[str] = ()) -> tuple[str, ...]:
    """The fixed list, and what follows from where the program is and runs."""
    computed = [rf"{_start(home)}/\."] if _is_real(home) else []
    computed += [_tree(path) for path in (cwd, tempdir, *search_path) if _is_real(path)]
    if executable.startswith("/"):
        computed.append(rf"{_start(executable)}$")
        prefix, _, directory = executable.rpartition("/")[0].rpartition("/")
        if directory == "bin" and prefix:
            computed += [_tree(f"{prefix}/{name}") for name in _PREFIX]
    return _LOCAL + tuple(computed)


def _is_real(path: str) -> bool:
    return path.startswith("/") and path.rstrip("/") != ""


def _start(path: str) -> str:
    return "^" + re.escape(path.rstrip("/"))


def _tree(path: str) -> str:
    return rf"{_start(path)}(/|$)"
