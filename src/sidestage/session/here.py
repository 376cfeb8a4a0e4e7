"""Names that are this machine's: its hosts file and its nameservers are asked in the target's stead, one query at a time.

For a container with a network of its own they are the container's, asked from there: an engine's nameserver knows its neighbours.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Sequence

from sidestage.stream.loop import Loop
from sidestage.trap.network import Network
from sidestage.views import resolve
from sidestage.views.dns import NameRules, from_hosts
from sidestage.views.names import DNS_PORT, question, server_failure
from sidestage.views.resolve import Settings

WAIT = 2.0  # seconds for one nameserver before the next is asked; the program's own patience is longer (resolv.conf(5): 5 s)
MAX_ASKED = 256  # queries under way; more are lost, as in any full network queue
MAX_MESSAGE = 65535
RESOLV_CONF, HOSTS = "/etc/resolv.conf", "/etc/hosts"

Done = Callable[[bytes], None]


class Here:
    """Decides for each query, and asks. Until `told` was called nothing is known of the target."""

    def __init__(self, loop: Loop, rules: NameRules) -> None:
        self._loop, self._rules = loop, rules
        self._network, self._root = Network(), ""
        self._of: Settings | None = None  # read late: docker writes a container's file when its first process waits to begin
        self._theirs: set[str] = set()
        self.search: tuple[str, ...] = ()
        self._asked = 0

    def told(self, target: Settings) -> None:
        self._theirs = set(target.nameservers)
        self.search = tuple(domain.lower() for domain in target.search)

    def moves(self, network: Network, root: str) -> None:
        """Into a container's network; its files are at `root`."""
        self._network, self._root = network, root

    def takes(self, query: bytes) -> bool:
        asked = question(query)
        return asked is not None and self._rules.here(asked[0], self.search)

    def ask(self, query: bytes, server: str, done: Done, *, tcp: bool = False) -> None:
        """`server` is whom the program asked: a nameserver of the target has ours in its place. `done` is called once,
        with nothing when nobody answers."""
        asked = question(query)
        known = from_hosts(query, resolve.hosts(_read(f"{self._root}{HOSTS}"), asked[0])) if asked else None
        if known is not None:
            done(known)
        elif self._asked < MAX_ASKED:
            self._asked += 1
            self._of = self._of or resolve.settings(_read(f"{self._root}{RESOLV_CONF}"), [resolve.DEFAULT_SERVER])
            stands = server in self._theirs or server.startswith("127.") or server == "::1"

            def over(answer: bytes) -> None:
                self._asked -= 1
                done(answer)

            _Question(self._loop, self._network, self._of.nameservers if stands else (server,), query, tcp, over)
        else:
            done(b"")


class _Question:
    """One query to one nameserver after the other, until one answers; SERVFAIL when none can be reached."""

    def __init__(self, loop: Loop, network: Network, servers: Sequence[str], query: bytes, tcp: bool, done: Done) -> None:
        self._loop, self._network, self._servers = loop, network, list(servers)
        self._query, self._tcp, self._done = query, tcp, done
        self._silent = False
        self._next()

    def _next(self) -> None:
        while self._servers:
            server = self._servers.pop(0)
            kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
            try:
                self._sock = self._network.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
            except OSError:
                continue
            try:
                with contextlib.suppress(BlockingIOError):
                    self._sock.connect((server, DNS_PORT))
                if not self._tcp:
                    self._sock.send(self._query)
            except OSError:
                self._sock.close()
                continue
            self._got = b""
            self._loop.watch(self._sock.fileno(), select.EPOLLOUT if self._tcp else select.EPOLLIN, self._ready)
            self._timer = self._loop.later(WAIT, self._late)
            return
        self._done(b"" if self._silent else server_failure(self._query))

    def _ready(self, events: int) -> None:
        try:
            if self._tcp and events & select.EPOLLOUT:
                self._sock.sendall(struct.pack("!H", len(self._query)) + self._query)  # fits a new connection's buffer
                self._loop.change(self._sock.fileno(), select.EPOLLIN)
                return
            data = self._sock.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:  # refused, by RST or ICMP
            data = b""
        if self._tcp:
            self._got += data
            whole = len(self._got) >= 2 and len(self._got) >= 2 + struct.unpack_from("!H", self._got)[0]
            answer = self._got[2:] if whole else b""
        else:
            answer = data
        if answer[:2] == self._query[:2]:
            self._end()
            self._done(answer)
        elif not data:
            self._end()
            self._next()

    def _late(self) -> None:
        self._silent = True
        self._end()
        self._next()

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
