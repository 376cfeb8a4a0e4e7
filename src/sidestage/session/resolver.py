"""Looks names up as a program in the target would: its hosts, its resolv.conf, its nameservers, from its network.

A question for both kinds of address goes to one nameserver after the other, over UDP and over TCP where the answer is cut.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from sidestage.protocol.messages import Buffer
from sidestage.session.recent import Recent
from sidestage.stream.link import Args
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.views import resolve
from sidestage.views.names import DNS_PORT, answers
from sidestage.views.resolve import AAAA, NOT_FOUND, A, Settings

Found = Callable[[list[str], str], None]  # addresses, IPv4 first; or none, and why
Heard = Callable[[dict[int, bytes], bool], None]  # kind -> answer; is one of them cut?


class Resolver:
    def __init__(self, loop: Loop, links: Links, asked: Recent, nameservers: Callable[[], list[str]]) -> None:
        """`nameservers` are those that the agent named, where the target's files can't be read."""
        self._loop, self._links, self._asked, self._nameservers = loop, links, asked, nameservers

    def resolve(self, name: str, found: Found) -> None:
        """`found` is called once."""
        if resolve.is_address(name):
            found([name], "")
            return

        def read(hosts: str) -> None:
            known = resolve.hosts(hosts, name)
            if known:
                found(known, "")
            else:
                self.settings(lambda of: self._ask(resolve.candidates(name, of), of, found))

        self.file("/etc/hosts", read)

    def settings(self, done: Callable[[Settings], None]) -> None:
        self.file("/etc/resolv.conf", lambda text: done(resolve.settings(text, self._nameservers())))

    def file(self, path: str, done: Callable[[str], None]) -> None:
        """`done` is told the text, empty where it can't be read."""
        def read(result: Args, raw: Buffer, _errno: int) -> None:
            if result.get("handle"):
                self._links.call("close", {"handle": result["handle"]}, lambda *_: None)
            done(bytes(raw).decode(errors="replace"))

        self._asked.call("open", {"path": path, "follow": True}, read)

    def _ask(self, names: list[str], of: Settings, found: Found) -> None:
        tries = [server for _ in range(of.attempts) for server in of.nameservers]
        if not tries:
            found([], "the target has no nameserver")
            return
        self._try(names, tries, of, found)

    def _try(self, names: list[str], tries: list[str], of: Settings, found: Found, tcp: bool = False) -> None:
        def heard(messages: dict[int, bytes], cut: bool) -> None:
            codes = {message[3] & 15 for message in messages.values()}
            addresses = [address for message in messages.values() for _, address in answers(message)]
            if cut and not tcp:
                self._try(names, tries, of, found, tcp=True)
            elif addresses:
                found(addresses, "")
            elif len(messages) == 2 and codes <= {0, NOT_FOUND}:
                if names[1:]:
                    self._try(names[1:], tries, of, found)
                else:
                    found([], "name not known there")
            elif tries[1:]:
                self._try(names, tries[1:], of, found)
            else:
                found([], "its nameservers don't answer" if not messages else "its nameservers can't say")

        try:
            Question(self._loop, self._links, tries[0], names[0], of.timeout, heard, tcp=tcp)
        except ValueError as error:
            found([], str(error))


class Question:
    """One name, both kinds, one nameserver; what came until all has come or the time is over."""

    def __init__(
        self, loop: Loop, links: Links, server: str, name: str, timeout: float, heard: Heard, *, tcp: bool = False
    ) -> None:
        """Raises ValueError."""
        self._heard, self._tcp, self._rest, self._over = heard, tcp, b"", False
        self._messages: dict[int, bytes] = {}
        first = random.randrange(1 << 16)
        self._idents = {first: A, first ^ 1: AAAA}
        self._queries = [resolve.query(name, kind, ident) for ident, kind in self._idents.items()]
        self._timer = loop.later(timeout, self._end)
        self._link = links.carrier()
        self._channel = self._link.open("tcp" if tcp else "udp", {"host": server, "port": DNS_PORT}, self)

    def on_accepted(self, info: Args) -> None:
        for query in self._queries:
            if self._tcp:
                self._link.send(self._channel, struct.pack("!H", len(query)) + query)
            else:
                self._link.send(self._channel, query, record=True)

    def on_data(self, data: Buffer) -> None:
        self._link.consumed(self._channel, len(data))
        if not self._tcp:
            self._take(bytes(data))
            return
        self._rest += bytes(data)
        while len(self._rest) >= 2 and len(self._rest) >= 2 + (size := struct.unpack_from("!H", self._rest)[0]):
            message, self._rest = self._rest[2 : 2 + size], self._rest[2 + size :]
            self._take(message)

    def _take(self, message: bytes) -> None:
        if len(message) < 12 or not message[2] & 0x80:
            return
        kind = self._idents.get(struct.unpack_from("!H", message)[0])
        if kind is not None:
            self._messages[kind] = message
            if len(self._messages) == len(self._idents):
                self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self._link.reset(self._channel)
            ordered = {kind: self._messages[kind] for kind in (A, AAAA) if kind in self._messages}
            self._heard(ordered, any(message[2] & 2 for message in ordered.values()))

    def _gone(self) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self._heard(self._messages, False)

    def on_refused(self, errno: int, text: str) -> None:
        self._gone()

    def on_reset(self) -> None:
        self._gone()

    def on_eof(self) -> None:
        self._end()

    def on_credit(self) -> None:
        return
