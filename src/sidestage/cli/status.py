"""`sidestage status`: the sessions of this user on this machine; one can be followed or stopped."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from typing import Any

from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser
from sidestage.cli.progress import clean
from sidestage.cluster import lease
from sidestage.session.follow import Follower, sessions

MAX_SHOWN = 100  # characters of a command


def main(argv: list[str]) -> int:
    """Raises UserError."""
    parser = Parser(prog="sidestage status", description=__doc__)
    parser.add_argument("session", metavar="SESSION", nargs="?", help="a session's id or key, or the beginning of it")
    parser.add_argument("--follow", action="store_true", help="its events as they happen, an object of JSON a line")
    parser.add_argument("--stop", action="store_true", help="end it, its program and its agent")
    parser.add_argument("--output", choices=["auto", "json"], default="auto")
    given = parser.parse_args(argv)
    if given.follow or given.stop:
        follower = find(given.session)
        if given.stop:
            follower.stop()
            for _ in follower.events():
                pass  # until it has ended
            return 0
        for event in follower.events():
            print(json.dumps(event), flush=True)
        return 0
    found = [about for about in living() if not given.session or _is(about, given.session)]
    if given.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print("no session")
    for about in found:
        minutes, seconds = divmod(int(time.time() - about["started"]), 60)
        name = about["key"] or about["session"]
        line = f"{name}  {about['target']}  {minutes}:{seconds:02} min  {shown(about['command'])}"
        print(clean(line + (f"  (service {about['service']})" if "service" in about else "")))
    services = {about["session"]: about["service"] for about in found if "service" in about}
    for job in lent():
        users = sorted(services[session] for session in job["sessions"] if session in services)
        if users:
            print(clean(f"one Job for the agents of {', '.join(users)}: {job['job']} on {job['node']}"))
    return 0


def lent() -> list[dict[str, Any]]:
    """The Jobs that services of each `sidestage up` share."""
    found: list[dict[str, Any]] = []
    for each in lease.pools():
        with contextlib.suppress(OSError):
            found += lease.jobs(each)
    return found


def shown(command: list[str]) -> str:
    """On one line, and not the whole of a long one: a word may be a program of many lines."""
    text = " ".join(shlex.join(command).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def living() -> list[dict[str, Any]]:
    """What each session says of itself; one that shares an agent's Job with others, which that is."""
    found = []
    jobs = {session: job["job"] for job in lent() for session in job["sessions"]}
    for session in sessions():
        with contextlib.suppress(OSError):
            follower = Follower(session)
            job = jobs.get(session)
            found.append(follower.about | ({"job": job} if job else {}))
            follower.close()
    return sorted(found, key=lambda about: float(about["started"]))


def find(wanted: str | None) -> Follower:
    """The one session meant, by id or key or the beginning of it; the only one when nothing is said. Raises UserError."""
    found = [about for about in living() if not wanted or _is(about, wanted)]
    if not found:
        raise UserError(f"there is no session {wanted!r}" if wanted else "there is no session", "see `sidestage status`")
    if len(found) > 1:
        names = ", ".join(about["key"] or about["session"] for about in found)
        raise UserError(f"there are {len(found)} sessions: {names}", "name one")
    try:
        return Follower(found[0]["session"])
    except OSError as error:
        raise UserError(f"session {found[0]['session']} has ended", "see `sidestage status`") from error


def _is(about: dict[str, Any], wanted: str) -> bool:
    return about["key"] == wanted or str(about["session"]).startswith(wanted)
