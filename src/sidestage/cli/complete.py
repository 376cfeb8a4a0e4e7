"""What may come next on a command line of ours, for completion.py's scripts: a candidate a line, a tab, and a word on it.

Names of the cluster are asked by a process of their own, waited for 300 ms at most; then what it knew last time must do. So a
shell never hangs on a cluster, and the answer that came too late is there for the next time. Whoever presses Tab in a folder of
somebody else's has not said yes to anything: a kubeconfig that the folder's configuration names is not read, as it could name
a command to run; and only names that mean nothing to a shell are offered.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import select
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sidestage.cli.verbs import MODULES, VERBS
from sidestage.targets.spec import ALIASES, CLUSTER_KINDS

WAIT = 0.3  # seconds that a shell may hang on a cluster
FETCH = 15  # seconds until a fetch that nobody waits for any more gives up
FRESH = 10.0  # seconds in which the cluster isn't asked again
STALE = 1800.0  # seconds after which an old answer is worse than none
SHOWN = 500  # candidates at most
PLAIN = re.compile(r"[\w.:/@=+,-]*", re.ASCII)  # nothing that a shell would look at
Candidates = Iterator[tuple[str, str]]


@dataclass(slots=True)
class Line:
    """A command line up to the cursor, understood as far as it goes."""

    verb: str = ""
    flag: str = ""  # that waits for its value
    word: str = ""  # the one that is being typed; without `--flag=`
    before: str = ""  # `--flag=`, part of the word for the shell
    given: dict[str, str] = field(default_factory=dict)  # values of flags


def main(argv: list[str]) -> int:
    """Prints; never fails, since a shell would show it in the middle of a line."""
    try:
        line = read(argv[0] if argv else "")
        for n, (candidate, text) in enumerate(sorted(candidates(line))):
            if n == SHOWN:
                break
            print(f"{line.before}{candidate}" + (f"\t{text}" if text else ""))
    except Exception:
        return 1
    return 0


def read(text: str) -> Line:
    words = _split(text)[1:]
    line = Line()
    if len(words) < 2:
        line.word = words[0] if words else ""
        return line
    line.verb, words = words[0], words[1:]
    takes = {flag for flag, action in _flags(line.verb).items() if action.nargs is None or action.nargs == 1}
    for word in words[:-1]:
        if line.flag:
            line.given[line.flag], line.flag = word, ""
        elif word.startswith("--") and "=" in word:
            name, _, value = word.partition("=")
            line.given[name] = value
        elif word in takes:
            line.flag = word
    line.word = words[-1]
    if not line.flag and line.word.startswith("--") and "=" in line.word:
        line.flag, _, line.word = line.word.partition("=")
        line.before = f"{line.flag}="
    return line


def _split(text: str) -> list[str]:
    """Words as the shell has them; the last is the one being typed, perhaps empty."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(text + closing)
        except ValueError:
            continue
        return [*words, ""] if not closing and (not text or text[-1].isspace()) else words
    return text.split()


def candidates(line: Line) -> Candidates:
    """Those that begin with what is typed."""
    for candidate, text in _all(line):
        if candidate.startswith(line.word) and PLAIN.fullmatch(candidate):
            yield candidate, "".join(letter if letter.isprintable() else "?" for letter in text)


def _all(line: Line) -> Candidates:
    if not line.verb:
        yield from VERBS.items()
        return
    actions = _flags(line.verb)
    if line.flag:
        action = actions.get(line.flag)
        if action is None:
            return
        if action.choices:
            yield from ((str(choice), "") for choice in action.choices)
        elif action.dest == "target":
            yield from targets(line)
        elif action.dest == "target_type":
            yield from ((kind, "") for kind in CLUSTER_KINDS if kind != "label")
        elif action.dest in ("namespace", "agent_namespace"):
            yield from ((name, "") for name in cached(line, "namespaces"))
        elif action.dest == "context":
            yield from contexts(line)
    elif line.word.startswith("-"):
        for flag, action in actions.items():
            if action.help != argparse.SUPPRESS:
                yield flag, " ".join((action.help or "").split())
    elif line.verb == "completion":
        yield from ((shell, "") for shell in ("bash", "fish", "zsh"))


