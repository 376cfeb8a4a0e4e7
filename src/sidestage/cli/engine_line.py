"""The command line of podman, as far as it must be understood to start a container plugged in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sidestage.cli.errors import UserError

# Options without a value (podman-run(1), podman(1)); all others have one, after = or as the next word.
_SWITCHES = frozenset(
    "--detach --disable-content-trust --env-host --help --http-proxy --init --interactive --no-healthcheck --no-hostname "
    "--no-hosts --oom-kill-disable --passwd --privileged --publish-all --quiet --read-only --read-only-tmpfs --replace --rm --rmi "
    "--rootfs --sig-proxy --tls-verify --tty --unsetenv-all".split()
)
_SHORT = frozenset("ditPq")  # the same as letters, which may stand together
_GLOBAL = frozenset("--help --noout --remote -r --syslog --trace --transient-store --version -v -h".split())
_ELSEWHERE = ("--remote", "-r", "--url", "--connection", "-c", "--identity")
_REMOTE_VARIABLES = ("CONTAINER_HOST", "CONTAINER_CONNECTION")
_NETWORKS = ("--network", "--net", "--pod", "--pod-id-file")
_REFUSED_ENGINES = {
    "docker": "docker starts containers through a daemon, which hands nothing over",
    "nerdctl": "nerdctl starts containers through a daemon, which hands nothing over",
    "docker-compose": "compose starts several containers through a daemon",
    "podman-compose": "podman-compose starts containers in the background",
    "podman-remote": "the container would run on another machine",
    "sudo": "sidestage must be an ancestor of what it plugs in",
}
_CURES = {"sudo": "put it before sidestage: sudo sidestage container ...", "podman-remote": "run sidestage there"}
_COMPOSED = "start this one service by podman: sidestage container -t TARGET -- podman run [--network ITS_NETWORK] IMAGE"


@dataclass(frozen=True, slots=True)
class EngineLine:
    engine: str
    general: Sequence[str]  # podman's own options
    options: Sequence[str]  # those of `run`
    rest: Sequence[str]  # the image and its command
    network: bool  # did the user say anything about the network?
    variables: tuple[str, ...]  # that the user sets; a trailing * stands for any end
    env_files: tuple[str, ...]

    def argv(self, engine: str, hooks: Sequence[str]) -> list[str]:
        """The command to be run; `hooks` are podman's folders of hooks."""
        general = [*self.general, *(f"--hooks-dir={folder}" for folder in hooks)]
        network = [] if self.network else ["--network=host"]
        return [engine, *general, "run", *network, *self.options, *self.rest]

    def sets(self, name: str) -> bool:
        return any(fnmatchcase(name, known) if known.endswith("*") else name == known for known in self.variables)

    @property
    def runtime(self) -> str:
        """The one that the user names."""
        named = [word.partition("=")[2] for word in self.general if word.startswith("--runtime=")]
        return named[-1] if named else ""

    @property
    def hooked(self) -> bool:
        """Has the user folders of hooks?"""
        return any(word.startswith("--hooks-dir=") for word in self.general)


def read(command: Sequence[str], environment: Mapping[str, str]) -> EngineLine:
    """Raises UserError."""
    engine = command[0]
    name = engine.rpartition("/")[2]
    if name != "podman":
        why = _REFUSED_ENGINES.get(name, f"{name} is no engine that is known here")
        raise UserError(f"{name}: {why}", _CURES.get(name, _COMPOSED if "compose" in name else "use podman run"), 2)
    general, words = _split(command[1:], _GLOBAL, frozenset())
    for word, _ in general:
        if word in _ELSEWHERE:
            raise UserError(f"podman {word}: the container would run on another machine", "run sidestage there", 2)
    for variable in _REMOTE_VARIABLES:
        if environment.get(variable):
            raise UserError(f"{variable} is set: the container would run on another machine", f"unset {variable}", 2)
    if words[:1] == ["container"]:
        words = words[1:]
    if words[:1] != ["run"]:
        what = f"podman {words[0]}" if words else "podman alone"
        cure = _COMPOSED if words[:1] == ["compose"] else "write: sidestage container -t TARGET -- podman run IMAGE"
        raise UserError(f"{what} can't be plugged in: only `podman run` starts one container in the foreground", cure, 2)
    options, rest = _split(words[1:], _SWITCHES, _SHORT)
    if ("--help", None) in options:
        raise UserError("podman run --help starts nothing", "run it without sidestage", 2)
    if not rest:
        raise UserError("podman run: no image", "write: sidestage container -t TARGET -- podman run IMAGE", 2)
    for word, value in options:
        if word in ("-d", "--detach") and value not in ("false", "0"):
            cure = "leave it out; `&` puts both in the background"
            raise UserError("podman run --detach: sidestage must stay as long as the container", cure, 2)
    return EngineLine(
        engine, _joined(general), _joined(options), rest,
        network=any(word in _NETWORKS for word, _ in options),
        variables=tuple((value or "").partition("=")[0] for word, value in options if word in ("-e", "--env")),
        env_files=tuple(value or "" for word, value in options if word == "--env-file"),
    )  # fmt: skip


Option = tuple[str, str | None]


def _split(words: Sequence[str], switches: frozenset[str], short: frozenset[str]) -> tuple[list[Option], list[str]]:
    """The options with their values, and what follows the last of them."""
    found: list[Option] = []
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, sep, value = word.partition("=")
            found.append((name, value if sep else None if name in switches or not left else left.pop(0)))
            continue
        while word != "-":
            letter, word = word[:2], "-" + word[2:]
            if letter in switches or letter[1] in short:
                if word.startswith("-="):
                    found.append((letter, word[2:]))
                    break
                found.append((letter, None))
            else:
                value = word[1:].removeprefix("=")
                found.append((letter, value if value or not left else left.pop(0)))
                break
    return found, left


def _joined(options: Sequence[Option]) -> list[str]:
    """So that no value can be taken for a word of its own."""
    return [name if value is None else f"{name}={value}" if name.startswith("--") else f"{name}{value}" for name, value in options]
