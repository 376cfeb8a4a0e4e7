"""The steal of one session: each port it claims is held by this agent, or by another that was there before.

When a holder ends, in whatever way, the others claim anew: one of them holds the port then. A holder that leaves in order
tells them first and goes on redirecting until they have moved, so nothing falls in between.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Callable, Dict, List, Optional, Tuple

from sidestage.agent import mesh, registry
from sidestage.agent.port import Args, Claim, Port
from sidestage.agent.registry import Relay
from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop

RETRY = 0.02  # seconds; between two holders the name is free, or not listening yet
TRIES = 250
HANDOVER = 2.0  # seconds for the others to move
CONFLICTS = ("abort", "wait", "override")


class Wish:
    """A claim that a session made to us, and how it hears of it."""

    def __init__(self, links: Links, call: int, args: Args) -> None:
        self.port, self.args, self.links, self._call = int(args["port"]), args, links, call
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


class Steal:
    def __init__(self, loop: Loop, links: Links, session: str, ways: Tuple[str, ...]) -> None:
        self._loop, self._links, self._session, self._ways = loop, links, session, ways
        self._wishes: Dict[int, Wish] = {}
        self._held: Dict[int, Held] = {}
        self._joined: Dict[int, Joined] = {}
        self._draining: List[Port] = []
        self._ended: Optional[Callable[[], None]] = None

    def steal(self, call: int, args: Args) -> None:
        """Answers `call` when the port is ours or refused. Raises ValueError, KeyError."""
        wish = Wish(self._links, call, args)
        old = self._wishes.get(wish.port)
        if old is not None and not old.gone:
            wish.denied(errno.EEXIST, "already claimed by this session")
            return
        self._wishes[wish.port] = wish
        self._acquire(wish)

    def unsteal(self, call: int, args: Args) -> None:
        wish = self._wishes.pop(args["port"], None)
        if wish is not None:
            self._drop(wish)
        self._links.control.reply(call, {})

    def _drop(self, wish: Wish) -> None:
        wish.gone = True
        held, joined = self._held.get(wish.port), self._joined.pop(wish.port, None)
        if held is not None:
            held.withdraw(wish.links)
        if joined is not None:
            joined.leave()

    def _acquire(self, wish: Wish, tries: int = TRIES) -> None:
        if wish.gone:
            return
        held = self._held.get(wish.port)
        if held is not None:
            held.claim(wish)
            return
        lock = registry.hold(wish.port)
        try:
            if lock is not None:
                self._hold(wish, lock)
            else:
                sock = registry.connect(wish.port)
                self._joined[wish.port] = Joined(self._loop, self._links, sock, wish, self._again)
        except ConnectionRefusedError:
            if not tries:
                self._deny(wish, errno.EBUSY, "its holder neither answers nor ends")
            else:
                self._loop.later(RETRY, lambda: self._acquire(wish, tries - 1))
        except OSError as error:
            self._deny(wish, error.errno or errno.EIO, error.strerror or str(error))

    def _deny(self, wish: Wish, code: int, text: str) -> None:
        self._wishes.pop(wish.port, None)
        wish.denied(code, text)

    def _again(self, wish: Wish) -> None:
        """Its holder has ended, or is about to."""
        self._joined.pop(wish.port, None)
        self._acquire(wish)

    def _hold(self, wish: Wish, lock: socket.socket) -> None:
        port = next((port for port in self._draining if port.port == wish.port), None)
        try:
            if port is None:
                port = Port(self._loop, wish.port, self._session, self._drained, self._ways)
            else:
                self._draining.remove(port)
            held = self._held[wish.port] = Held(self._loop, port, lock, self._released)
        except OSError:
            lock.close()
            raise
        held.claim(wish)

    def _released(self, held: "Held") -> None:
        """Nobody claims the port any more."""
        del self._held[held.port.port]
        self._draining.append(held.port)

    def _drained(self, port: Port) -> None:
        if port in self._draining:
            self._draining.remove(port)
        self._end_if_done()

    def end(self, done: Callable[[], None]) -> None:
        """The session has gone: give all back, and call `done` when nobody's connection passes through here any more."""
        self._ended = done
        for link in list(self._links.bulk):
            link.close("the session is gone")
        for wish in list(self._wishes.values()):
            self._drop(wish)
        self._wishes.clear()
        for held in list(self._held.values()):
            held.leave()
        self._loop.soon(self._end_if_done)

    def _end_if_done(self) -> None:
        if self._ended is not None and not self._held and not self._draining:
            done, self._ended = self._ended, None
            done()


