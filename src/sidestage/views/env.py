"""Which environment the program gets: the target's variables over the local ones, after the user's rules.

Order (as mirrord's users know it): the target's variables, filtered -> env_file -> mapping -> override, all over the local
environment; then `unset`. A target is not trusted to run code here: what loaders and interpreters obey is never taken
unless `include` names it exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

# Belongs to the machine or the user rather than to the service: the target's value would only break the program here.
LOCAL_BY_NATURE = (
    "PATH", "HOME", "HOMEPATH", "PWD", "OLDPWD", "TMPDIR", "TERM", "USER", "LOGNAME", "SHELL", "SHLVL", "_", "CLASSPATH",
    "GEM_HOME", "GEM_PATH", "GOPATH", "GOROOT", "GOMODCACHE", "GODEBUG", "RUST_LOG", "JAVA_HOME", "JAVA_EXE",
    "CATALINA_HOME", "BUNDLER_*", "BUNDLE_*", "VIRTUAL_ENV", "CONDA_*", "DOTNET_ROOT", "NODE_ENV", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "KUBECONFIG", "DOCKER_HOST", "SSH_AUTH_SOCK", "MIRRORD_*", "SIDESTAGE_*",
)  # fmt: skip
# Makes some program here load or run what the target says: code execution by whoever sets variables in the cluster.
RUNS_CODE = (
    "LD_*", "DYLD_*", "GCONV_PATH", "PYTHON*", "NODE_OPTIONS", "NODE_PATH", "BASH_ENV", "ENV", "PROMPT_COMMAND", "GIT_*",
    "PERL5*", "PERLLIB", "RUBYLIB", "RUBYOPT", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "EDITOR",
    "VISUAL", "PAGER", "BROWSER", "DOTNET_STARTUP_HOOKS", "DOTNET_EnableDiagnostics", "COMPLUS_EnableDiagnostics",
    "CORECLR_*", "PHPRC", "PHP_INI_SCAN_DIR", "LUA_PATH*", "LUA_CPATH*", "R_PROFILE*", "GLIBC_TUNABLES", "MALLOC_*",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")


@dataclass(frozen=True, slots=True)
class EnvRules:
    include: tuple[str, ...] = ()  # wildcards * and ?, case-sensitive; none means all
    exclude: tuple[str, ...] = ()
    override: Mapping[str, str] = field(default_factory=dict)
    mapping: tuple[tuple[str, str], ...] = ()  # (regex on the name, value), first match
    unset: tuple[str, ...] = ()  # case-insensitive
    from_file: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()  # of this machine: not passed on
    enabled: bool = True


def parse(raw: bytes) -> dict[str, str]:
    """`/proc/PID/environ` (proc_pid_environ(5)): NUL-separated K=V; what is not that is left out."""
    pairs = (item.decode(errors="surrogateescape").partition("=") for item in raw.split(b"\0") if item)
    return {name: value for name, sep, value in pairs if sep and _NAME.match(name)}


def parse_env_file(text: str) -> dict[str, str]:
    """A dotenv file: K=V lines, `export`, `#` comments, single or double quotes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, sep, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not sep or not _NAME.match(name):
            continue
        if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1:
            value = value[1:-1]
        else:
            value = value.split(" #", 1)[0].rstrip()
        found[name] = value
    return found


def taken(name: str, rules: EnvRules) -> bool:
    """Is the target's variable `name` given to the program?"""
    if not rules.enabled or _any(name, rules.exclude):
        return False
    if name in rules.include:
        return True
    if _any(name, LOCAL_BY_NATURE) or _any(name, RUNS_CODE):
        return False
    return not rules.include or _any(name, rules.include)


def compose(local: Mapping[str, str], remote: Mapping[str, str], rules: EnvRules) -> dict[str, str]:
    """The program's environment."""
    ours = {name: value for name, value in remote.items() if taken(name, rules)}
    ours.update(rules.from_file)
    for name in ours:
        for pattern, value in rules.mapping:
            if re.search(pattern, name):
                ours[name] = value
                break
    passed = {name: value for name, value in local.items() if name not in rules.hidden}
    result = {**passed, **ours, **rules.override}
    unset = {name.upper() for name in rules.unset}
    return {name: value for name, value in result.items() if name.upper() not in unset}


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
