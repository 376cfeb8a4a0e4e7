"""`sidestage record` and `sidestage replay`: a session kept in a file, and a program run against it with no target at all."""

from __future__ import annotations

import dataclasses
import os

from sidestage.cli import exec as run
from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser, parse_exec
from sidestage.record import tape


def record(argv: list[str]) -> int:
    """`exec` with a recording: the same flags, and -o; a FILE.har gets the HTTP exchanges alone. Raises UserError."""
    head = argv[: argv.index("--")] if "--" in argv else argv
    for flag in ("-o", "--output-file"):
        if flag in head and head.index(flag) + 1 < len(head):
            at = head.index(flag)
            file, argv = head[at + 1], argv[:at] + argv[at + 2 :]
            break
    else:
        raise UserError("no file to record to", "write: sidestage record -t TARGET -o FILE [flags of exec] -- COMMAND", 2)
    folder = os.path.dirname(os.path.abspath(file))
    if not os.access(folder, os.W_OK) or os.path.isdir(file):
        raise UserError(f"{file} can't be written", "choose another file with -o")
    return run.main(dataclasses.replace(parse_exec(argv), record=file))


def replay(argv: list[str]) -> int:
    """Run a program against a recording, and compare its answers with those of then. Raises UserError."""
    head, command = (argv[: argv.index("--")], argv[argv.index("--") :]) if "--" in argv else (argv, [])
    usage = "sidestage replay FILE [flags of exec] -- COMMAND [ARGS...]"
    parser = Parser(prog="sidestage replay", usage=usage, description=replay.__doc__)
    parser.add_argument("file", metavar="FILE")
    given, flags = parser.parse_known_args(head)
    try:
        next(tape.read(given.file))
    except OSError as error:
        why = (error.strerror or "can't be read").lower()
        raise UserError(f"{given.file}: {why}", "name a file that `sidestage record` wrote") from error
    except tape.TapeError as error:
        raise UserError(str(error), "name a file that this version of `sidestage record` wrote") from error
    return run.main(dataclasses.replace(parse_exec(["--diff", *flags, *command]), replay=os.path.abspath(given.file)))
