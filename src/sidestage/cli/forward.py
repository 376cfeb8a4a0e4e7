"""`sidestage port-forward`: ports of this machine that lead into the target's network, and the target's that lead here."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Sequence

from sidestage.cli import bare
from sidestage.cli.errors import UserError
from sidestage.cli.options import USAGE, Parser
from sidestage.cli.progress import Progress
from sidestage.config import Config
from sidestage.session.bare import Bare
from sidestage.session.forward import Forward, Forwards, listen
from sidestage.trap.network import Network
from sidestage.views.incoming import IncomingRules

_HOST = r"\[[\da-fA-F:.]+\]|[^\s:\[\]]+"
_LOCAL = re.compile(rf"(?:(?:(?P<bind>{_HOST}):)?(?P<local>\d+):)?(?P<host>{_HOST}):(?P<port>\d+)")
_REMOTE = re.compile(r"(?:(?P<remote>\d+):)?(?P<local>\d+)")


def parser() -> Parser:
    made = bare.parser("port-forward", __doc__)
    add = made.add_argument
    add("-L", dest="forward", action="append", default=[], metavar="[[BIND:]LOCAL:]HOST:PORT",
        help="a port here, whose connections the target makes to HOST:PORT; names are the target's")  # fmt: skip
    add("-R", dest="reverse", action="append", default=[], metavar="[REMOTE:]LOCAL",
        help="what comes to the target's port REMOTE is sent to LOCAL here, as a copy")  # fmt: skip
    add("--steal", action="store_true", help="with -R: LOCAL answers, instead of the target")
    add("--when-down", choices=["pass", "502"], help="with --steal, while nobody listens on LOCAL")
    add("--on-conflict", choices=["abort", "wait", "override"], help="with --steal, when somebody else has the port")
    return made


def main(argv: list[str]) -> int:
    """Raises UserError."""
    given = parser().parse_args(argv)
    if not given.forward and not given.reverse:
        raise UserError("nothing to forward", "write e.g. -L 5432:db:5432, or -R 8080:3000", USAGE)
    if given.steal and not given.reverse:
        raise UserError("--steal is about -R, and there is none", "write e.g. -R 8080:3000 --steal", USAGE)
    forwards = [forward(text) for text in given.forward]
    reverses = [reverse(text) for text in given.reverse]
    if len({remote for remote, _ in reverses}) != len(reverses):
        raise UserError("a port of the target stands in two -R", "keep one", USAGE)
    progress = Progress(given.output)
    made = bare.settings(given, progress, {
        "feature.network.incoming.when_down": given.when_down, "feature.network.incoming.on_conflict": given.on_conflict,
    })  # fmt: skip
    spec = bare.target(made, "-R", targetless=not reverses)
    mode = "steal" if given.steal else "mirror"
    listeners = _listen(forwards)
    try:
        flags = [("-L", text) for text in given.forward] + [("-R", text) for text in given.reverse]
        command = ["port-forward", *itertools.chain.from_iterable(flags)]
        with bare.plugged(made, spec, progress, command, [mode] if reverses else [], given.debug) as session:
            _forward(session, listeners)
            if reverses:
                _reverse(session, made, mode, reverses)
            lines = [str(each) for each, _ in listeners]
            lines += [f"{mode} of the target's port {remote} -> 127.0.0.1:{local}" for remote, local in reverses]
            # The agent answers one call after the other: when this one is answered, the claims have been heard.
            session.links.control.call("cpu", {}, lambda *_: progress.ready(f"Ready: {'; '.join(lines)}"))
            session.run()
            return 0
    finally:
        for _, sock in listeners:
            sock.close()


def forward(text: str) -> Forward:
    """`[[BIND:]LOCAL:]HOST:PORT`; an IPv6 address is in brackets. Raises UserError."""
    match = _LOCAL.fullmatch(text)
    if not match:
        cure = "write -L 5432:db:5432, -L db:5432, or -L 127.0.0.1:5432:[fd00::1]:5432"
        raise UserError(f"-L {text}: not understood", cure, USAGE)
    port = _port("-L", text, match["port"])
    local = _port("-L", text, match["local"], least=0) if match["local"] else port
    return Forward((match["bind"] or "127.0.0.1").strip("[]"), local, match["host"].strip("[]"), port)


def reverse(text: str) -> tuple[int, int]:
    """(the target's port, ours) of `[REMOTE:]LOCAL`. Raises UserError."""
    match = _REMOTE.fullmatch(text)
    if not match:
        raise UserError(f"-R {text}: not understood", "write -R 8080:3000 (the target's port, and yours), or -R 8080", USAGE)
    local = _port("-R", text, match["local"])
    return (_port("-R", text, match["remote"]) if match["remote"] else local), local


def _port(flag: str, text: str, number: str, least: int = 1) -> int:
    if not least <= int(number) < 65536:
        raise UserError(f"{flag} {text}: {number} is no port", "ports go from 1 to 65535", USAGE)
    return int(number)


def _listen(forwards: Sequence[Forward]) -> list[tuple[Forward, socket.socket]]:
    """All or none, before anything is started. Raises UserError."""
    found: list[tuple[Forward, socket.socket]] = []
    for each in forwards:
        try:
            sock = listen(each)
        except OSError as error:
            for _, other in found:
                other.close()
            raise UserError(
                f"port {each.port} of {each.bind} can't be had: {os.strerror(error.errno or 5).lower()}",
                f"choose another: -L {each.port + 1}:{each.host}:{each.remote}; 0 stands for any that is free",
            ) from error
        found.append((Forward(each.bind, sock.getsockname()[1], each.host, each.remote), sock))
    return found


def _forward(session: Bare, listeners: Sequence[tuple[Forward, socket.socket]]) -> None:
    if not listeners:
        return
    from sidestage.session.resolver import Resolver

    resolver = Resolver(session.loop, session.links, session.asked, lambda: session.target.get("nameservers", []))
    forwards = Forwards(session, resolver)
    for each, sock in listeners:
        forwards.serve(each, sock)


def _reverse(session: Bare, made: Config, mode: str, reverses: Sequence[tuple[int, int]]) -> None:
    from sidestage.session.incoming import Incoming
    from sidestage.session.watch import Watch, Wish

    told = made.feature.network.incoming
    # One local port may serve several of the target's: so the keys are the target's, and not mapped.
    rules = IncomingRules(mode=mode, when_down=told.when_down, on_conflict=told.on_conflict)
    incoming = Incoming(session.loop, session.links, session, rules, Watch(session.feed, session, Wish(), session.lose), Network())
    session.opened, session.noticed, session.again = incoming.opened, incoming.noticed, incoming.subscribe_all
    for remote, local in reverses:
        session.request("listen", port=remote, real=["127.0.0.1", local])
