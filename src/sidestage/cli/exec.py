"""`sidestage exec`: the story of one run, from a target's name to the program's exit status."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sidestage import config
from sidestage.cli.cluster import cluster_plan
from sidestage.cli.errors import UserError
from sidestage.cli.incoming import incoming_rules
from sidestage.cli.names import name_rules
from sidestage.cli.options import ExecOptions
from sidestage.cli.progress import Progress
from sidestage.cluster import child, plug
from sidestage.session import MARK
from sidestage.targets.spec import TargetError, TargetSpec, parse

if TYPE_CHECKING:
    from sidestage.cli.container import Container
    from sidestage.cli.diff import DiffSummary
    from sidestage.session.watch import Wish
    from sidestage.views.dns import NameRules
    from sidestage.views.incoming import IncomingRules

START_TIMEOUT = 60.0  # seconds until the session must have begun, besides agent.startup_timeout; its own waits say more
MAX_BEGIN = 1 << 16
RUNTIMES = frozenset({"crun", "runc"})  # their own calls in a container, between the filter and the program, aren't the program's
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what a shell answers (POSIX 2.8.2)


def main(options: ExecOptions) -> int:
    """Run the command plugged into the target; returns its exit status. Raises UserError."""
    _refuse_nested()
    progress = Progress(options.output)
    try:
        settings = config.load(options.config_file, options.overrides, say=progress.warn)
    except config.ConfigError as error:
        raise UserError(str(error), "`sidestage verify-config FILE` checks it") from error
    box = _container(options)
    try:
        return _run(options, settings, progress, box)
    finally:
        if box:
            box.discard()


def _container(options: ExecOptions) -> Container | None:
    if not options.container:
        return None
    from sidestage.cli.container import container

    return container(options.command, _find)


def _run(options: ExecOptions, settings: config.Config, progress: Progress, box: Container | None) -> int:
    command = box.argv if box else [_find(options.command[0], settings.feature.fs), *options.command[1:]]
    spec = TargetSpec("replay", options.replay) if options.replay else target_of(settings)
    incoming = incoming_rules(settings, command, spec.kind == "targetless")
    names, named = name_rules(settings, progress.warn)
    summary = _summary(settings, incoming, options.output)
    session = os.urandom(8).hex()
    name = str(spec)
    with progress.task(f"plugging into {name}"):
        ours, child = _start_session(settings, spec, session, incoming, command, options, names, named, box)
        try:
            # Imported while the session process starts the agent: together they take half of the time.
            from sidestage import trap
            from sidestage.cli.policy import SessionPolicy, rules, skip
            from sidestage.views import env as env_view

            chosen = rules(settings, command, incoming)
            begin, remote_env = _begin(ours, progress, settings.agent.startup_timeout)
        except BaseException:
            ours.close()
            os.kill(child, signal.SIGTERM)  # it may wait long for something that nobody needs any more
            _wait(child)
            raise
    if begin["note"]:
        progress.warn(begin["note"])
    policy = SessionPolicy(chosen, begin["nameservers"])

    def on_event(name: str, args: dict[str, Any]) -> None:
        policy.on_event(name, args)
        if summary:
            summary.on_event(name, args)

    env = env_view.compose({} if box else os.environ, env_view.parse(remote_env), chosen.env)
    env[MARK] = session
    if box:
        box.prepare(settings, policy, env, progress.warn)
        command, env = box.argv, box.env
    if options.ui:
        from sidestage.cli.ui import beside

        progress.say(f"live at {beside(session)}")
    progress.ready(f"{command[0]} runs as {begin['hostname']} ({name})")
    try:
        status = trap.run(
            command,
            env=env,
            policy=policy,
            broker=ours,
            begin=trap.Begin(
                hostname=begin["hostname"] if settings.feature.hostname else "",
                addresses=tuple(begin["addresses"]),
                nameservers=tuple(begin["nameservers"]),
                root=begin["root"],
                opener=begin["opener"],
            ),
            say=progress.warn,
            on_event=on_event,
            files=settings.feature.fs.mode != "local",
            skip=skip(settings) | RUNTIMES if box else skip(settings),
            box=box,
        )
    except trap.LaunchError as error:
        raise UserError(str(error), "nothing was left running", error.status) from error
    finally:
        ours.close()
        _wait(child)
    return summary.finish(status) if summary else status


def _summary(settings: config.Config, incoming: IncomingRules, output: str) -> DiffSummary | None:
    diff = settings.feature.diff
    if not diff.enabled:
        return None
    from sidestage.cli.diff import DiffSummary, check

    check(diff, incoming)
    return DiffSummary(diff, output == "json")


def _wish(settings: config.Config, options: ExecOptions) -> Wish:
    from sidestage.session.watch import Wish

    diff = settings.feature.diff
    answers = bool(diff.enabled or options.ui or options.record)
    return Wish(answers=answers, compare=diff.enabled, ignore=diff.ignore, count=diff.count)


def _refuse_nested() -> None:
    if MARK in os.environ:
        raise UserError(
            "this shell already runs inside `sidestage exec`; one program can't be plugged in twice",
            "leave it first, or run the inner command directly: it is plugged in already",
        )


def _find(name: str, fs: config.schema.Fs | None = None) -> str:
    """The path of a command, as a shell finds it; one that only the target has must be allowed to run here."""
    if fs and name.startswith("/") and not os.path.exists(name) and fs.mode != "local" and _allowed(name, fs.execute):
        return name
    places = [name] if "/" in name else [os.path.join(folder, name) for folder in os.get_exec_path()]
    files = [place for place in places if os.path.isfile(place)]
    for place in files:
        if os.access(place, os.X_OK):
            return place
    if files:
        raise UserError(f"{name}: not executable", f"chmod +x {files[0]}, or name its interpreter", NOT_EXECUTABLE)
    raise UserError(f"{name}: command not found", "check the spelling and PATH; nothing was started", NOT_FOUND)


def _allowed(name: str, patterns: Sequence[str]) -> bool:
    try:
        return any(re.search(pattern, name, re.I) for pattern in patterns)
    except re.error:
        return False  # it is told with the other patterns


def target_of(settings: config.Config) -> TargetSpec:
    """Raises UserError."""
    path = settings.target.path
    if not path:
        from sidestage.cli import choose

        if not choose.asked():
            raise UserError("no target", "name one: -t deployment/NAME, -t process/PID, -t container/NAME or -t targetless")
        path = choose.target(settings)
    try:
        return parse(path, settings.target.namespace)
    except TargetError as error:
        raise UserError(error.cause, error.cure) from error


def _start_session(
    settings: config.Config, spec: TargetSpec, session: str, incoming: IncomingRules, command: list[str], options: ExecOptions,
    names: NameRules, named: bool, box: Container | None,
) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    debug = options.debug

    def session_runs() -> None:
        ours.close()
        plan = cluster_plan(settings, spec, session, incoming, options.pool)
        kept = plug.start(plan, debug) if plan else None  # first of all: the cluster takes longest
        from sidestage.session.main import SessionOptions, serve

        files = settings.feature.fs.mode != "local"
        agent = settings.agent
        about = {
            "target": str(spec), "command": command, "key": settings.key, "folder": os.getcwd(),
            **({"service": options.service} if options.service else {}),
        }  # fmt: skip
        told = SessionOptions(
            spec, session, agent.python or None, files, incoming, agent.heartbeat, agent.silence,
            about, _wish(settings, options), os.path.abspath(options.record) if options.record else "", options.secrets,
            names=names, named=named,
            writable=settings.feature.fs.mode == "write" or bool(settings.feature.fs.read_write),
            executable=bool(settings.feature.fs.execute),
            inside=box.inside if box else 0, folder=box.folder if box else "",
        )  # fmt: skip
        serve(theirs, told, kept, debug=debug)

    pid = child.fork(session_runs, debug)
    theirs.close()
    return ours, pid


def _begin(sock: socket.socket, progress: Progress, timeout: float) -> tuple[dict[str, Any], bytes]:
    """Wait for the session's `begin`: what the agent said of the target, and the target's environment."""
    from sidestage.trap.broker import decode

    sock.settimeout(START_TIMEOUT + timeout)
    said = ""
    try:
        while True:
            data, fds, _flags, _addr = socket.recv_fds(sock, MAX_BEGIN, 3)
            for fd in fds:
                os.set_inheritable(fd, False)  # what arrives is not closed on exec, unlike all that Python opens
            message = decode(data) if data else {"ev": "lost", "text": said or "the session ended while starting"}
            event = message["ev"]
            if event == "failed":
                raise UserError(message["cause"], message["cure"])
            if event == "lost":
                raise UserError(message["text"], "run again with --debug to see why")
            if event == "begin":
                break
            if event == "phase":
                progress.phase(message["text"])
            elif event == "say":
                progress.warn(message["text"])
            said = message.get("text", said)
    except TimeoutError:
        raise UserError(
            f"the agent did not begin within {START_TIMEOUT + timeout:.0f} s", "run again with --debug to see where it stops"
        ) from None
    sock.settimeout(None)
    with open(fds[0], "rb") as env:
        env.seek(0)
        raw = env.read()
    message["root"], message["opener"] = [*fds[1:], -1, -1][:2]
    return message, raw


def _wait(child: int) -> None:
    """The session ends when our socket does; nothing may be left, so it is not asked twice."""
    def give_up(*_: object) -> None:
        os.kill(child, signal.SIGKILL)

    previous: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
