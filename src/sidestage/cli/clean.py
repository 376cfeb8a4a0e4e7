"""`sidestage clean`: agents that were left over, in the cluster and on this machine; told, and removed.

Nothing should be: an agent ends with its session, whatever becomes of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator

from sidestage import config
from sidestage.cli.cluster import api
from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser, add_cluster_flags, cluster_keys
from sidestage.cli.progress import clean
from sidestage.cluster import lease
from sidestage.session.follow import sessions
from sidestage.targets.spec import TargetError

GRACE = 20.0  # seconds for an agent to see the target's clients off, and to end by itself


def parser() -> Parser:
    made = Parser(prog="sidestage clean", description=__doc__)
    add_cluster_flags(made)
    add = made.add_argument
    add("-A", "--all-namespaces", action="store_true", help="look in all namespaces")
    add("--all", action="store_true", help="agents of others too, and of sessions that still run: those lose their target")
    add("--dry-run", action="store_true", help="tell, and remove nothing")
    add("--local", action="store_true", help="this machine alone, no cluster")
    add("--debug", action="store_true", help="tracebacks of our own errors")
    return made


def main(argv: list[str]) -> int:
    """Raises UserError."""
    given = parser().parse_args(argv)
    living = [*sessions(), *lease.pools()]
    _local(living, given.dry_run)
    if given.local:
        return 0
    try:
        settings = config.load(given.config_file, cluster_keys(given), say=_say)
    except config.ConfigError as error:
        raise UserError(str(error), "`sidestage verify-config FILE` checks it") from error
    try:
        return _cluster(settings, given.all_namespaces, given.all, given.dry_run, living)
    except TargetError as error:
        raise UserError(error.cause, error.cure) from error


def _say(text: str) -> None:
    print(f"sidestage: {text}", file=sys.stderr)


def _local(living: Collection[str], dry: bool) -> None:
    found = dict(agents(living))
    ends = time.monotonic() + (0 if dry else GRACE)
    while found and time.monotonic() < ends:
        time.sleep(0.2)
        found = {pid: session for pid, session in agents(living) if found.get(pid) == session}
    for pid, session in found.items():
        if not dry:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        print(f"process {pid}, an agent whose session {session} has ended: {'would be' if dry else 'was'} killed")
    if not found:
        print("nothing is left on this machine")


def _cluster(settings: config.Config, everywhere: bool, all_of_them: bool, dry: bool, living: Collection[str]) -> int:
    from sidestage.cluster import leftover
    from sidestage.cluster.errors import ApiError
    from sidestage.cluster.job import owner

    me, failed, others, count = owner(), 0, 0, 0
    with api(settings) as client:
        namespace = "" if everywhere else client.namespace
        for found in list(leftover.jobs(client, namespace)):
            if not (all_of_them or leftover.ours(found, me, living)):
                others += 1
                continue
            count += 1
            about = f"{found.namespace}/{found.name}  {age(found.age)}  {found.state}  {found.user}  {found.target}"
            if dry:
                print(clean(f"{about}: would be removed"))
                continue
            try:
                gone = leftover.remove(client, found)
            except ApiError as error:
                failed += 1
                print(clean(f"{about}: can't be removed: {error.message}"), file=sys.stderr)
            else:
                print(clean(f"{about}: {'removed' if gone else 'has gone by itself'}"))
    where = "the cluster" if everywhere else f"namespace {namespace}"
    if not count:
        print(f"nothing is left in {where}")
    if others:
        agents = "agent" if others == 1 else "agents"
        print(f"{others} {agents} of others or of sessions that run in {where}: --all removes those too")
    return 1 if failed else 0


def agents(living: Collection[str]) -> Iterator[tuple[int, str]]:
    """Our agents on this machine that nobody waits for: their session has ended, and so has the process that started them."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue
            session = agent_of(_read(f"/proc/{pid}/cmdline"))
            if session and session not in living:
                parent = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1].decode()
                if b"sidestage" not in _read(f"/proc/{parent}/cmdline"):
                    yield int(pid), session
        except OSError:
            continue  # it has ended meanwhile


def agent_of(cmdline: bytes) -> str:
    """The session of an agent's command line (agent/payload.py); empty for others."""
    words = cmdline.rstrip(b"\0").split(b"\0")
    if len(words) < 3 or b"sidestage.agent" not in words[-2]:
        return ""
    try:
        args = json.loads(words[-1])
    except ValueError:
        return ""
    return "" if "bulk" in args else str(args.get("session", ""))  # in a pod, whoever runs it: the cluster's business


def age(seconds: float) -> str:
    steps: tuple[tuple[float, str], ...] = ((86400, "d"), (3600, "h"), (60, "min"))
    return next((f"{seconds / size:.0f} {unit}" for size, unit in steps if seconds >= size), f"{seconds:.0f} s")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 16)


