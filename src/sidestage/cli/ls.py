"""`sidestage ls`: what can be a target, one path a line as -t takes it; JSON for tools."""

from __future__ import annotations

import json
import sys

from sidestage import config
from sidestage.cli.cluster import api
from sidestage.cli.errors import UserError
from sidestage.cli.options import Parser, add_cluster_flags, cluster_keys
from sidestage.cli.progress import clean
from sidestage.cluster.listing import USUAL, Unlisted, listing, namespaces
from sidestage.targets.spec import ALIASES, CLUSTER_KINDS, TargetError

KINDS = tuple(kind for kind in CLUSTER_KINDS if kind != "label")


def parser() -> Parser:
    parser = Parser(prog="sidestage ls", description="Print what can be a target (-t) in a cluster's namespace.")
    add_cluster_flags(parser)
    add = parser.add_argument
    add("-t", "--target-type", action="append", metavar="KIND", help=f"only this kind, repeatable: {', '.join(KINDS)}")
    add("-A", "--all-namespaces", action="store_true", help="each line is NAMESPACE and path")
    add("-a", "--all", action="store_true", help="also what has nothing ready behind it")
    add("--output", choices=["auto", "plain", "json", "rich"], default="auto",
        help="json: a list of paths; rich: an object with availability and namespaces")  # fmt: skip
    add("--debug", action="store_true", help="tracebacks of our own errors")
    return parser


def main(argv: list[str]) -> int:
    """Raises UserError."""
    given = parser().parse_args(argv)
    kinds = [_kind(word) for word in given.target_type or ()] or USUAL
    try:
        settings = config.load(given.config_file, cluster_keys(given), say=_say)
        with api(settings) as client:
            namespace = "" if given.all_namespaces else client.namespace
            rows: list[tuple[str, str, bool]] = []
            refused: list[Unlisted] = []
            plain = given.output in ("auto", "plain")
            for entry in listing(client, kinds, namespace):
                if isinstance(entry, Unlisted):
                    refused.append(entry)
                    continue
                rows.append((entry.namespace, entry.path, entry.available))
                if plain and (entry.available or given.all):
                    print(clean(f"{entry.namespace}\t{entry.path}" if given.all_namespaces else entry.path))
            if given.output == "rich":
                targets = [
                    {"path": path, "available": ready, **({"namespace": there} if given.all_namespaces else {})}
                    for there, path, ready in rows
                ]  # fmt: skip
                known = {"targets": targets, "current_namespace": client.namespace, "namespaces": namespaces(client)}
                print(json.dumps(known, indent=2))
            elif given.output == "json":
                print(json.dumps([path for _, path, ready in rows if ready or given.all], indent=2))
    except config.ConfigError as error:
        raise UserError(str(error), "`sidestage verify-config FILE` checks it") from error
    except TargetError as error:
        raise UserError(error.cause, error.cure) from error
    if refused and len(refused) == len(kinds):
        raise UserError(f"nothing may be listed: {refused[0].why}", "ask for the verb list, or name the target with -t")
    for each in refused:
        _say(f"{each.kind}s are left out: {each.why}")
    if plain and not given.all and not any(ready for _, _, ready in rows):
        hidden = f"nothing ready, {len(rows)} besides (-a shows them)" if rows else "nothing"
        _say(f"{hidden} in {'any namespace' if given.all_namespaces else client.namespace}; choose another with -n, or -A")
    return 0


def _say(text: str) -> None:
    print(clean(f"sidestage: {text}"), file=sys.stderr)


def _kind(word: str) -> str:
    kind = ALIASES.get(word.lower(), word.lower())
    if kind in KINDS:
        return kind
    import difflib

    near = difflib.get_close_matches(kind, KINDS, 1)
    raise UserError(f"unknown kind {word!r}", f"did you mean {near[0]!r}?" if near else f"one of {', '.join(KINDS)}", 2)
