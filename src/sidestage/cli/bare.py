"""What verbs without a program have in common: flags, configuration, target, agent; errors as the user sees them."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sidestage import config
from sidestage.cli.cluster import cluster_plan
from sidestage.cli.errors import UserError
from sidestage.cli.exec import target_of
from sidestage.cli.options import Parser, add_agent_flags, add_cluster_flags, agent_keys, cluster_keys
from sidestage.cli.progress import Progress
from sidestage.cluster import plug
from sidestage.targets.spec import TargetError, TargetSpec
from sidestage.views.incoming import IncomingRules

if TYPE_CHECKING:
    from sidestage.session.bare import Bare


def parser(verb: str, description: str | None) -> Parser:
    made = Parser(prog=f"sidestage {verb}", description=description)
    add = made.add_argument
    add("-t", "--target", metavar="TARGET", help="KIND/NAME[/container/NAME], process/PID, container/NAME, targetless")
    add_cluster_flags(made)
    add("-k", "--key", metavar="KEY", help="names the session")
    add_agent_flags(made)
    add("--output", choices=["auto", "plain", "json"], default="auto", help="how progress is told")
    add("--debug", action="store_true", help="tracebacks of our own errors")
    return made


def settings(given: argparse.Namespace, progress: Progress, more: Mapping[str, Any]) -> config.Config:
    """Raises UserError."""
    keys = {"target.path": given.target, "key": given.key, **more}
    overrides = cluster_keys(given) | agent_keys(given) | {key: value for key, value in keys.items() if value is not None}
    try:
        return config.load(given.config_file, overrides, say=progress.warn)
    except config.ConfigError as error:
        raise UserError(str(error), "`sidestage verify-config FILE` checks it") from error


@contextmanager
def plugged(
    made: config.Config, spec: TargetSpec, progress: Progress, command: Sequence[str], features: Collection[str], debug: bool
) -> Iterator[Bare]:
    """A session whose agent has greeted; `features` are what it needs rights for. Raises UserError."""
    session = os.urandom(8).hex()
    plan = cluster_plan(made, spec, session, IncomingRules(mode="off"))
    agent = made.agent
    with progress.task(f"plugging into {spec}"):
        kept = plug.start(dataclasses.replace(plan, features=frozenset(features)), debug) if plan else None
        from sidestage.session.bare import Bare, Lost
        from sidestage.targets import local

        about = {"target": str(spec), "command": list(command), "key": made.key, "folder": os.getcwd()}
        beside: local.AgentProcess | None = None
        try:
            if kept is None:
                limits = {"heartbeat": agent.heartbeat, "silence": agent.silence}
                beside = local.start_agent(local.resolve(spec), session, agent.python or None, limits)
                beside.drains = "steal" in features
            started = kept or beside
            assert started is not None
            stream = started.wait_ready(lambda kind, text: (progress.phase if kind == "phase" else progress.warn)(text))
        except TargetError as error:
            raise UserError(error.cause, error.cure) from error
        bare = Bare(session, about, started, stream, progress.warn, heartbeat=agent.heartbeat, silence=agent.silence)
        bare.agent_pid = beside.process.pid if beside else 0
        try:
            bare.begin()
        except Lost as error:
            bare.close()
            raise UserError(str(error), "run again with --debug to see why") from error
    if bare.signal:
        bare.close()
        raise KeyboardInterrupt
    try:
        yield bare
    except Lost as error:
        if beside:
            beside.drains = False  # it may not answer: it is killed, and what it holds of the target's goes with it
        raise UserError(str(error), "the target and its own traffic are as before") from error
    finally:
        bare.close()


def target(made: config.Config, verb: str, *, targetless: bool) -> TargetSpec:
    """Raises UserError."""
    spec = target_of(made)
    if spec.kind == "targetless" and not targetless:
        cause = f"{verb} needs a target: without one there is nobody's traffic"
        raise UserError(cause, "name one: -t deployment/NAME, -t process/PID")
    return spec


__all__ = ["parser", "plugged", "settings", "target"]
