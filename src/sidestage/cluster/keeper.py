"""The process that keeps a session's agents in the cluster: starts them, carries their streams, and removes everything.

It ends when the session does, however that ends. The API is asked in threads, one request after the other; streams are carried by
the loop (relay.py). An agent is lost when its control stream ends: then, if the session wants, its target is looked up again, as it
may run elsewhere by now, and gets another agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import time
from typing import Any

from sidestage.agent import payload
from sidestage.cluster import launch, ready
from sidestage.cluster.api import Api, Upgraded, connect
from sidestage.cluster.channels import Channels, Exec
from sidestage.cluster.errors import ApiError, ClusterError
from sidestage.cluster.launch import Cancelled, Created
from sidestage.cluster.plan import Plan
from sidestage.cluster.relay import Relay
from sidestage.stream.loop import Loop

READY_TIMEOUT = 30.0  # seconds for Python to start there and unpack the payload
AGAIN_SECONDS = 60.0  # for another agent, from the loss of the first
AGAIN_PAUSE = 1.0  # seconds between tries
MAX_MESSAGE = 64 << 10
BUFFER = 1 << 20  # bytes of socket buffer between relay and session


def run(sock: socket.socket, plan: Plan) -> None:
    """Until everything is removed."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    keep = sock.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 16))
    Keeper(sock, plan).run()


class Keeper:
    def __init__(self, sock: socket.socket, plan: Plan) -> None:
        self._sock, self._plan = sock, plan
        self._loop = Loop()
        self._api: Api | None = None
        self._relays: set[Relay] = set()
        self._number = 0
        self._created = Created(0)
        self._busy = 0  # threads that use the API
        self._since = 0.0  # when the last agent was lost; 0: there is one, or was none yet
        self._ending = self._removed = False
        self._loop.watch(sock.fileno(), 1, self._told)

    def run(self) -> None:
        self._start()
        self._loop.run()

    # -- the agent --

    def _start(self) -> None:
        self._number += 1
        created = self._created = Created(self._number)
        self._work(lambda: self._launch(created), lambda result, error: self._launched(created, result, error))

    def _launch(self, created: Created) -> tuple[Upgraded, list[str]]:
        if self._api is None:
            plan = self._plan
            self._api = connect(plan.kubeconfig, plan.context, plan.target.namespace, plan.insecure)
        return launch.start(self._api, self._plan, created, self._say)

    def _launched(self, created: Created, result: Any, error: BaseException | None) -> None:
        if error or self._ending:
            self._failed(created, error)
            return
        upgraded, notes = result
        for note in notes if not self._since else ():
            self._say("say", note)
        channels = Exec(upgraded.protocol)
        theirs = self._carry(upgraded, channels)

        def sync() -> None:
            payload.read_sync(theirs.fileno(), READY_TIMEOUT)

        def done(_result: Any, error: BaseException | None) -> None:
            if error or self._ending:
                theirs.close()
                self._failed(created, ready.why(channels, error) if error else None)
                return
            self._since = 0.0
            self._tell("attached", theirs, text=created.where)

        theirs.sendall(payload.preamble())  # the buffer has room for it
        self._work(sync, done)

    def _failed(self, created: Created, error: BaseException | None) -> None:
        """No agent from this try. Its remains are removed before anything is said."""
        def removed(_result: Any, _error: BaseException | None) -> None:
            if self._ending:
                self._end()
            elif not self._since:
                self._give_up(error)
            elif time.monotonic() - self._since < AGAIN_SECONDS and _passing(error):
                self._loop.later(AGAIN_PAUSE, self._start)
            else:
                self._tell("lost", text=f"no other agent could be started: {error}")

        self._remove(created, removed)

    def _give_up(self, error: BaseException | None) -> None:
        if isinstance(error, ClusterError):
            self._tell("failed", cause=error.cause, cure=error.cure)
        else:
            self._tell("failed", cause=f"the agent could not be started: {error!r}", cure="run again with --debug to see more")

    def _again(self, why: str) -> None:
        """The session has lost the agent."""
        self._since = time.monotonic()
        self._say("say", f"the agent is lost ({why}): all connections are reset, another one is started")
        self._close_relays(why)
        self._remove(self._created, lambda *_: self._end() if self._ending else self._start())

    # -- streams --

    def _carry(self, upgraded: Upgraded, channels: Channels) -> socket.socket:
        """The session's end of a stream that a relay carries."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

        def ended(_reason: str) -> None:
            self._relays.discard(relay)
            if self._removed and not self._relays:
                self._loop.stop()

        relay = Relay(self._loop, upgraded.sock, upgraded.leftover, channels, ours, ended)
        self._relays.add(relay)
        return theirs

    def _bulk(self, port: int) -> None:
        api, created = self._api, self._created
        assert api is not None

        def done(result: Any, error: BaseException | None) -> None:
            if error:
                self._tell("nobulk", text=str(error))
                return
            upgraded, channels = result
            if created is not self._created or self._ending:
                upgraded.sock.close()
            else:
                self._tell("bulk", self._carry(upgraded, channels))

        self._work(lambda: launch.forward(api, created, port), done)

    def _close_relays(self, why: str) -> None:
        for relay in list(self._relays):
            relay.close(why)

    # -- the session --

    def _told(self, _events: int) -> None:
        try:
            data = self._sock.recv(MAX_MESSAGE)
        except OSError:
            data = b""
        if not data:
            self._loop.unwatch(self._sock.fileno())
            self._ending = True
            self._created.cancelled.set()
            if not self._busy:
                self._remove(self._created, lambda *_: self._end())
            return
        message = json.loads(data)
        if message["op"] == "bulk":
            self._bulk(message["port"])
        elif message["op"] == "again":
            self._again(message["why"])

    def _tell(self, event: str, stream: socket.socket | None = None, **args: Any) -> None:
        data = json.dumps({"ev": event, **args}).encode()
        with contextlib.suppress(OSError):
            if stream is None:
                self._sock.send(data)
            else:
                socket.send_fds(self._sock, [data], [stream.fileno()])
        if stream is not None:
            stream.close()

    def _say(self, kind: str, text: str) -> None:
        self._tell(kind, text=text)

    # -- work --

    def _work(self, fn: Any, done: Any) -> None:
        def finished(result: Any, error: BaseException | None) -> None:
            self._busy -= 1
            done(result, error)
            if self._ending and not self._busy:
                self._remove(self._created, lambda *_: self._end())

        self._busy += 1
        self._loop.offload(fn, finished)

    def _remove(self, created: Created, then: Any) -> None:
        api = self._api
        if api is None or not created.job:
            then(None, None)
            return
        self._loop.offload(lambda: launch.remove(api, created), then)

    def _end(self) -> None:
        """All is removed; the streams say goodbye, which relay.py bounds."""
        self._removed = True
        if not self._relays:
            self._loop.stop()


def _passing(error: BaseException | None) -> bool:
    """May it be otherwise in a moment? What is refused for good is not asked again."""
    if isinstance(error, ApiError):
        return error.status not in (401, 403)
    return not isinstance(error, Cancelled)

