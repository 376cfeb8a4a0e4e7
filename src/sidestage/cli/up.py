"""`sidestage up`: services of yours, each plugged into its target, from one file; one Ctrl-C ends all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sidestage import config
from sidestage.cli import exec as run
from sidestage.cli.cluster import cluster_plan, shares
from sidestage.cli.errors import UserError
from sidestage.cli.incoming import incoming_rules
from sidestage.cli.options import ExecOptions, Parser, add_agent_flags, add_cluster_flags, agent_keys, cluster_keys
from sidestage.cli.progress import clean
from sidestage.cluster.plan import Plan
from sidestage.config import ConfigError
from sidestage.session import MARK
from sidestage.trap import kernel
from sidestage.up import file
from sidestage.up.file import Service
from sidestage.up.run import Part, Runner, Spawn
from sidestage.up.watch import MAX_FILES, Watch

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


def parser() -> Parser:
    made = Parser(prog="sidestage up", description=__doc__, epilog="`sidestage up init` writes a file to begin with.")
    add = made.add_argument
    add("services", nargs="*", metavar="SERVICE", help="only these")
    add("-f", "--file", default=file.NAME, help=f"default: {file.NAME}")
    add("--watch", action="store_true", help="start a service again when files change that its `watch` names")
    add_cluster_flags(made, file=False)
    add("-k", "--key", metavar="KEY", help="names the sessions")
    add_agent_flags(made)
    add("--debug", action="store_true", help="tracebacks of our own errors")
    return made


def main(argv: list[str]) -> int:
    """Raises UserError."""
    given = parser().parse_args(argv)
    path = Path(given.file)
    if given.services == ["init"]:
        return _init(path)
    if MARK in os.environ:
        raise UserError("this shell already runs inside `sidestage exec`", "leave it first")
    if not path.exists():
        raise UserError(f"{path}: no such file", "`sidestage up init` writes one to begin with; or name yours with -f")
    try:
        services = file.choose(file.load(path), given.services)
    except ConfigError as error:
        raise UserError(str(error), f"correct {path}, or the command line") from error
    if given.watch and not any(service.watch for service in services.values()):
        raise UserError("--watch, but no service says what to watch", 'add e.g. `watch: ["**/*.py"]` to it')
    if given.kubeconfig:
        given.kubeconfig = _absolute(given.kubeconfig)
    if "KUBECONFIG" in os.environ:
        os.environ["KUBECONFIG"] = _absolute(os.environ["KUBECONFIG"])
    keys = cluster_keys(given) | agent_keys(given) | ({"key": given.key} if given.key else {})
    plans = [plan for service in services.values() if (plan := _plan(service, keys))]
    _once(bool(plans))
    pool, lent = _pool(plans, given.debug)
    parts = [_part(name, service, given.watch, keys, pool, given.debug) for name, service in services.items()]
    shown = Shown(list(services))
    for part in parts:
        if part.watch and part.watch.full:
            shown(part.name, "say", f"only the first {MAX_FILES} files are watched".encode())
    try:
        return Runner(parts, shown).run()
    finally:
        if lent:
            lent.close()  # all that it has made goes


def _absolute(paths: str) -> str:
    """Services run in folders of their own."""
    return os.pathsep.join(os.path.abspath(os.path.expanduser(each)) for each in paths.split(os.pathsep) if each)


def _once(cluster: bool) -> None:
    """What each service would import and make for itself, before they are forked: a third of a second of a processor for each."""
    import sidestage.cli.policy
    import sidestage.session.main
    import sidestage.trap
    import sidestage.views.env

    if cluster:
        import sidestage.cluster.keeper  # noqa: F401
        from sidestage.agent import payload

        payload.preamble()


def _pool(plans: Sequence[Plan], debug: bool) -> tuple[str, socket.socket | None]:
    """The process that keeps the agents' Jobs, where two or more services could share one."""
    sharing = [plan for plan in plans if shares(plan)]
    if len(sharing) < 2:
        return "", None
    from sidestage.cluster import pool

    name = os.urandom(8).hex()
    return name, pool.start(name, sharing, debug)


def _plan(service: Service, keys: Mapping[str, Any]) -> Plan | None:
    """What the service is going to ask of a cluster; None where it isn't clear, which is its own business to say."""
    try:
        with contextlib.chdir(service.dir):
            settings = config.load(None, {**service.overrides(), **keys}, say=lambda _: None)
            if not settings.target.path:
                return None
            spec = run.target_of(settings)
            return cluster_plan(settings, spec, "", incoming_rules(settings, service.command, spec.kind == "targetless"))
    except (ConfigError, UserError, OSError):
        return None


class Shown:
    """Lines behind the name of who printed them, in a colour of its own on a terminal."""

    def __init__(self, names: list[str]) -> None:
        self._width = max(map(len, names))
        self._colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}

    def __call__(self, name: str, stream: str, line: bytes) -> None:
        to = sys.stdout if stream == "out" else sys.stderr
        prefix = f"{name:{self._width}} | "
        if to.isatty() and "NO_COLOR" not in os.environ:
            prefix = f"\x1b[{self._colours[name]}m{prefix}\x1b[0m"
        text = b"sidestage: " + clean(line.decode()).encode() if stream == "say" else line
        to.buffer.write(prefix.encode() + text + b"\n")
        to.flush()


def _part(name: str, service: Service, watch: bool, keys: Mapping[str, Any], pool: str, debug: bool) -> Part:
    """`keys` of the command line come before what the file says."""
    looks = Watch(service.dir, service.watch) if watch and service.watch else None
    overrides = {**service.overrides(), **keys}
    options = ExecOptions(list(service.command), overrides=overrides, output="plain", debug=debug, service=name, pool=pool)
    return Part(name, _spawn(service, options, debug), service.restart, service.grace, looks)


def _spawn(service: Service, options: ExecOptions, debug: bool) -> Spawn:

    def spawn(out: int, err: int) -> int:
        """`sidestage exec` in a process of its own, which ends when we do: nobody else would end it."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            _become(out, err, parent)
            os.chdir(service.dir)
            code = run.main(options)
        except UserError as error:
            print(clean(str(error)), file=sys.stderr)
            code = error.exit_code
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            if debug:
                import traceback

                traceback.print_exc()
            else:
                print(f"sidestage: internal error: {error!r}\n  run again with --debug, and report it", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    return spawn


def _become(out: int, err: int, parent: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()  # the terminal's Ctrl-C is ours alone
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(143)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, standard in ((null, 0), (out, 1), (err, 2)):
        os.dup2(fd, standard)
    os.closerange(3, 1 << 16)


def _init(path: Path) -> int:
    try:
        with open(path, "x", encoding="utf-8") as made:
            made.write(file.TEMPLATE)
    except FileExistsError:
        raise UserError(f"{path}: there is one already", "name another with -f, or remove it") from None
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror}", "choose another place with -f") from error
    print(f"{path}: written; now say in it what your services are")
    return 0
