"""A port that this agent holds, from the side of those who claim it: our own session and, through the port's door, others.

A holder that leaves in order tells the others first and goes on redirecting until they have moved, so nothing falls in between.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple

from sidestage.agent import mesh, registry
from sidestage.agent.port import Args, Claim, Port
from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop

if TYPE_CHECKING:
    from sidestage.agent.terminated import Terminator

HANDOVER = 2.0  # seconds for the others to move
CONFLICTS = ("abort", "wait", "override")
_TLS = "whose feature.network.incoming.tls is another: on one port all must name the same certificate and protocols, or none"


class Wish:
    """A claim that a session made to us, and how it hears of it."""

    def __init__(self, links: Links, call: int, args: Args, tls: Optional["Terminator"] = None) -> None:
        self.port, self.args, self.links, self._call = int(args["port"]), args, links, call
        self.tls = tls
        self.on_conflict = args.get("on_conflict", "abort")
        if not 0 < self.port < 65536 or self.on_conflict not in CONFLICTS:
            raise ValueError("not a port, or no way to resolve a conflict")
        self.gone = False

    def granted(self) -> None:
        call, self._call = self._call, 0
        if call:
            self.links.control.reply(call, {})

    def denied(self, code: int, text: str) -> None:
        call, self._call, self.gone = self._call, 0, True
        if call:
            self.links.control.fail(call, code, text)
        else:
            self.links.control.event("steal.lost", {"port": self.port, "text": text})

    def waits(self, text: str) -> None:
        self.links.control.event("steal.waiting", {"port": self.port, "text": text})


def wish_of(links: Links, call: int, args: Args, read: Callable[[str], bytes]) -> Wish:
    """`read` gives files of the target. Raises ValueError, KeyError."""
    if not args.get("tls"):
        return Wish(links, call, args)
    try:
        from sidestage.agent.terminated import Terminator
    except ImportError:  # a Python that was built without OpenSSL
        raise ValueError(
            "TLS can't end there: the agent's Python has no module ssl; name an image whose Python has it in agent.image, or an "
            "interpreter in agent.python"
        ) from None
    return Wish(links, call, args, Terminator(args["tls"], read))


def _unread(_path: str) -> bytes:
    raise ValueError("agents send each other contents, no paths")


class Held:
    """A port that we hold, and the door for other agents' claims to it."""

    def __init__(self, loop: Loop, port: Port, lock: socket.socket, released: Callable[["Held"], None]) -> None:
        self._loop, self.port, self._lock, self._released = loop, port, lock, released
        self._waiting: List[Tuple[Claim, Wish]] = []
        self._others: List[Links] = []  # to the other agents
        self._open = True
        loop.watch(lock.fileno(), select.EPOLLIN, self._knock)

    def claim(self, wish: Wish) -> None:
        claim = Claim(wish.links, wish.args, wish.tls)
        others = self.port.clashing(claim)
        if others and wish.on_conflict == "wait":
            wish.waits(others[0].said())
            self._waiting.append((claim, wish))
        elif others and wish.on_conflict == "abort":
            wish.denied(errno.EBUSY, f"taken by {others[0].said()}" + (f", {_TLS}" if claim.differs(others[0]) else ""))
        else:
            self._grant(claim, wish, others)
        self._release_if_free()

    def _grant(self, claim: Claim, wish: Wish, others: List[Claim]) -> None:
        try:
            self.port.add(claim)
        except OSError as error:
            wish.denied(error.errno or errno.EIO, error.strerror or str(error))
        except ValueError as error:
            wish.denied(errno.EINVAL, str(error))
        else:
            for other in others:
                self.port.remove(other)
                other.links.control.event("steal.lost", {"port": self.port.port, "text": f"taken over by {claim.said()}"})
            wish.granted()
            mesh_said = mesh.detect()
            dated = claim.tls and claim.tls.identity.note and f"the certificate of port {self.port.port} {claim.tls.identity.note}"
            for text in (self.port.warning, mesh_said and f"port {self.port.port} is behind {mesh_said}", dated):
                if text:
                    wish.links.control.event("warning", {"text": text})

    def withdraw(self, links: Links) -> None:
        """All that came over `links`; then it is the turn of those who wait."""
        for claim in [claim for claim in self.port.claims if claim.links is links]:
            self.port.remove(claim)
        waiting = [pair for pair in self._waiting if pair[0].links is not links]
        self._waiting = []
        for claim, wish in waiting:
            if self.port.clashing(claim):
                self._waiting.append((claim, wish))
            else:
                self._grant(claim, wish, [])
        self._release_if_free()

    def _release_if_free(self) -> None:
        if not self.port.claims and not self._waiting and self._open:
            self._open = False
            self._shut_door()
            self.port.drain()
            self._released(self)

    def leave(self) -> None:
        """Our own session is gone: the others move to a holder of their own, which they find by the name being free."""
        self._shut_door()
        for links in self._others:
            links.control.event("steal.leaving", {})
        self._loop.later(HANDOVER, self._force)

    def _force(self) -> None:
        for links in self._others:
            self.withdraw(links)

    # -- other agents --

    def _shut_door(self) -> None:
        if self._lock.fileno() >= 0:
            self._loop.unwatch(self._lock.fileno())
            self._lock.close()

    def _knock(self, _events: int) -> None:
        try:
            sock, _ = self._lock.accept()
        except BlockingIOError:
            return
        if not registry.trusted(sock):
            sock.close()
            return
        fd = sock.detach()

        def called(call: int, op: str, args: Args, _raw: bytes) -> None:
            try:
                if op == "steal":
                    self.claim(wish_of(links, call, args, _unread))
                elif op == "unsteal":
                    self.withdraw(links)
                    link.reply(call, {})
                else:
                    link.fail(call, errno.ENOSYS, op)
            except (KeyError, TypeError, ValueError) as error:
                link.fail(call, errno.EINVAL, repr(error))

        def closed(_reason: str) -> None:
            os.close(fd)
            self._others.remove(links)
            self.withdraw(links)

        link = Link(
            self._loop, fd, fd, "agent", on_call=called, on_event=lambda *_: None, on_closed=closed,
            on_open=lambda channel, *_: link.refuse(channel, errno.EPERM),
        )  # fmt: skip
        links = Links(link)
        self._others.append(links)
