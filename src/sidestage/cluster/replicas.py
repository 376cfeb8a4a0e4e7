"""Agents beside the other ready pods of a target, for its incoming traffic: one Job a node, an agent a pod.

Begun when the program listens for the first time, as most programs that are plugged in never do. From then on the target is looked
up every few seconds: pods that were added get an agent, those of pods that are gone have ended by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sidestage.cluster import launch
from sidestage.cluster.api import Api, Upgraded
from sidestage.cluster.launch import Created, Stream
from sidestage.cluster.plan import Plan
from sidestage.cluster.pods import PodTarget
from sidestage.cluster.targets import Resolved, resolve

LOOK = 3.0  # seconds between looks at the target
MAX_REPLICAS = 20  # agents besides the first; a program on a laptop serves no more
MAX_TRIES = 3  # for one container
SINGLE = ("pod", "targetless")

Done = Callable[[Any, BaseException | None], None]


class Host(Protocol):
    """What the keeper lends."""

    plan: Plan

    def api(self) -> Api: ...
    def main(self) -> Created: ...
    def fresh(self) -> Created: ...
    def work(self, fn: Callable[[], Any], done: Done) -> None: ...
    def later(self, seconds: float, fn: Callable[[], None]) -> None: ...
    def settle(
        self, upgraded: Upgraded, channels: Stream, created: Created, done: Callable[[BaseException | None], None]
    ) -> Callable[[], None]:
        """Send the payload, wait for READY, give the stream to the session; `done(error)` at its end. Returns what closes it."""
        ...

    def say(self, kind: str, text: str) -> None: ...


class Replicas:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._there: dict[str, tuple[Created, Callable[[], None]]] = {}  # container id -> its agent, and what ends it
        self._tries: dict[str, int] = {}
        self._begun = False
        self.created: list[Created] = []  # all that must be removed at the end

    def begin(self) -> None:
        if not self._begun and self._host.plan.target.kind not in SINGLE:
            self._begun = True
            self._look()

    def _look(self) -> None:
        host = self._host
        host.work(lambda: resolve(host.api(), host.plan.target), self._seen)

    def _seen(self, resolved: Resolved | None, error: BaseException | None) -> None:
        main = self._host.main().chosen
        if resolved is None or error or main is None:
            self._host.later(LOOK, self._look)
            return
        others = [each for each in resolved.replicas if each.container_id != main.container_id]
        if len(others) > MAX_REPLICAS:
            self._host.say("say", f"of {len(others) + 1} pods only {MAX_REPLICAS + 1} are seen: more is not for one laptop")
        self._next([
            each for each in others[:MAX_REPLICAS]
            if each.container_id not in self._there and self._tries.get(each.container_id, 0) < MAX_TRIES
        ])  # fmt: skip

    def _next(self, missing: list[PodTarget]) -> None:
        """One after the other: a Job is used by all that are on its node."""
        if not missing:
            self._host.later(LOOK, self._look)
            return
        target, *rest = missing
        created = self._host.fresh()
        self._tries[target.container_id] = self._tries.get(target.container_id, 0) + 1

        def started(result: Any, error: BaseException | None) -> None:
            if error:
                self._failed(target, error)
            else:
                upgraded, channels = result
                close = self._host.settle(upgraded, channels, created, lambda error: self._ended(target, error))
                self._there[target.container_id] = created, close
            self._next(rest)

        self._host.work(lambda: self._launch(created, target), started)

    def _launch(self, created: Created, target: PodTarget) -> Any:
        host = self._host
        created.bulk = False
        mate = next((each for each in self._jobs() if each.chosen and each.chosen.node == target.node), None)
        if mate:
            created.mode, created.namespace, created.pod, created.container = "job", mate.namespace, mate.pod, mate.container
            created.chosen, created.host, created.guard = target, mate.number, mate.guard
        else:
            self.created.append(created)
            launch.beside(host.api(), host.plan, created, target, lambda *_: None)
        return launch.run_agent(host.api(), host.plan, created)

    def _jobs(self) -> list[Created]:
        """Those that run: each as long as one of its agents."""
        used = {each.host or each.number for each, _ in self._there.values()}
        return [each for each in (self._host.main(), *(own for own in self.created if own.number in used)) if each.job]

    def drop(self, container_id: str) -> None:
        """The first agent has moved there: it sees all by itself."""
        if container_id in self._there:
            self._there[container_id][1]()

    def _ended(self, target: PodTarget, error: BaseException | None) -> None:
        self._there.pop(target.container_id, None)
        if error:
            self._failed(target, error)

    def _failed(self, target: PodTarget, error: BaseException) -> None:
        if self._tries[target.container_id] >= MAX_TRIES:
            self._host.say("say", f"requests to pod {target.pod} are not seen: {error}")
