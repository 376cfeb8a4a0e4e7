"""The steal of one session: each port it claims is held by this agent, or by another that was there before.

When a holder ends, in whatever way, the others claim anew: one of them holds the port then (holder.py).
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Callable, Dict, List, Optional, Tuple

from sidestage.agent import registry
from sidestage.agent.holder import Held, Wish, wish_of
from sidestage.agent.port import Args, Port
from sidestage.agent.registry import Relay
from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop

RETRY = 0.02  # seconds; between two holders the name is free, or not listening yet
TRIES = 250


class Steal:
    def __init__(self, loop: Loop, links: Links, session: str, ways: Tuple[str, ...], read: Callable[[str], bytes]) -> None:
        """`read` gives a file of the target."""
        self._loop, self._links, self._session, self._ways, self._read = loop, links, session, ways, read
        self._wishes: Dict[int, Wish] = {}
        self._held: Dict[int, Held] = {}
        self._joined: Dict[int, Joined] = {}
        self._draining: List[Port] = []
        self._ended: Optional[Callable[[], None]] = None

    def steal(self, call: int, args: Args) -> None:
        """Answers `call` when the port is ours or refused. Raises KeyError."""
        try:
            wish = wish_of(self._links, call, args, self._read)
        except ValueError as error:
            self._links.control.fail(call, errno.EINVAL, str(error))
            return
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
        # Another agent may see other files, and may have to go on with ours when it is nobody else's port any more.
        self._link.call("steal", wish.args if wish.tls is None else {**wish.args, "tls": wish.tls.identity.plain()}, self._answered)

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
