"""A port that this agent holds: its listeners and redirect, the claims of all sessions to it, and its connections.

Claims are of one session for all of the port, or of several for what their filters match. While there is a claim new
connections are redirected here. Without one the rules go first, then, when the last redirected connection has ended, the
listeners and the chains.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, Tuple

from sidestage.agent import conntrack, listeners, netlink, redirect
from sidestage.agent.channel_leg import ChannelLeg
from sidestage.agent.legs import RST, SocketLeg
from sidestage.agent.netlink import Netlink
from sidestage.agent.passage import POD, Client, Place, Spliced
from sidestage.agent.target import MARK
from sidestage.agent.whole import Whole
from sidestage.protocol.errors import ProtocolError
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop, Timer

if TYPE_CHECKING:
    from sidestage.agent.terminated import Terminator

ROUND = 64  # connections accepted a wake-up
PAUSE = 0.1  # seconds without accepting when descriptors have run out or there are too many connections
MAX_CLIENTS = 16384  # connections of one port at once
CHECK = 0.25  # seconds between looks whether all has drained
GRACE = 1.5  # seconds in which a handshake that was redirected may still end: one retransmission (RFC 6298 2.1)
IDLE = 5.0  # seconds without bytes after which a drained keep-alive connection is ended, as servers do
DRAIN_LIMIT = 300.0  # seconds for all of them
MAX_RULES = 64  # claims on one port
MAX_NOTES = 100  # lines told to one session
_SO_MARK = 36

Args = Dict[str, Any]


class Claim:
    """What one session wants of a port."""

    def __init__(self, links: Links, args: Args, tls: Optional["Terminator"] = None) -> None:
        self.links, self.tls = links, tls
        self.number = 0
        self.owner = str(args.get("owner", "somebody"))[:200]
        self.since = time.time()
        self.filter: Optional[Args] = args.get("filter")
        self.down = "502" if args.get("down") == "502" else "pass"
        self.probes = bool(args.get("probes"))
        self.flush = bool(args.get("flush"))
        # Where the session's program listens, if that is in this very network: such connections are on their way to it.
        self.real = {(host, port) for host, port in args.get("real", [])} if args.get("network") == _network() else set()
        self.answering = True  # False while the session leaves a connection unanswered
        self.rule: Any = None
        self.noted: Set[str] = set()

    def clashes(self, other: "Claim") -> bool:
        """Could both want the same request, whatever it is? Or do they not agree on TLS?"""
        if self.filter is None or other.filter is None or self.differs(other):
            return True
        return json.dumps(self.filter, sort_keys=True) == json.dumps(other.filter, sort_keys=True)

    def differs(self, other: "Claim") -> bool:
        return not self.tls.same(other.tls) if self.tls else other.tls is not None

    def said(self) -> str:
        return f"{self.owner} since {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(self.since))} UTC"

    def heard(self, answered: bool) -> None:
        self.answering = answered


class Port:
    """Raises OSError when it can't be redirected."""

    def __init__(
        self, loop: Loop, port: int, session: str, drained: Callable[["Port"], None], ways: Tuple[str, ...] = redirect.WAYS
    ) -> None:
        self.loop, self.port = loop, port
        self.claims: List[Claim] = []
        self.rules: List[Any] = []  # of http.router.Rule, in the order of the claims
        self._drained = drained
        self._clients: Dict[int, Client] = {}
        self._numbers = 0
        self._since = 0.0  # when draining began; 0: it hasn't
        self._timer = Timer(lambda: None)
        # The descriptors of a dying process are released from the highest down (task_work_add() in kernel/task_work.c):
        # clients are reset while NAT still works, then the listeners go, and then the table.
        link = Netlink(netlink.NETFILTER)
        # Tracking isn't on yet: what it remembers of redirects that were killed would be done to connections of today.
        for old in listeners.candidates(port)[: listeners.REMEMBERED]:
            if not listeners.taken(old):
                forget(port, old)
        try:
            self._listeners = listeners.listen(port)
        except OSError:
            link.close()
            raise
        self.listener: int = self._listeners[0].getsockname()[1]
        self._lowest = max(listener.fileno() for listener in self._listeners) + 1  # of clients
        try:
            self._redirect, self.warning = redirect.make(loop, link, port, self.listener, session, ways)
        except OSError:
            for listener in self._listeners:
                listener.close()
            raise
        for listener in self._listeners:
            loop.watch(listener.fileno(), select.EPOLLIN, self._acceptor(listener))

    # -- claims --

    def clashing(self, claim: Claim) -> List[Claim]:
        return [other for other in self.claims if other.clashes(claim)]

    def add(self, claim: Claim) -> None:
        """Raises OSError, ValueError for a filter that can't be read."""
        if len(self.claims) >= MAX_RULES:
            raise OSError(errno.ENOSPC, "too many sessions on one port")
        self._numbers += 1
        claim.number = self._numbers
        if claim.filter is not None:
            from sidestage.http.filters import Filter
            from sidestage.http.orders import Rule

            claim.rule = Rule(claim.number, Filter(claim.filter), claim.down)
            self.rules.append(claim.rule)
        self.claims.append(claim)
        try:
            if len(self.claims) == 1:
                self._since = 0.0
                self._timer.cancel()
                self._redirect.start(f"{claim.owner} took port {self.port}")
            if claim.flush:
                self._flush(claim)
        except OSError:
            self.remove(claim)
            raise

    def remove(self, claim: Claim) -> None:
        if claim in self.claims:
            self.claims.remove(claim)
            if claim.rule is not None:
                self.rules.remove(claim.rule)
            if not self.claims:
                self.drain()

    def _flush(self, claim: Claim) -> None:
        from sidestage.agent import sockdiag

        pods = [client.pod for client in self._clients.values() if client.pod is not None and not client.pod.over]
        try:
            sockdiag.flush(self.port, {pod.sock.getsockname()[1] for pod in pods})
        except OSError as error:
            text = f"connections that were there before can't be flushed ({(error.strerror or str(error)).lower()}): they go on"
            claim.links.control.event("warning", {"text": text})

    # -- the end --

    def drain(self) -> None:
        """New connections go to the target; drained() is called when those that came here have ended."""
        if not self._since:
            self._redirect.drain()
            self._since = time.monotonic()
            self._check()

    def _check(self) -> None:
        now = time.monotonic()
        waited = now - self._since
        for client in list(self._clients.values()):
            if now - client.wire.heard > IDLE:
                client.drain()
        if (self._clients or waited < GRACE) and waited < DRAIN_LIMIT:
            self._timer = self.loop.later(CHECK, self._check)
        else:
            self.close()
            self._drained(self)

    def close(self) -> None:
        """At once; what is left is reset."""
        for client in list(self._clients.values()):
            client.wire.reset()
        self._redirect.close()
        forget(self.port, self.listener)
        for listener in self._listeners:
            self.loop.unwatch(listener.fileno())
            listener.close()

    # -- connections --

    def _acceptor(self, listener: socket.socket) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            for _ in range(ROUND):
                if len(self._clients) >= MAX_CLIENTS:
                    self._pause(listener, accept)
                    return
                try:
                    sock, peer = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    self._pause(listener, accept)
                    return
                try:
                    self._intercept(sock, peer)
                except OSError:  # no descriptor is left for its other end
                    sock.close()

        return accept

    def _pause(self, listener: socket.socket, accept: Callable[[int], None]) -> None:
        """They wait in the backlog until there is room again."""
        self.loop.unwatch(listener.fileno())

        def again() -> None:
            if listener.fileno() >= 0:
                self.loop.watch(listener.fileno(), select.EPOLLIN, accept)

        self.loop.later(PAUSE, again)

    def _intercept(self, sock: socket.socket, peer: Tuple[Any, ...]) -> None:
        if sock.fileno() < self._lowest:
            low = sock
            sock = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, self._lowest))
            low.close()
        sock.setblocking(False)
        # However this process ends: a cut answer must not look complete.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        local = listeners.destination(sock, self.port)
        if local[1] != self.port:  # somebody spoke to the listener itself
            sock.close()
            return
        client = Client(self, sock, peer, local, self._ended)
        self._clients[id(client)] = client
        tls = self.claims[0].tls if self.claims else None
        if any(tuple(local[:2]) in claim.real for claim in self.claims):
            self._pass(self, client)
        elif tls is not None:
            from sidestage.agent.terminated import Terminated

            Terminated(self, client, tls)
        else:
            self.enter(self, client)

    def enter(self, place: Place, client: Client) -> None:
        """Make its passage; `place` knows the other ends."""
        if self.rules:
            from sidestage.agent.routed import Routed
            from sidestage.http.router import Router

            Routed(place, client, Router(self.rules))
        elif self.claims:
            claim = self.claims[0]
            Whole(place, client, claim.number, claim.down, not claim.probes)
        else:
            self._pass(place, client)

    def _pass(self, place: Place, client: Client) -> None:
        pod = place.to_pod(None, client)
        client.leg.start()
        client.passage = Spliced(client.leg, pod)

    def _ended(self, client: Client) -> None:
        self._clients.pop(id(client), None)

    def to_pod(self, owner: Any, client: Client) -> SocketLeg:
        """The target's own server, from its own network; never redirected again."""
        family = socket.AF_INET6 if ":" in client.local[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, MARK)
        client.pod = leg = SocketLeg(self.loop, owner, POD, sock)
        leg.connect(client.local)
        return leg

    def to_session(self, owner: Any, number: int, client: Client) -> Optional[ChannelLeg]:
        """None if the session can't take it."""
        claim = next((claim for claim in self.claims if claim.number == number), None)
        if claim is None or not claim.answering or claim.links.control.closed:
            return None
        args = {"port": self.port, "peer": list(client.peer[:2]), "local": list(client.local[:2])}
        if client.inside is not None:
            args["tls"] = client.inside
        try:
            return ChannelLeg(self.loop, owner, number, claim.links.carrier(), args, claim.heard)
        except ProtocolError:  # too many channels
            return None

    def note(self, number: int, text: str) -> None:
        for claim in self.claims:
            if number in (0, claim.number) and text not in claim.noted and len(claim.noted) < MAX_NOTES:
                claim.noted.add(text)
                claim.links.control.event("warning", {"text": f"port {self.port}: {text}"})


def _network() -> List[int]:
    """Identifies the network namespace that we are in."""
    place = os.stat("/proc/thread-self/ns/net")
    return [place.st_dev, place.st_ino]


def forget(port: int, listener: int) -> None:
    """Nothing is sent to that listener any more."""
    try:
        conntrack.forget(port, listener)
    except OSError:
        pass  # a client that uses its own port again within two minutes may be refused once
