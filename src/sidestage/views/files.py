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
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from sidestage.trap.ports import Decision
from sidestage.views import files_defaults as defaults

MEMO = 16384  # decisions kept; then all are forgotten, since a walk over more paths than this seldom comes back

Verdict = tuple[Decision, str]  # the path is what `mapping` made of it
Matches = Callable[[str], bool]
_FOR_READING = None  # the target's when it is opened for reading, else local


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
        execute: Sequence[str] = (),
        mapping: Mapping[str, str] | None = None,
        home: str,
        cwd: str,
        executable: str,
        tempdir: str,
        search_path: Sequence[str] = (),
    ) -> None:
        self._mode = mode
        self.writes = mode is Mode.WRITE or (mode is not Mode.LOCAL and bool(read_write))  # may any path be remote for writing?
        hidden, default_hidden = _any(not_found), _joined(defaults.not_found(home))
        rules: tuple[tuple[Matches | None, Decision | None], ...] = (
            (hidden, Decision.NOT_FOUND),
            (_any(read_write), Decision.REMOTE),
            (_any(read_only), _FOR_READING),
            (_any(local), Decision.LOCAL),
            (default_hidden, Decision.NOT_FOUND),
            (_joined(defaults.READ_ONLY), _FOR_READING),
            (_joined(defaults.local(home, cwd, executable, tempdir, search_path)), Decision.LOCAL),
        )
        self._hidden = [matches for matches in (hidden, default_hidden) if matches]
        self._rules = [(matches, decision) for matches, decision in rules if matches]
        self._mapping = [(found := re.compile(k, re.I), _template(v, found)) for k, v in (mapping or {}).items()]
        self.execute: Matches = _any(execute) or (lambda path: False)  # may this program of the target be run here?
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
            hidden = any(matches(path) for matches in self._hidden)
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
        for matches, decision in self._rules:
            if matches(path):
                return decision or for_reading
        if self._mode is Mode.LOCAL_WITH_OVERRIDES:
            return Decision.LOCAL
        return Decision.REMOTE if self._mode is Mode.WRITE else for_reading


def _plain(path: str) -> str:
    """As the rules see it: /app/../etc/passwd must not pass for a file of /app."""
    return posixpath.normpath(path).replace("//", "/") if "//" in path or "/." in path else path


def _any(patterns: Sequence[str]) -> Matches | None:
    """The user's, one by one: joined, their groups and flags would disturb each other."""
    if not patterns:
        return None
    compiled = [re.compile(pattern, re.I) for pattern in patterns]
    return lambda path: any(pattern.search(path) for pattern in compiled)


def _joined(patterns: Sequence[str]) -> Matches:
    """Ours. Those with `^` are tried at the start only: a search would try them at every character, at ten times the cost."""
    match = _compiled(pattern for pattern in patterns if pattern.startswith("^")).match
    anywhere = [pattern for pattern in patterns if not pattern.startswith("^")]
    if not anywhere:
        return lambda path: match(path) is not None
    search = _compiled(anywhere).search
    return lambda path: match(path) is not None or search(path) is not None


def _compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or "(?!)", re.I)


def _template(replacement: str, pattern: re.Pattern[str]) -> str:
    r"""`$1` and `${name}`, as mirrord has them, to Python's `\g<..>`; `$$` is a dollar, a group that isn't there is nothing."""

    def group(match: re.Match[str]) -> str:
        name = match[1] or match[2] or ""
        if match[0] == "$$":
            return "$"
        known = int(name) <= pattern.groups if name.isdecimal() else name in pattern.groupindex
        return rf"\g<{name}>" if known else ""

    return re.sub(r"\$\$|\$(\d+|[A-Za-z_]\w*)|\$\{(\w+)\}", group, replacement.replace("\\", r"\\"))