def targets(line: Line) -> Candidates:
    kind, slash, _ = line.word.partition("/")
    if not slash:
        yield from ((f"{each}/", "") for each in (*CLUSTER_KINDS, "process", "container"))
        yield "targetless", "without a target: the agent's own place"
    elif kind == "process":
        yield from processes()
    elif ALIASES.get(kind, kind) in CLUSTER_KINDS and kind != "label":
        whole = ALIASES.get(kind, kind)
        for path in cached(line, whole):
            yield kind + path.removeprefix(whole), ""


def processes() -> Candidates:
    """Our own, with their names."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read(200).replace(b"\0", b" ").decode(errors="replace").strip()
                if words:
                    yield f"process/{pid}", words
        except OSError:
            continue


def contexts(line: Line) -> Candidates:
    from sidestage.cluster.kubeconfig import contexts as known

    return ((name, f"{cluster} as {user}") for name, (cluster, user) in known(line.given.get("--kubeconfig")).items())


def _flags(verb: str) -> dict[str, argparse.Action]:
    if verb in ("exec", "container"):
        from sidestage.cli.options import exec_parser

        return dict(exec_parser(verb)._option_string_actions)
    if verb == "ls":
        from sidestage.cli.ls import parser
    elif verb in MODULES:
        import importlib

        parser = importlib.import_module(f"sidestage.cli.{MODULES[verb]}").parser
    else:
        return {}
    return dict(parser()._option_string_actions)


# --- names of the cluster


def cached(line: Line, what: str) -> list[str]:
    """`what` is a kind or `namespaces`: from the file that remembers it, after a short wait for the cluster."""
    chosen = {name: line.given.get(name) or line.given.get(short) for name, short in (
        ("--namespace", "-n"), ("--context", ""), ("--kubeconfig", ""), ("--config-file", "-f"),
    )}  # fmt: skip
    places = [os.getcwd(), os.environ.get("KUBECONFIG", ""), os.environ.get("SIDESTAGE_CONFIG_FILE", ""), what]
    key = hashlib.sha256(json.dumps([chosen, places]).encode()).hexdigest()[:24]
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sidestage", "complete")
    file = os.path.join(folder, key)
    if _age(file) > FRESH:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _refresh(file, lambda: fetch(chosen, what))
    if _age(file) > STALE:
        return []
    with open(file, encoding="utf-8") as stream:
        return [str(name) for name in json.load(stream)]


def fetch(chosen: dict[str, str | None], what: str) -> list[str]:
    """Raises what goes wrong."""
    from sidestage import config
    from sidestage.cli.cluster import api
    from sidestage.cluster import listing

    overrides = {
        "target.namespace": chosen["--namespace"], "kube_context": chosen["--context"], "kubeconfig": chosen["--kubeconfig"],
    }  # fmt: skip
    settings = config.load(chosen["--config-file"], {key: value for key, value in overrides.items() if value})
    asked = chosen["--kubeconfig"] or os.environ.get("SIDESTAGE_KUBECONFIG") or ""
    settings = replace(settings, kubeconfig=asked, use_kubectl=False)
    with api(settings) as client:
        if what == "namespaces":
            return listing.namespaces(client)
        found = listing.listing(client, [what], client.namespace)
        return [entry.path for entry in found if isinstance(entry, listing.Entry) and entry.available]


def _age(file: str) -> float:
    try:
        return time.time() - os.stat(file).st_mtime
    except OSError:
        return float("inf")


def _refresh(file: str, ask: Callable[[], list[str]]) -> None:
    """Ask in a process of its own, and wait for it no longer than WAIT."""
    r, w = os.pipe()
    if os.fork():
        os.close(w)
        select.select([r], [], [], WAIT)
        os.close(r)
        return
    try:
        os.setsid()
        signal.alarm(FETCH)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)  # the shell waits for the end of our output
        names = ask()
        made = f"{file}.{os.getpid()}"
        with open(made, "w", encoding="utf-8") as stream:
            json.dump(names, stream)
        os.replace(made, file)
    except BaseException:
        pass
    finally:
        os._exit(0)
