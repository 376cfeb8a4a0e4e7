"""The command line of podman or docker, as far as it must be understood to start a container plugged in. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sidestage.cli.errors import UserError

Option = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Grammar:
    """Options without a value; all others have one, after = or as the next word."""

    general: Collection[str]  # before `run`
    run: Collection[str]
    short: Collection[str]  # the same as letters, which may stand together
    networks: Collection[str]  # by which the user says something about the network
    elsewhere: Collection[str] = ()  # before `run`: they lead to another machine
    elsewhere_variables: Collection[str] = ()
    restarts: bool = False  # does the engine itself start a container again?


_SWITCHES = frozenset(  # of both
    "--detach --disable-content-trust --help --init --interactive --no-healthcheck --oom-kill-disable --privileged --publish-all "
    "--quiet --read-only --rm --sig-proxy --tty".split()
)
PODMAN = Grammar(  # podman(1), podman-run(1)
    general="--help --noout --remote -r --syslog --trace --transient-store --version -v -h".split(),
    run=_SWITCHES | frozenset(
        "--env-host --http-proxy --no-hostname --no-hosts --passwd --read-only-tmpfs --replace --rmi --rootfs --tls-verify "
        "--unsetenv-all".split()
    ),
    short="ditPq",
    networks=("--network", "--net", "--pod", "--pod-id-file"),
    elsewhere=("--remote", "-r", "--url", "--connection", "-c", "--identity"),
    elsewhere_variables=("CONTAINER_HOST", "CONTAINER_CONNECTION"),
)  # fmt: skip
DOCKER = Grammar(  # docker(1), docker-run(1); where its daemon is only docker itself knows
    general="--debug -D --help --tls --tlsverify --version -v".split(),
    run=_SWITCHES | {"--use-api-socket"}, short="ditPq", networks=("--network", "--net"), restarts=True,
)  # fmt: skip
_GRAMMARS = {"podman": PODMAN, "docker": DOCKER}
_REFUSED_ENGINES = {
    "nerdctl": "nerdctl's containers can't be plugged in yet",
    "docker-compose": "compose starts several containers, in the background",
    "podman-compose": "podman-compose starts containers in the background",
    "podman-remote": "the container would run on another machine",
    "sudo": "sidestage must be an ancestor of what it plugs in",
}
_CURES = {"sudo": "put it before sidestage: sudo sidestage container ...", "podman-remote": "run sidestage there"}
_COMPOSED = "start this one service by itself: sidestage container -t TARGET -- {} run [--network ITS_NETWORK] IMAGE"


@dataclass(frozen=True, slots=True)
class EngineLine:
    engine: str
    name: str  # podman or docker
    general: Sequence[str]  # the engine's own options
    options: Sequence[Option]  # those of `run`
    rest: Sequence[str]  # the image and its command
    network: bool  # did the user say anything about the network?
    variables: tuple[str, ...]  # that the user sets; a trailing * stands for any end
    env_files: tuple[str, ...]

    def argv(
        self, engine: str, general: Sequence[str] = (), ours: Sequence[str] = (), without: Collection[Option] = ()
    ) -> list[str]:
        """The command to be run, with `general` for the engine itself and `ours` for `run`, before the user's own."""
        network = [] if self.network else ["--network=host"]
        options = _joined([option for option in self.options if option not in without])
        return [engine, *self.general, *general, "run", *network, *ours, *options, *self.rest]

    def sets(self, name: str) -> bool:
        return any(fnmatchcase(name, known) if known.endswith("*") else name == known for known in self.variables)

    def switched(self, name: str) -> bool:
        """A switch's last word counts; `--name=false` is its opposite."""
        said = [value for word, value in self.options if word == name]
        return bool(said) and said[-1] not in ("false", "0", "f", "F", "FALSE", "False")

    def values(self, *names: str) -> list[str]:
        return [value or "" for word, value in self.options if word in names]

    @property
    def runtime(self) -> str:
        """The one that the user names: podman's own option, docker's of `run`."""
        named = [word.partition("=")[2] for word in self.general if word.startswith("--runtime=")] + self.values("--runtime")
        return named[-1] if named else ""

    @property
    def hooked(self) -> bool:
        """Has the user folders of hooks?"""
        return any(word.startswith("--hooks-dir=") for word in self.general)

    @property
    def seccomp(self) -> list[Option]:
        """What the user says of the container's seccomp profile; the last counts."""
        said = [(word, value) for word, value in self.options if word == "--security-opt"]
        return [(word, value) for word, value in said if value and value.startswith(("seccomp=", "seccomp:"))]


def read(command: Sequence[str], environment: Mapping[str, str]) -> EngineLine:
    """Raises UserError."""
    engine = command[0]
    name = engine.rpartition("/")[2]
    grammar = _GRAMMARS.get(name)
    if not grammar:
        why = _REFUSED_ENGINES.get(name, f"{name} is no engine that is known here")
        cure = _COMPOSED.format(name.partition("-")[0]) if "compose" in name else "use podman run or docker run"
        raise UserError(f"{name}: {why}", _CURES.get(name, cure), 2)
    general, words = _split(command[1:], grammar.general, frozenset())
    for word, _ in general:
        if word in grammar.elsewhere:
            raise UserError(f"{name} {word}: the container would run on another machine", "run sidestage there", 2)
    for variable in grammar.elsewhere_variables:
        if environment.get(variable):
            raise UserError(f"{variable} is set: the container would run on another machine", f"unset {variable}", 2)
    if words[:1] == ["container"]:
        words = words[1:]
    example = f"write: sidestage container -t TARGET -- {name} run IMAGE"
    if words[:1] != ["run"]:
        what = f"{name} {words[0]}" if words else f"{name} alone"
        cure = _COMPOSED.format(name) if words[:1] == ["compose"] else example
        raise UserError(f"{what} can't be plugged in: only `{name} run` starts one container in the foreground", cure, 2)
    options, rest = _split(words[1:], grammar.run, grammar.short)
    if ("--help", None) in options:
        raise UserError(f"{name} run --help starts nothing", "run it without sidestage", 2)
    if not rest:
        raise UserError(f"{name} run: no image", example, 2)
    for word, value in options:
        if word in ("-d", "--detach") and value not in ("false", "0"):
            cure = "leave it out; `&` puts both in the background"
            raise UserError(f"{name} run --detach: sidestage must stay as long as the container", cure, 2)
        if grammar.restarts and word == "--restart" and value not in ("no", ""):
            cure = "leave it out: the container is plugged in for one run"
            raise UserError(f"{name} run --restart={value}: it would be started again without sidestage", cure, 2)
    return EngineLine(
        engine, name, _joined(general), options, rest,
        network=any(word in grammar.networks for word, _ in options),
        variables=tuple((value or "").partition("=")[0] for word, value in options if word in ("-e", "--env")),
        env_files=tuple(value or "" for word, value in options if word == "--env-file"),
    )  # fmt: skip


def _split(words: Sequence[str], switches: Collection[str], short: Collection[str]) -> tuple[list[Option], list[str]]:
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
