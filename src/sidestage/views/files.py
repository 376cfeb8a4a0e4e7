"""Whose file is a path: this machine's, the target's, or nobody's. Pure; first rule that applies decides.

relative           local, unless not_found matches (the working directory is always local)
mapping            rewrites the path, then the rest applies to the result
the user's lists   not_found, read_write, read_only, local
built-in lists     not found, read-only from the target, local
mode               localwithoverrides: local; read: the target's unless it is opened for writing; write: the target's
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from sidestage.trap.ports import Decision
from sidestage.views import files_defaults as defaults

MEMO = 16384  # decisions kept; then all are forgotten, since a walk over more paths than this seldom comes back

Verdict = tuple[Decision, str]  # the path is what `mapping` made of it


class Mode(Enum):
    LOCAL = "local"
    LOCAL_WITH_OVERRIDES = "localwithoverrides"
    READ = "read"
    WRITE = "write"


class FilesPolicy:
    def __init__(
        self,
        mode: Mode,
        *,
        read_write: Sequence[str] = (),
        read_only: Sequence[str] = (),
        local: Sequence[str] = (),
        not_found: Sequence[str] = (),
        mapping: Mapping[str, str] | None = None,
        home: str,
        cwd: str,
        executable: str,
        tempdir: str,
        search_path: Sequence[str] = (),
    ) -> None:
        self._mode = mode
        self._read_write, self._read_only = _any(read_write), _any(read_only)
        self._local, self._not_found = _any(local), _any(not_found)
        self._default_not_found = _joined(defaults.not_found(home))
        self._default_read_only = _joined(defaults.READ_ONLY)
        self._default_local = _joined(defaults.local(home, cwd, executable, tempdir, search_path))
        self._mapping = [(re.compile(k, re.I), _template(v)) for k, v in (mapping or {}).items()]
        self._reads: dict[str, Verdict] = {}
        self._writes: dict[str, Verdict] = {}

    def decide(self, path: str, write: bool) -> Verdict:
        memo = self._writes if write else self._reads
        verdict = memo.get(path)
        if verdict is None:
            if len(memo) >= MEMO:
                memo.clear()
            verdict = memo[path] = self._decide(path, write)
        return verdict

    def _decide(self, path: str, write: bool) -> Verdict:
        if self._mode is Mode.LOCAL:
            return Decision.LOCAL, path
        if not path.startswith("/"):
            hidden = self._not_found(path) or self._default_not_found(path)
            return (Decision.NOT_FOUND if hidden else Decision.LOCAL), path
        path = self._map(path)
        return self._rule(_plain(path), write), path

    def _map(self, path: str) -> str:
        for pattern, template in self._mapping:
            if pattern.search(path):
                return pattern.sub(template, path)
        return path

    def _rule(self, path: str, write: bool) -> Decision:
        for_reading = Decision.LOCAL if write else Decision.REMOTE
        rules: tuple[tuple[Callable[[str], bool], Decision], ...] = (
            (self._not_found, Decision.NOT_FOUND),
            (self._read_write, Decision.REMOTE),
            (self._read_only, for_reading),
            (self._local, Decision.LOCAL),
            (self._default_not_found, Decision.NOT_FOUND),
            (self._default_read_only, for_reading),
            (self._default_local, Decision.LOCAL),
        )
        for matches, decision in rules:
            if matches(path):
                return decision
        if self._mode is Mode.LOCAL_WITH_OVERRIDES:
            return Decision.LOCAL
        return Decision.REMOTE if self._mode is Mode.WRITE else for_reading


def _plain(path: str) -> str:
    """As the rules see it: /app/../etc/passwd must not pass for a file of /app."""
    return posixpath.normpath(path).replace("//", "/") if "//" in path or "/." in path else path


def _any(patterns: Sequence[str]) -> Callable[[str], bool]:
    """The user's, one by one: joined, their groups and flags would disturb each other."""
    compiled = [re.compile(pattern, re.I) for pattern in patterns]
    return lambda path: any(pattern.search(path) for pattern in compiled)


def _joined(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Ours. Those with `^` are tried at the start only: a search would try them at every character, at ten times the cost."""
    start, anywhere = (
        re.compile("|".join(f"(?:{pattern})" for pattern in patterns if pattern.startswith("^") is anchored) or r"(?!)", re.I)
        for anchored in (True, False)
    )
    match, search = start.match, anywhere.search
    return lambda path: match(path) is not None or search(path) is not None


def _template(replacement: str) -> str:
    r"""`$1` and `${name}`, as mirrord has them, to Python's `\g<..>`; `$$` is a dollar."""

    def group(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else rf"\g<{match[1] or match[2]}>"

    return re.sub(r"\$\$|\$(\d+|[A-Za-z_]\w*)|\$\{(\w+)\}", group, replacement.replace("\\", r"\\"))
