"""`sidestage`: finds the verb, and shows errors. Verbs are imported when they are used: start-up time is the user's."""

from __future__ import annotations

import os
import sys

from sidestage.cli.errors import UserError

HELP = """\
sidestage runs a process on your own machine as if it were inside a service of your cluster.

  sidestage exec -t TARGET [flags] -- COMMAND [ARGS...]    see `sidestage exec --help`
  sidestage container -t TARGET [flags] -- podman run ...  the same with a container, by podman or docker
  sidestage ls [-n NS] [-t KIND]                           what can be a target in the cluster
  sidestage doctor                                         what this machine can do, and the cure for each lack
  sidestage status [--follow | --stop] [SESSION]           sessions that run now, what one does, and its end
  sidestage ui                                             the same in a browser, live
  sidestage clean [-n NS | -A] [--dry-run]                 agents that were left over: told and removed
  sidestage up [-f FILE] [SERVICE...] [--watch]            several services at once; `sidestage up init` writes a file
  sidestage port-forward -t TARGET -L ... | -R ...         ports here that lead into the target's network, and back
  sidestage dump -t TARGET -p PORT [-w FILE]               the target's traffic, live, or as a file for Wireshark or a browser
  sidestage diagnose -t TARGET                             how fast it can be worked with from here, and what limits that
  sidestage verify-config FILE                             is this configuration right?
  sidestage migrate [FILE]                                 write our configuration from mirrord's
  sidestage completion bash|zsh|fish                       completion of verbs, flags and targets for your shell
  sidestage demo                                           a small staging on this machine, to see it work
  sidestage --version
"""


def main() -> None:
    """The entry point of the command; ends the process."""
    _open_standard_streams()
    argv = sys.argv[1:]
    debug = "--debug" in argv[: argv.index("--") if "--" in argv else None]
    try:
        code = _verb(argv)
        sys.stdout.flush()
    except UserError as error:
        from sidestage.cli.progress import clean

        print(clean(str(error)), file=sys.stderr)  # it may quote a cluster
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    except Exception as error:
        if debug:
            raise
        print(f"sidestage: internal error: {error!r}\n  run again with --debug, and report it", file=sys.stderr)
        code = 70
    sys.exit(code)


def _open_standard_streams() -> None:
    """Where the caller closed 0, 1 or 2 (`<&-`), no descriptor of ours may get its number. The program finds it closed."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number; closed on exec, as all that Python opens
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


def _verb(argv: list[str]) -> int:
    verb, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if verb in ("exec", "container"):
        from sidestage.cli import exec as run
        from sidestage.cli.options import parse_exec

        return run.main(parse_exec(rest, verb))
    if verb == "ls":
        from sidestage.cli import ls

        return ls.main(rest)
    if verb == "doctor":
        from sidestage.cli import doctor

        return doctor.main(rest)
    if verb == "verify-config":
        from sidestage.cli import verify

        return verify.main(rest)
    if verb == "migrate":
        from sidestage.cli import verify

        return verify.migrate(rest)
    if verb == "status":
        from sidestage.cli import status

        return status.main(rest)
    if verb == "completion":
        from sidestage.cli import completion

        return completion.main(rest)
    if verb == "__complete":
        from sidestage.cli import complete

        return complete.main(rest)
    if verb in ("record", "replay"):
        from sidestage.cli import record

        return record.record(rest) if verb == "record" else record.replay(rest)
    if verb == "ext":
        from sidestage.cli import ext

        return ext.main(rest)
    if verb == "ui":
        from sidestage.cli import ui

        return ui.main(rest)
    if verb == "demo":
        from sidestage import demo

        return demo.main(rest)
    if verb in ("--version", "-V", "version"):
        from sidestage import __version__

        print(f"sidestage {__version__}")
        return 0
    if verb in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0
    from sidestage.cli.verbs import MODULES, VERBS

    if verb in MODULES:
        import importlib

        return int(importlib.import_module(f"sidestage.cli.{MODULES[verb]}").main(rest))
    import difflib

    near = difflib.get_close_matches(verb, VERBS, 1)
    raise UserError(
        f"unknown command {verb!r}", f"did you mean {near[0]!r}?" if near else "see `sidestage --help`", os.EX_USAGE
    )
