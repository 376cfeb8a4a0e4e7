"""`sidestage ui`: opens the page of a session, or of all, and serves it until Ctrl-C or until the session has ended."""

from __future__ import annotations

import os
import subprocess
import sys

from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser


def main(argv: list[str]) -> int:
    """Raises UserError."""
    parser = Parser(prog="sidestage ui", description=__doc__)
    parser.add_argument("session", metavar="SESSION", nargs="?", default="", help="end with this session (id or key)")
    parser.add_argument("-p", "--port", type=int, default=0, help="of the page (default: any that is free)")
    parser.add_argument("--open", action="store_true", help="in the browser of this desktop")
    given = parser.parse_args(argv)
    from sidestage.cli.status import find, living
    from sidestage.ui.server import Server, until_end

    session = ""
    if given.session:
        follower = find(given.session)
        session = str(follower.about["session"])
        follower.close()
    try:
        server = Server(living, given.port)
    except OSError as error:
        raise UserError(f"port {given.port} can't be had: {error.strerror}", "leave -p out, or choose another") from error
    print(server.url, flush=True)
    if given.open:
        import webbrowser

        webbrowser.open(server.url)
    try:
        until_end(server, session)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


def beside(session: str) -> str:
    """Start the page of a session that has just begun, in a process that ends with it; returns its address. Raises UserError."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sidestage", "ui", session], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout
    url = process.stdout.readline().decode().strip()
    process.stdout.close()
    if not url:
        raise UserError("the page of the session could not be started", "`sidestage ui` says why")
    return url
