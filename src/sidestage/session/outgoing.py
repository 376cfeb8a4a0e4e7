"""Outgoing connections, laptop half: a channel to the agent, and the loopback socket that stands for the remote end."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable

from sidestage.protocol.messages import Buffer
from sidestage.session.attempt import Attempt
from sidestage.session.broker import Args, BrokerServer, Handler, Reply
from sidestage.session.dns_stream import DnsStream
from sidestage.session.feed import Feed
from sidestage.session.here import Here
from sidestage.session.lane import Lane
from sidestage.session.opened import Ended, Opened, Own, Waiting
from sidestage.session.relay import UdpRelay
from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.stream.pump import DatagramPump, SocketPump
from sidestage.trap.network import Network
from sidestage.views import resolve
from sidestage.views.answered import Answered
from sidestage.views.dns import forms
from sidestage.views.names import DNS_PORT, aliases, answers, question

RELAY_CONNECT_TIMEOUT = 10.0  # seconds for trap to connect the program's unix socket, a local matter
MAX_NAMES = 4096  # remembered for the feed


class Outgoing:
    def __init__(
        self, loop: Loop, links: Links, broker: BrokerServer, feed: Feed, network: Network, lane: Callable[[], Lane | None]
    ) -> None:
        """`lane` tells who carries TCP connections, if not we ourselves."""
        self._loop, self._links, self._broker, self._feed, self._network = loop, links, broker, feed, network
        self._lane = lane
        self.tells_names = False  # does trap want to hear which address is whose?
        self.here: Here | None = None  # some names are this machine's
        self.search: tuple[str, ...] = ()  # the target's, when names matter
        self._answered = Answered(time.monotonic)
        self._names: dict[str, str] = {}  # address -> the name that it was last the answer to
        broker.on("connect", self._when_up(self._connect))
        broker.on("udp", self._when_up(self._udp))
        broker.on("unix", self._when_up(self._unix))
        broker.on("refuse", self._refuse)
        self._refused: dict[int, UdpRelay] = {}  # relays whose program is to be told; trap is looking for its socket

    def moves(self, maker: socket.socket, ident: tuple[int, int], pid: int) -> None:
        """Into a container's network; `pid` is its first process."""
        self._network.enter(maker, ident)
        if self.here:
            self.here.moves(self._network, f"/proc/{pid}/root")

    def _when_up(self, handler: Handler) -> Handler:
        """Between two agents the program's call waits for the second."""
        return lambda args, fds, reply: self._links.when_up(lambda: handler(args, fds, reply))

    def _connect(self, args: Args, fds: list[int], reply: Reply) -> None:
        program = socket.socket(fileno=fds[0])
        host, port = args["host"], args["port"]
        attempt = Attempt(self._feed, "tcp", host=host, port=port, name=self._names.get(host))
        by_name = port == DNS_PORT and (self.here is not None or self.tells_names)

        def connected(opened: Opened, info: Args) -> None:
            with program:
                try:
                    end = _end(self._network, *args["via"])
                except OSError as error:  # no descriptor is left
                    opened.reset()
                    attempt.result(error.errno or 5)
                    reply(error.errno or 5)
                    return
                if not args["held"]:
                    reply(local=info.get("local"))  # first: the program may ask for it as soon as it is connected
                _join(program, end)
            if args["held"]:
                reply(local=info.get("local"))
            attempt.result()
            opened.carry(end, attempt.ended)

        def refused(errno: int) -> None:
            if self.here and by_name:  # the names that are this machine's can be asked for all the same
                connected(_Named(self, link, 0, host), {})
                return
            program.close()
            attempt.result(errno)
            reply(errno)

        lane, link = self._lane(), self._links.carrier()
        if lane and lane.links and not by_name:
            lane.open(host, port, connected, refused)
            return


        def accepted(channel: int, info: Args) -> None:
            connected(_Named(self, link, channel, host) if by_name else Own(self._loop, link, channel), info)

        Waiting(accepted, refused).open(link, "tcp", {"host": host, "port": port})

    def questions(self, link: Link, channel: int, end: socket.socket, server: str, ended: Callable[[], None]) -> None:
        """`end` is the program's connection to a nameserver."""
        DnsStream(self._loop, link, channel, end, server, self.here, self._heard, ended)

    def _udp(self, args: Args, fds: list[int], reply: Reply) -> None:
        host, port = args["host"], args["port"]
        if port != DNS_PORT:
            Attempt(self._feed, "udp", host=host, port=port, name=self._names.get(host)).result()
        heard = self._heard if port == DNS_PORT else lambda _: None
        end = socket.socket(fileno=fds[0])
        UdpRelay(self._loop, self._links, end, (host, port), reply, heard, self._network, self.here, self._answered, self._find)

    def _find(self, relay: UdpRelay) -> None:
        self._refused[relay.port] = relay
        self._broker.event("refused", port=relay.port)

    def _refuse(self, args: Args, fds: list[int], _reply: Reply) -> None:
        relay = self._refused.pop(args["port"], None)
        for fd in fds:
            with socket.socket(fileno=fd) as program:
                if relay:
                    relay.refuse(program)

    def _heard(self, data: Buffer) -> None:
        """An answer for the program, which need not wait until we have read it, unless the decisions of trap depend on it."""
        message = bytes(data)
        if self.tells_names:
            self._learn(message)
        else:
            self._loop.soon(lambda: self._learn(message))

    def _learn(self, message: bytes) -> None:
        found = list(answers(message))
        others = aliases(message) if self.tells_names else []
        for name, address in found:
            if self.tells_names:
                for one in (name, *others):
                    self._tell_name(one, address)
            if len(self._names) >= MAX_NAMES:
                del self._names[next(iter(self._names))]
            self._names[address] = name
        asked = question(message)
        if asked:
            self._feed.tell("dns", name=asked[0], kind=asked[1], addresses=[address for _, address in found], code=message[3] & 15)

    def _tell_name(self, name: str, address: str) -> None:
        for form in forms(name, self.search):
            self._broker.event("name", name=form, address=address)

    def learn_hosts(self, text: str) -> None:
        """A hosts file of the target: who finds a name there asks nobody."""
        for name, address in resolve.all_hosts(text):
            self._tell_name(name, address)

    def _unix(self, args: Args, _fds: list[int], reply: Reply) -> None:
        kind = socket.SOCK_SEQPACKET if args["type"] == "seqpacket" else socket.SOCK_STREAM
        link = self._links.carrier()

        attempt = Attempt(self._feed, "unix", path=args["path"])

        def refused(errno: int) -> None:
            attempt.result(errno)
            reply(errno)

        def connected(channel: int, _info: Args) -> None:
            attempt.result()
            relay = "sidestage-" + secrets.token_hex(16)
            listener = self._network.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
            listener.bind("\0" + relay)
            listener.listen(1)

            def finish() -> None:
                timer.cancel()
                self._loop.unwatch(listener.fileno())
                listener.close()

            def late() -> None:
                finish()
                link.reset(channel)

            def arrived(_: int) -> None:
                try:
                    end, _peer = listener.accept()
                except OSError:  # no descriptor is left
                    late()
                    return
                _pid, uid, _gid = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if uid not in (os.getuid(), 0):  # the name is secret, and this costs nothing
                    end.close()
                    return
                finish()
                pump = DatagramPump if kind == socket.SOCK_SEQPACKET else SocketPump
                pump(self._loop, link, channel, end).start()

            timer = self._loop.later(RELAY_CONNECT_TIMEOUT, late)
            self._loop.watch(listener.fileno(), select.EPOLLIN, arrived)
            reply(relay=relay)

        Waiting(connected, refused).open(link, "unix", {"path": args["path"], "type": args["type"]})


class _Named:
    """An Opened whose queries are looked at; `channel` 0: there is only what is this machine's."""

    def __init__(self, outgoing: Outgoing, link: Link, channel: int, server: str) -> None:
        self._outgoing, self._link, self._channel, self._server = outgoing, link, channel, server

    def carry(self, sock: socket.socket, ended: Ended) -> None:
        self._outgoing.questions(self._link, self._channel, sock, self._server, lambda: ended(0, 0))

    def reset(self) -> None:
        if self._channel:
            self._link.reset(self._channel)


def _end(network: Network, host: str, port: int) -> socket.socket:
    """For our end of a connect() that is in SYN_SENT towards host:port."""
    end = network.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            end.setsockopt(socket.SOL_SOCKET, option, 1)
        end.bind((host, port))
    except OSError:
        end.close()
        raise
    return end


def _join(program: socket.socket, end: socket.socket) -> None:
    """Complete it by simultaneous open (RFC 9293 3.5). If the program has given it up, the end finds nobody, and its pump ends."""
    host, port = program.getsockname()[:2]
    with contextlib.suppress(OSError):
        end.connect((host.removeprefix("::ffff:"), port))
