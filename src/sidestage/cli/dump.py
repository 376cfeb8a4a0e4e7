"""`sidestage dump`: the target's traffic on some ports, live, with both directions; the target does not notice.

HTTP is shown as exchanges, and the rest in pieces; or all goes to a file for Wireshark (.pcapng) or for a browser (.har).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from sidestage import __version__
from sidestage.cli import bare
from sidestage.cli.errors import UserError
from sidestage.cli.options import USAGE, Parser
from sidestage.cli.progress import Progress


def parser() -> Parser:
    made = bare.parser("dump", __doc__)
    add = made.add_argument
    add("-p", "--port", action="append", default=[], metavar="PORT[,PORT]", help="of the target; repeatable")
    add("-w", "--write", metavar="FILE", help="NAME.pcapng or NAME.har; `-` is pcapng to standard output")
    add("--http", action="store_true", help="HTTP alone, with headers and bodies")
    add("--count", type=int, default=0, metavar="N", help="end after N exchanges, or connections of other protocols or in a pcapng")
    add("--seconds", type=float, default=0, metavar="N", help="end after N seconds")
    add("--secrets", action="store_true", help="show values of Authorization, Cookie, tokens and their like")
    return made


def main(argv: list[str]) -> int:
    """Raises UserError."""
    given = parser().parse_args(argv)
    ports = _ports(given.port)
    if given.http and given.write:
        raise UserError("--http is about what is printed, and -w prints nothing", "leave one out", USAGE)
    if given.count < 0 or given.seconds < 0:
        raise UserError("--count and --seconds can't be negative", "0, or leaving them out, is until Ctrl-C", USAGE)
    kind = _kind(given.write, given.secrets)
    progress = Progress(given.output)
    made = bare.settings(given, progress, {})
    spec = bare.target(made, "dump", targetless=False)
    fd = _create(given.write) if given.write else -1
    command = ["dump", "-p", ",".join(map(str, ports)), *(["-w", given.write] if given.write else [])]
    try:
        with bare.plugged(made, spec, progress, command, ["mirror"], given.debug) as session:
            from sidestage.cli.dump_sinks import Har, Lines, Packets
            from sidestage.session.tap import Tap

            seen = 0

            def count() -> None:
                nonlocal seen
                seen += 1
                if seen == given.count:
                    session.stop()

            sink: Har | Lines | Packets
            if kind == "pcapng":
                sink = Packets(count, fd, __version__)
            elif kind == "har":
                sink = Har(count, fd, __version__, keep=given.secrets)
            else:
                sink = Lines(count, http=given.http, keep=given.secrets, objects=given.output == "json")
            ready = f"{', '.join(f'port {port}' for port in ports)} of {session.target['hostname']} ({spec})"
            Tap(session, ports, sink, lambda: progress.ready(f"Ready: {ready}"))
            if given.seconds:
                session.loop.later(given.seconds, session.stop)
            session.run()
            if given.write:
                progress.say(f"{seen} {'connections' if kind == 'pcapng' else 'exchanges'} in {given.write}")
            return 0
    finally:
        if fd > 2:
            os.close(fd)


def _ports(words: Sequence[str]) -> list[int]:
    found = [word.strip() for text in words for word in text.split(",")]
    if not found:
        raise UserError("no port", "name the target's: -p 8080", USAGE)
    for word in found:
        if not (word.isascii() and word.isdecimal() and 0 < int(word) < 65536):
            raise UserError(f"-p {word}: no port", "ports go from 1 to 65535", USAGE)
    return list(dict.fromkeys(int(word) for word in found))


def _kind(file: str | None, keep: bool) -> str:
    if file is None:
        return ""
    kind = "pcapng" if file == "-" else os.path.splitext(file)[1].removeprefix(".").lower()
    if kind not in ("pcapng", "har"):
        raise UserError(f"-w {file}: what is to be written?", "end the name in .pcapng (Wireshark) or .har (browsers)", USAGE)
    if keep and kind == "pcapng":
        raise UserError("--secrets is of no use with pcapng: packets have all bytes in them", "leave it out", USAGE)
    return kind


def _create(file: str) -> int:
    """For nobody else to read: it holds others' traffic. Raises UserError."""
    if file == "-":
        if sys.stdout.isatty():
            raise UserError("a capture is not for a terminal", "write: sidestage dump ... -w - | wireshark -k -i -", USAGE)
        return 1
    try:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise UserError(f"{file}: can't be written: {os.strerror(error.errno or 5).lower()}", "choose another place") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode) and file.endswith(".har"):
        os.close(fd)
        raise UserError(f"{file}: a HAR needs an ordinary file", "choose another place")
    return fd
