"""The process that keeps a session's agents in the cluster: starts them, carries their streams, and removes everything.

It ends when the session does, however that ends. The API is asked in threads, one request after the other; streams are carried by
the loop (relay.py). An agent is lost when its control stream ends: then its target is looked up again, as it may run elsewhere by
now, and gets another agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from sidestage.agent import payload
from sidestage.cluster import carrier, child, launch, ready
from sidestage.cluster.api import Api, Upgraded
from sidestage.cluster.channels import Channels, Command
from sidestage.cluster.connect import connect
from sidestage.cluster.errors import ApiError, ClusterError, ScaledToNothing
from sidestage.cluster.launch import Cancelled, Created, Over
from sidestage.cluster.plan import Plan
from sidestage.cluster.relay import Relay
from sidestage.cluster.replicas import Replicas
from sidestage.stream.loop import Loop

READY_TIMEOUT = 30.0  # seconds for Python to start there and unpack the payload
AGAIN_SECONDS = 60.0  # for another agent, from the loss of the last
AGAIN_PAUSE = 1.0  # seconds between tries
MAX_MESSAGE = 64 << 10
BUFFER = 1 << 20  # bytes of socket buffer between relay and session

Done = Callable[[Any, BaseException | None], None]


def run(sock: socket.socket, plan: Plan, debug: bool) -> None:
    """Until everything is removed. What a log-in says and asks, it says and asks on the terminal, which is ours until then."""
    keep = sock.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 16))
    api, failure = None, None
    try:
        api = connect(plan.kubeconfig, plan.context, plan.target.namespace, plan.insecure, plan.kubectl)
        api.log_in()
    except ClusterError as error:
        failure = error
    child.detach(debug)
    carries = carrier.start(api, keep, debug) if api and not failure else None
    Keeper(sock, plan, api, failure, carries).run()


class Keeper:
    def __init__(
        self, sock: socket.socket, plan: Plan, api: Api | None, failure: ClusterError | None, carries: socket.socket | None
    ) -> None:
        self._sock, self.plan, self._spec = sock, plan, plan.target
        self._loop = Loop()
        self._api, self._failure = api, failure
        self._carrier = carrier.Orders(self._loop, carries) if carries else None
        self._relays: set[Relay] = set()
        self._control: Command | None = None  # of the present agent
        self._number = 0
        self._cancelled = threading.Event()  # of all that is being started
        self._created = Created(0)
        self._replicas = Replicas(self)
        self._others: list[Channels] = []  # streams of agents beside replicas
        self._left: list[Created] = []  # of earlier agents, to be removed when there is time
        self._gone = ""  # id of a container that has ended
        self._since = 0.0  # when the last agent was lost; 0: there is one, or was none yet
        self._busy = 0  # threads that use the API
        self._ending = self._removing = self._removed = False
        self._loop.watch(sock.fileno(), select.EPOLLIN, self._told)

    def run(self) -> None:
        for note in self._api.notes if self._api else ():
            self.say("say", note)
        self._start()
        self._loop.run()

    # -- the agent --

    def _start(self) -> None:
        if self._ending:
            return
        created = self._created = self.fresh()
        self.work(lambda: self._launch(created), lambda result, error: self._launched(created, result, error))

    def _launch(self, created: Created) -> launch.Started:
        if self._api is None or self._failure:
            raise self._failure or AssertionError("no client and no reason")
        return launch.start(self._api, self.plan, created, self._spec, self.say, self._gone)

    def _launched(self, created: Created, result: Any, error: BaseException | None) -> None:
        if error:
            self._failed(created, error)
            return
        upgraded, channels, notes = result
        self._control = channels
        theirs = self._carry(upgraded, channels)

        def synced(_result: Any, error: BaseException | None) -> None:
            if error:
                theirs.close()
                self._failed(created, ready.why(channels, error, created.mode))
                return
            for note in notes:
                self.say("say", note)
            if self._since:
                self.say("say", f"plugged in again: {created.where}")
            self._since, self._gone = 0.0, ""
            if created.chosen:
                self._replicas.drop(created.chosen.container_id)
            self._tell("attached", theirs, text=created.where)
            self._remove_left()

        theirs.sendall(payload.preamble())  # the buffer has room for it
        self.work(lambda: payload.read_sync(theirs.fileno(), READY_TIMEOUT), synced)

    def _failed(self, created: Created, error: BaseException) -> None:
        """No agent from this try."""
        self._left.append(created)
        if self._ending:
            return
        if not self._since:
            self._remove_left(lambda: self._give_up(error))  # before anything is said
        elif time.monotonic() - self._since < AGAIN_SECONDS and _passing(error):
            self._loop.later(AGAIN_PAUSE, self._start)
        else:
            self._tell("lost", text=f"the agent is lost, and no other could be started: {error}")

    def _give_up(self, error: BaseException) -> None:
        if isinstance(error, ClusterError):
            self._tell("failed", cause=error.cause, cure=error.cure)
        else:
            self._tell("failed", cause=f"the agent could not be started: {error!r}", cure="run again with --debug to see more")

    def _again(self, why: str, gone: bool, deleted: bool) -> None:
        """The session has lost the agent; `gone`: because its target has ended, `deleted`: because its pod is being deleted."""
        lost = self._created
        self._since = time.monotonic()
        self._left.append(lost)
        told = why if gone or self._control is None else ready.last_words(self._control) or why
        self.say("say", f"{lost.where}: {told}; connections are reset, another agent is being started")
        if self._carrier:
            self._carrier.drop()
        for relay in list(self._relays):
            if relay.channels not in self._others:
                relay.close(told)
        if gone and lost.chosen:
            self._gone = lost.chosen.container_id
        spec = self._spec
        self.work(lambda: launch.next_target(self.api(), spec, lost, deleted), self._followed)

    def _followed(self, spec: Any, error: BaseException | None) -> None:
        if isinstance(error, Over):
            self._tell("lost", text=error.cause)
            return
        self._spec = spec or self._spec
        self._start()

    # -- for replicas.py --

    def api(self) -> Api:
        assert self._api is not None
        return self._api

    def main(self) -> Created:
        return self._created

    def fresh(self) -> Created:
        self._number += 1
        return Created(self._number, cancelled=self._cancelled)

    def later(self, seconds: float, fn: Callable[[], None]) -> None:
        self._loop.later(seconds, lambda: None if self._ending else fn())

    def settle(
        self, upgraded: Upgraded, channels: launch.Stream, created: Created, done: Callable[[BaseException | None], None]
    ) -> Callable[[], None]:
        def ended() -> None:
            self._others.remove(channels)
            done(None)

        self._others.append(channels)
        theirs = self._carry(upgraded, channels, ended)

        def synced(_result: Any, error: BaseException | None) -> None:
            if error:
                theirs.close()
                done(ready.why(channels, error, created.mode))
                return
            self.say("say", f"requests to {created.where} are seen as well")
            self._tell("replica", theirs, text=created.where)

        theirs.sendall(payload.preamble())
        self.work(lambda: payload.read_sync(theirs.fileno(), READY_TIMEOUT), synced)
        return lambda: self._close_relay(channels)

    def _close_relay(self, channels: Channels) -> None:
        for relay in list(self._relays):
            if relay.channels is channels:
                relay.close("another agent sees it")

    # -- streams --

    def _carry(self, upgraded: Upgraded, channels: Channels, then: Callable[[], None] = lambda: None) -> socket.socket:
        """The session's end of a stream that a relay carries; `then` at its end."""
        ours, theirs = _pair()

        def ended(_reason: str) -> None:
            self._relays.discard(relay)
            then()
            self._end_if_done()

        relay = Relay(self._loop, upgraded.sock, upgraded.leftover, channels, ours, ended)
        self._relays.add(relay)
        return theirs

    def _bulk(self, port: int) -> None:
        created = self._created
        assert self._carrier is not None
        ours, theirs = _pair()

        def done(error: str) -> None:
            if error or created is not self._created or self._ending:
                theirs.close()
            else:
                self._tell("bulk", theirs)
            if error:
                self._tell("nobulk", text=error)

        with ours:
            self._carrier.bulk(launch.forward_path(created), port, ours, done)

    # -- the session --

    def _told(self, _events: int) -> None:
        try:
            data = self._sock.recv(MAX_MESSAGE)
        except OSError:
            data = b""
        if not data:
            self._loop.unwatch(self._sock.fileno())
            self._ending = True
            self._cancelled.set()
            self._end_if_done()
            return
        message = json.loads(data)
        if message["op"] == "bulk":
            self._bulk(message["port"])
        elif message["op"] == "replicas":
            self._replicas.begin()
        elif message["op"] == "again":
            self._again(message["why"], message["gone"], message["deleted"])

    def _tell(self, event: str, stream: socket.socket | None = None, **args: Any) -> None:
        data = json.dumps({"ev": event, **args}).encode()
        with contextlib.suppress(OSError):
            if stream is None:
                self._sock.send(data)
            else:
                socket.send_fds(self._sock, [data], [stream.fileno()])
        if stream is not None:
            stream.close()

    def say(self, kind: str, text: str) -> None:
        self._tell(kind, text=text)

    # -- work, and its end --

    def work(self, fn: Callable[[], Any], done: Done) -> None:
        def finished(result: Any, error: BaseException | None) -> None:
            self._busy -= 1
            done(result, error)
            self._end_if_done()

        self._busy += 1
        self._loop.offload(fn, finished)

    def _remove_left(self, then: Callable[[], None] = lambda: None) -> None:
        api, left = self._api, self._left
        self._left = []

        def remove() -> None:
            for created in left:
                if api is not None:
                    launch.remove(api, created)

        self.work(remove, lambda *_: then())

    def _end_if_done(self) -> None:
        """The session is gone: all is removed as soon as nobody uses the API; the streams say goodbye, bounded by relay.py."""
        if not self._ending:
            return
        if not (self._busy or self._removing):
            self._removing = True
            self._left += [self._created, *self._replicas.created]
            self._remove_left(self._all_removed)
        elif self._removed and not self._busy and not self._relays:
            self._loop.stop()

    def _all_removed(self) -> None:
        self._removed = True


def _pair() -> tuple[socket.socket, socket.socket]:
    """Ours and the session's end of a stream."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return ours, theirs


def _passing(error: BaseException) -> bool:
    """May it be otherwise in a moment? What is refused for good is not asked again."""
    if isinstance(error, ApiError):
        return error.status not in (401, 403)
    return not isinstance(error, Cancelled | ScaledToNothing)
