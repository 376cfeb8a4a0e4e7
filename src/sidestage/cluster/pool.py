"""The process that keeps the Jobs which services of one `sidestage up` share: one a node, made ahead, lent, removed after the last.

It starts no agents: each session's keeper execs its own into the container that it was lent, so that what becomes of one service is
nothing to the others. It ends when `up` does, however that ends; what it can't remove any more goes by itself (guard.py, TTL).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sidestage.cluster import child, launch, sharing
from sidestage.cluster.api import Api
from sidestage.cluster.connect import connect
from sidestage.cluster.errors import ClusterError
from sidestage.cluster.launch import Created
from sidestage.cluster.lease import MAX_MESSAGE, address
from sidestage.cluster.plan import Plan
from sidestage.cluster.sharing import Access, Want
from sidestage.cluster.targets import resolve
from sidestage.stream.loop import Loop, Timer
from sidestage.targets.spec import TargetSpec

FIRST = 15.0  # seconds that a Job which was made ahead waits for somebody: each logs in for himself. Less than job.PATIENCE
LINGER = 6.0  # seconds that a Job stays when nobody has it: a service may be starting again. Less than job.ANOTHER
PLAN_SECONDS = 5.0  # for all targets to be found; who asks meanwhile waits
END_SECONDS = 15.0  # for the services to end, once `up` has
MAX_LEASES = 500  # replicas of fifty services

Done = Callable[[Any, BaseException | None], None]


def start(pool: str, plans: Sequence[Plan], debug: bool = False) -> socket.socket:
    """Fork it; it ends when what we return does. It has logged in by then, which may have asked questions on the terminal."""
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    listener.bind(address(pool))
    listener.listen(64)

    def keep() -> None:
        ours.close()
        run(theirs, listener, pool, plans, debug)

    child.fork(keep, debug)
    listener.close()
    theirs.close()
    ours.recv(1)
    return ours


def run(sock: socket.socket, listener: socket.socket, pool: str, plans: Sequence[Plan], debug: bool) -> None:
    low = 3
    for kept in sorted((sock.fileno(), listener.fileno())):
        os.closerange(low, kept)
        low = kept + 1
    os.closerange(low, min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 16))
    apis: dict[Access, Api] = {}
    for access in dict.fromkeys(map(sharing.access, plans)):
        with contextlib.suppress(ClusterError):  # the service says it
            api = connect(*access)
            api.log_in()
            apis[access] = api
    child.detach(debug)
    sock.send(b"x")
    Pool(sock, listener, pool, plans, apis).run()


@dataclass(slots=True, eq=False)
class _Lease:
    sock: socket.socket
    want: Want | None = None
    job: _Job | None = None

    def tell(self, event: str, **args: Any) -> None:
        with contextlib.suppress(OSError):
            self.sock.send(json.dumps({"ev": event, **args}).encode())


@dataclass(slots=True, eq=False)
class _Job:
    want: Want  # with all rights that it has
    created: Created
    ready: bool = False
    doing: str = ""  # until then
    leases: set[_Lease] = field(default_factory=set)
    timer: Timer | None = None


class Pool:
    def __init__(
        self, sock: socket.socket, listener: socket.socket, name: str, plans: Sequence[Plan], apis: dict[Access, Api]
    ) -> None:
        self._sock, self._listener, self._name = sock, listener, name
        self._apis, self._connecting = apis, threading.Lock()
        self._loop = Loop()
        self._planned: list[Want] = []
        self._planning = len(plans)
        self._early: list[_Lease] = []  # that asked before all was planned
        self._jobs: list[_Job] = []
        self._leases: set[_Lease] = set()
        self._number = self._busy = 0
        self._cancelled = threading.Event()
        self._ending = self._removing = False
        self._loop.watch(sock.fileno(), select.EPOLLIN, self._up_ended)
        self._loop.watch(listener.fileno(), select.EPOLLIN, self._arrived)
        for plan in plans:
            self._work(partial(self._find, plan), self._found)
        self._loop.later(PLAN_SECONDS, self._begin)

    def run(self) -> None:
        self._loop.run()
        for lease in self._leases:
            lease.sock.close()

    # -- ahead: which targets are on which nodes --

    def _find(self, plan: Plan) -> Want:
        return sharing.want(plan, resolve(self._api(sharing.access(plan)), plan.target).chosen)

    def _found(self, want: Want | None, _error: BaseException | None) -> None:
        """What is wrong with a target, its service says."""
        if want:
            self._planned.append(want)
        self._planning -= 1
        if self._planning <= 0:
            self._begin()

    def _begin(self) -> None:
        if self._planning < 0 or self._ending:
            return
        self._planning = -1
        for want in self._planned:
            if not self._fitting(want):
                self._make(want)
        early, self._early = self._early, []
        for lease in early:
            self._serve(lease)

    # -- leases --

    def _arrived(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.getuid(), 0) or len(self._leases) >= MAX_LEASES:
            sock.close()
            return
        sock.setblocking(False)
        lease = _Lease(sock)
        self._leases.add(lease)
        self._loop.watch(sock.fileno(), select.EPOLLIN, lambda _: self._told(lease))

    def _told(self, lease: _Lease) -> None:
        try:
            data = lease.sock.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            if not data or lease.want:
                raise ValueError("the end, or a second question")
            if data == b"{}":
                lease.tell("jobs", jobs=[self._about(job) for job in self._jobs])
                return
            lease.want = sharing.decode(data)
        except (ValueError, KeyError, TypeError):
            self._drop(lease)
            return
        if self._planning >= 0:
            self._early.append(lease)
        else:
            self._serve(lease)

    def _drop(self, lease: _Lease) -> None:
        if lease not in self._leases:
            return
        self._leases.discard(lease)
        self._loop.unwatch(lease.sock.fileno())
        lease.sock.close()
        if lease.job:
            self._given_back(lease, lease.job)
        self._end_if_done()

    def _serve(self, lease: _Lease) -> None:
        want = lease.want
        if lease not in self._leases or want is None:
            return
        if self._ending:
            lease.tell("failed", cause="`sidestage up` is ending", cure="start it again")
            return
        job = lease.job = self._fitting(want) or self._make(want)
        job.leases.add(lease)
        if job.doing:
            lease.tell("phase", text=job.doing)
        if job.ready:
            self._work(lambda: launch.still_runs(self._api(job.want.access), job.created), partial(self._looked, lease, job))

    def _looked(self, lease: _Lease, job: _Job, runs: bool | None, error: BaseException | None) -> None:
        if error or runs:
            self._grant(lease, job)  # whoever can't ask the API now will hear it from the exec
            return
        job.leases.discard(lease)
        self._forget(job)
        self._serve(lease)

    def _grant(self, lease: _Lease, job: _Job) -> None:
        made = job.created
        lease.tell("granted", job=made.job, pod=made.pod, container=made.container, guard=made.guard)

    def _given_back(self, lease: _Lease, job: _Job) -> None:
        job.leases.discard(lease)
        lease.job = None
        if not job.leases and job.ready and job in self._jobs:
            self._wait(job, LINGER)

    # -- Jobs --

    def _fitting(self, want: Want) -> _Job | None:
        return next((job for job in self._jobs if sharing.fits(want, job.want)), None)

    def _make(self, want: Want) -> _Job:
        self._number += 1
        whole = want.together(self._planned)
        created = Created(self._number, namespace=want.namespace, cancelled=self._cancelled)
        job = _Job(whole, created)
        self._jobs.append(job)
        self._work(lambda: self._create(job), partial(self._made, job))
        return job

    def _create(self, job: _Job) -> None:
        want = job.want

        def say(_kind: str, text: str) -> None:
            job.doing = text
            for lease in list(job.leases):
                lease.tell("phase", text=text)

        plan = Plan(TargetSpec(want.kind, namespace=want.access.namespace), self._name, want.agent, want.features)
        shares = sharing.shares(want, self._planned)
        launch.to_share(self._api(want.access), plan, job.created, want.node, want.target, shares, say)

    def _made(self, job: _Job, _result: None, error: BaseException | None) -> None:
        if job not in self._jobs:  # all was removed meanwhile, perhaps before this came to be
            self._work(lambda: launch.remove(self._api(job.want.access), job.created), lambda *_: None)
        elif error is None:
            job.ready, job.doing = True, ""
            for lease in job.leases:
                self._grant(lease, job)
            if not job.leases:
                self._wait(job, FIRST)
        else:
            unknown = ClusterError(f"the agent could not be started: {error!r}", "run again with --debug to see more")
            told = error if isinstance(error, ClusterError) else unknown
            self._forget(job)
            for lease in job.leases:
                lease.tell("failed", cause=told.cause, cure=told.cure)

    def _wait(self, job: _Job, seconds: float) -> None:
        """Nobody has it; a service that starts again would."""

        def over() -> None:
            if not job.leases and job in self._jobs:
                self._forget(job)

        if job.timer:
            job.timer.cancel()
        job.timer = self._loop.later(seconds, over)

    def _forget(self, job: _Job) -> None:
        """Nobody gets it any more, and it is removed."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._work(lambda: launch.remove(self._api(job.want.access), job.created), lambda *_: None)

    def _about(self, job: _Job) -> dict[str, Any]:
        sessions = sorted({lease.want.session for lease in job.leases if lease.want})
        return {"job": f"{job.want.namespace}/{job.created.job.rpartition('/')[2]}", "node": job.want.node, "sessions": sessions}

    def _api(self, access: Access) -> Api:
        """In a thread; raises ClusterError."""
        with self._connecting:
            if access not in self._apis:
                self._apis[access] = connect(*access)
            return self._apis[access]

    # -- the end --

    def _up_ended(self, _events: int) -> None:
        self._loop.unwatch(self._sock.fileno())
        self._ending = True
        self._cancelled.set()
        self._loop.later(END_SECONDS, self._remove_all)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._ending or self._busy:
            return
        if self._removing:
            self._loop.stop()
        elif not any(lease.want for lease in self._leases):
            self._remove_all()

    def _remove_all(self) -> None:
        """A session whose Job is removed under it ends as well."""
        if not self._removing:
            self._removing = True
            for job in list(self._jobs):
                self._forget(job)
            self._end_if_done()

    def _work(self, fn: Callable[[], Any], done: Done) -> None:
        def finished(result: Any, error: BaseException | None) -> None:
            self._busy -= 1
            done(result, error)
            self._end_if_done()

        self._busy += 1
        self._loop.offload(fn, finished)