class Held:
    """A port that we hold, and the door for other agents' claims to it."""

    def __init__(self, loop: Loop, port: Port, lock: socket.socket, released: Callable[["Held"], None]) -> None:
        self._loop, self.port, self._lock, self._released = loop, port, lock, released
        self._waiting: List[Tuple[Claim, Wish]] = []
        self._others: List[Links] = []  # to the other agents
        self._open = True
        loop.watch(lock.fileno(), select.EPOLLIN, self._knock)

    def claim(self, wish: Wish) -> None:
        claim = Claim(wish.links, wish.args)
        others = self.port.clashing(claim)
        if others and wish.on_conflict == "wait":
            wish.waits(others[0].said())
            self._waiting.append((claim, wish))
        elif others and wish.on_conflict == "abort":
            wish.denied(errno.EBUSY, f"taken by {others[0].said()}")
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
            for text in (self.port.warning, mesh_said and f"port {self.port.port} is behind {mesh_said}"):
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
                    self.claim(Wish(links, call, args))
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


class Joined:
    """A port that another agent holds: our claim there, and what it hands on to us."""

    def __init__(self, loop: Loop, laptop: Links, sock: socket.socket, wish: Wish, again: Callable[[Wish], None]) -> None:
        self._laptop, self._wish, self._again = laptop, wish, again
        self._moved = self._left = False
        self._relays: List[Relay] = []
        self._fd = fd = sock.detach()
        self._link = Link(
            loop, fd, fd, "laptop", on_call=lambda call, *_: self._link.fail(call, errno.ENOSYS), on_open=self._opened,
            on_event=self._noticed, on_closed=self._closed,
        )  # fmt: skip
        self._link.call("steal", wish.args, self._answered)

    def _answered(self, result: Args, _raw: bytes, code: int) -> None:
        if not code:
            self._wish.granted()
        elif not self._moved and not self._link.closed:
            self._moved = True
            self._wish.denied(code, str(result.get("text", "")))
            self._link.close("denied")

    def _opened(self, channel: int, kind: str, args: Args) -> None:
        if self._left or self._laptop.control.closed:
            self._link.refuse(channel, errno.ECONNREFUSED)
            return
        self._relays.append(Relay(self._link, channel, self._laptop.carrier(), kind, args, self._relayed))

    def _relayed(self, relay: Relay) -> None:
        self._relays.remove(relay)
        if self._left and not self._relays:
            self._link.close("left")

    def _noticed(self, name: str, args: Args) -> None:
        if name == "steal.leaving":
            self._move()
            if not self._link.closed:
                self._link.call("unsteal", {"port": self._wish.port}, lambda *_: None)
        elif name == "steal.lost":
            self._moved = True
            self._wish.denied(errno.EBUSY, str(args.get("text", "")))
        elif not self._laptop.control.closed:
            self._laptop.control.event(name, args)

    def _move(self) -> None:
        if not self._moved:
            self._moved = True
            self._again(self._wish)

    def leave(self) -> None:
        """Our session wants it no more; what it has taken goes on."""
        self._left = self._moved = True
        if not self._link.closed:
            self._link.call("unsteal", {"port": self._wish.port}, lambda *_: None)
            if not self._relays or self._laptop.control.closed:
                self._link.close("left")

    def _closed(self, _reason: str) -> None:
        os.close(self._fd)
        self._move()
