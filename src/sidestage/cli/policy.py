"""From the configuration to the decisions that trap asks for: the one place where all views' rules meet."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sidestage.cli.errors import UserError
from sidestage.config import Config
from sidestage.trap.ports import Decision
from sidestage.views import env as env_view
from sidestage.views.env import EnvRules
from sidestage.views.files import FilesPolicy, Mode
from sidestage.views.incoming import IncomingRules
from sidestage.views.names import Names
from sidestage.views.outgoing import AddressFilter, FilterError, OutgoingPolicy, OutgoingRules

# Compilers and their like ask for thousands of local files and listen for nobody; the same names as mirrord's. Debuggers read
# the program's files where they themselves are.
BUILD_TOOLS = frozenset(
    "as cc ld go air asm cc1 cc1plus cgo dlv gcc g++ git link math cargo hpack rustc compile collect2 cargo-watch "
    "debugserver jspawnhelper bazel-real clang clang++ gdb gdbserver lldb lldb-server lldb-dap lldb-mi".split()
)

# What the SDKs of AWS prefer to the role of a pod; hidden only where it is this machine's.
AWS_CREDENTIALS = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rules:
    env: EnvRules
    files: FilesPolicy
    incoming: IncomingRules
    outgoing: OutgoingRules


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the program runs: what is local follows from it."""

    home: str
    cwd: str
    executable: str
    tempdir: str
    search_path: Sequence[str]
    local: Sequence[str] = ()  # patterns besides the user's
    runs: bool = True  # can programs of the target be run there, if they may be?


def surroundings(command: Sequence[str]) -> Surroundings:
    """On this machine."""
    tempdir = os.environ.get("TMPDIR", "/tmp")
    executable = command[0] if os.path.exists(command[0]) else ""  # else it is one of the target
    return Surroundings(os.path.expanduser("~"), os.getcwd(), executable, tempdir, os.get_exec_path())


def files_policy(config: Config, at: Surroundings) -> FilesPolicy:
    """Raises re.error."""
    fs = config.feature.fs
    hidden = (f"^{re.escape(at.home)}/\\.aws(/|$)",) if config.feature.magic.aws else ()
    return FilesPolicy(
        Mode(fs.mode), read_write=fs.read_write, read_only=fs.read_only, local=(*fs.local, *at.local),
        not_found=(*fs.not_found, *hidden), execute=fs.execute if at.runs else (), mapping=dict(fs.mapping.items()),
        home=at.home, cwd=at.cwd, executable=at.executable, tempdir=at.tempdir, search_path=at.search_path,
    )  # fmt: skip


def rules(config: Config, command: Sequence[str], incoming: IncomingRules) -> Rules:
    """Raises UserError for a pattern or filter that can't be read."""
    feature, network = config.feature, config.feature.network
    try:
        files = files_policy(config, surroundings(command))
        outgoing = OutgoingRules(
            tcp=network.outgoing.tcp, udp=network.outgoing.udp, dns=network.dns.enabled,
            ignore_localhost=network.outgoing.ignore_localhost, unix_streams=network.outgoing.unix_streams,
            remote=tuple(AddressFilter.parse(text) for text in network.outgoing.filter.remote),
            local=tuple(AddressFilter.parse(text) for text in network.outgoing.filter.local),
            debugger_ports=incoming.debugger_ports,
        )  # fmt: skip
        for pattern in (*network.outgoing.unix_streams, *feature.env.mapping):
            re.compile(pattern)
    except (re.error, FilterError) as error:
        raise UserError(f"configuration: {error}", "correct the pattern or filter") from error
    env = EnvRules(
        include=feature.env.include, exclude=feature.env.exclude, override=feature.env.override,
        mapping=tuple(feature.env.mapping.items()), from_file=_env_file(feature.env.env_file),
        unset=feature.env.unset, hidden=AWS_CREDENTIALS if feature.magic.aws else (),
    )  # fmt: skip
    return Rules(env, files, incoming, outgoing)


def local_nameservers() -> list[str]:
    """Of this machine's resolv.conf(5)."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as lines:
            words = [line.split() for line in lines]
    except OSError:
        return []
    return [line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]


def _env_file(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as lines:
            return env_view.parse_env_file(lines.read())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {error}", "correct feature.env.env_file or --env-file") from error


def skip(config: Config) -> frozenset[str]:
    """Names of programs that run as if sidestage weren't there."""
    names = frozenset(config.skip_processes)
    return names | BUILD_TOOLS | frozenset(config.skip_extra_build_tools) if config.skip_build_tools else names


class SessionPolicy:
    """trap.ports.Policy, from the rules and what the agent said of the target."""

    def __init__(self, chosen: Rules, nameservers: Sequence[str]) -> None:
        self._names = Names()
        self._listen = chosen.incoming
        self._outgoing = OutgoingPolicy(chosen.outgoing, self._names, nameservers, local_nameservers())
        self.connect, self.unix = self._outgoing.connect, self._outgoing.unix
        self.files, self.writes = chosen.files, chosen.files.writes
        self.names = any(one.name for one in (*chosen.outgoing.remote, *chosen.outgoing.local))

    def path(self, path: str, write: bool) -> tuple[Decision, str]:
        return self.files.decide(path, write)

    def execute(self, path: str) -> bool:
        return self.files.execute(path)

    def listen(self, host: str, port: int) -> bool:
        return self._listen.listen(host, port)

    def local_port(self, port: int) -> int:
        return self._listen.listen_ports.get(port, port)

    def on_event(self, name: str, args: dict[str, Any]) -> None:
        """What session tells besides: names that it saw in DNS answers."""
        if name == "name":
            self._names.learn(args["name"], args["address"])
