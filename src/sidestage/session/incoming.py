"""Incoming connections, laptop half: claim what the program listens on, and play each client to it.

Mirrored: the client's bytes only; what the program answers is dropped. Stolen: both ways; a connection that the program
doesn't take is refused at once, and the agent gives it to the target.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sidestage.session.broker import Args, Reply, Told
from sidestage.session.copies import Copies
from sidestage.session.watch import Watch, WatchedPump
from sidestage.stream.connecting import Connecting
from sidestage.stream.link import Done, Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.trap.network import Network
from sidestage.views.incoming import IncomingRules

if TYPE_CHECKING:
    from sidestage.tls.local import LocalTls

TAKE_TIMEOUT = 1.0  # seconds for the program's backlog, a local matter; then the target answers
_PAST = {"mirror": "mirrored", "steal": "stolen"}
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Incoming:
    def __init__(
        self, loop: Loop, links: Links, broker: Told, rules: IncomingRules, watch: Watch, network: Network
    ) -> None:
        self._loop, self._links, self._broker, self._rules, self._watch = loop, links, broker, rules, watch
        self._network = network
        # The target's port -> the program's real addresses, by IP version; one that takes both is there twice
        self._listeners: dict[int, dict[int, tuple[str, int]]] = {}
        self._kept: set[int] = set()  # claimed though nobody listens
        self._copies = Copies(loop, self.dropped)
        self._told: set[int] = set()  # ports of which the user has heard that connections are dropped
        self._tls: LocalTls | None = None
        broker.on("listen", self._listen)
        broker.on("unlisten", self._unlisten)

    def _listen(self, args: Args, _fds: list[int], reply: Reply) -> None:
        port, (host, real) = self._rules.remote_port(args["port"]), args["real"]
        known = self._listeners.setdefault(port, {})
        subscribed = bool(known) or port in self._kept
        for version in (6,) if host == "::1" else (4, 6) if ":" in host else (4,):
            known[version] = (_WILDCARDS.get(host, host).removeprefix("::ffff:"), real)
        if not subscribed:
            self._links.everywhere(self._rules.mode, *self._claimed(port))
        reply()  # the program's listen() needn't wait for the target

    def _claimed(self, port: int) -> tuple[dict[str, Any], Done]:
        """A claim to `port`, and what becomes of the answer."""
        def done(result: Args, _raw: bytes, code: int) -> None:
            if code == errno.EBUSY and self._rules.on_conflict == "abort":
                self._broker.event("ended", text=f"port {port} can't be stolen: {result['text']}\n  --on-conflict wait or override")
            elif code == errno.EINVAL and self._rules.tls_of(port):
                self._broker.event("ended", text=f"port {port} can't be stolen: {result.get('text')}")
            elif code:
                self._broker.event("say", text=f"port {port} can't be {_PAST[self._rules.mode]} ({_why(code, result)}): "
                                   "the program listens, but gets no traffic")  # fmt: skip

        claim = self._claim(port)
        if self._rules.mode == "steal":
            known = self._listeners.get(port, {}).values()
            real = {*known, *((host, at) for _, at in known for host in _WILDCARDS.values())}
            claim |= {"network": list(self._network.ident), "real": [list(each) for each in real]}
            claim |= {"owner": _owner(), "down": self._rules.when_down, "flush": self._rules.flush_connections,
                     "on_conflict": self._rules.on_conflict}  # fmt: skip
            tls = self._rules.tls_of(port)
            claim |= {"tls": dict(tls.spec)} if tls else {}
        return claim, done

    def _claim(self, port: int) -> dict[str, Any]:
        claim: dict[str, Any] = {"port": port}
        if self._rules.mode == "mirror" and self._watch.wish.answers:
            claim["answers"] = True
        only = self._rules.filter_of(port)
        return claim if only is None else claim | {"filter": only}

    def subscribe_all(self, link: Link) -> None:
        """With a new agent, which knows nothing of what was before."""
        for port in self._listeners.keys() | self._kept:
            link.call(self._rules.mode, *self._claimed(port))

    def _unlisten(self, args: Args, _fds: list[int], reply: Reply) -> None:
        port = self._rules.remote_port(args["port"])
        gone = self._listeners.pop(port, None)
        if gone and self._rules.mode == "steal" and self._rules.when_down == "502":
            self._kept.add(port)  # clients shall see that it is down
        elif gone:
            self._links.everywhere("un" + self._rules.mode, self._claim(port), lambda *_: None)
        reply()

    def opened(self, link: Link, channel: int, kind: str, args: dict[str, Any]) -> None:
        """The agent saw a client connect."""
        if kind == "answer":
            self._watch.answers(link, channel, args)
            return
        known = self._listeners.get(args["port"])
        if kind not in _PAST or not known:
            link.refuse(channel, errno.ECONNREFUSED)
            return
        tls = self._rules.tls_of(args["port"]) if kind == "steal" else None
        if (tls is None) != (args.get("tls") is None):
            link.refuse(channel, errno.EPROTO)
            return
        real = known.get(6 if ":" in args["peer"][0] else 4) or next(iter(known.values()))
        if kind == "mirror" and not self._copies.room(args["port"]):
            link.refuse(channel, errno.EAGAIN)
            return
        try:
            sock = self._connect(real, args)
        except OSError as error:  # no descriptor or no port is left
            link.refuse(channel, error.errno or errno.ECONNREFUSED)
            if kind == "mirror":
                self.dropped(args["port"])
            return
        if kind == "mirror":
            link.accept(channel, {})
            self._copies.start(link, channel, args["port"], sock, self._watch.watched(args, kind))
        elif tls and tls.local is not None:
            self._meet(link, channel, sock, args, tls.local)
        else:
            first = (lambda data: self._answered(args["port"], data)) if tls and args["tls"]["protocol"] == "h2" else None

            def taken() -> None:
                link.accept(channel, {})
                WatchedPump(self._loop, link, channel, sock, self._watch.watched(args, kind), first).start()

            Connecting(self._loop, link, channel, sock, TAKE_TIMEOUT, taken)

    def _meet(self, link: Link, channel: int, sock: socket.socket, args: Args, given: Mapping[str, Any]) -> None:
        """The program gets it encrypted, as it would have from the client."""
        from sidestage.session.tls import Handshake, TlsPump
        from sidestage.tls.local import Delivery, LocalTls

        self._tls = tls = self._tls or LocalTls(Delivery(**given))
        port, name, protocol = args["port"], str(args["tls"]["name"]), str(args["tls"]["protocol"])
        try:
            engine = tls.engine(name, protocol)
        except ValueError:  # no name at all: the target's program may know what to make of it
            sock.close()
            link.refuse(channel, errno.EPROTO)
            return

        def say(why: str) -> None:
            text = f"port {port}: the local program isn't reached over TLS, and the target answers instead: {why}"
            self._broker.event("say", text=text)

        def done(inside: bytes) -> None:
            why = tls.refusal(engine, protocol)
            if why:
                say(why)
                sock.close()
                link.refuse(channel, errno.ECONNREFUSED)
                return
            link.accept(channel, {})
            TlsPump(self._loop, link, channel, sock, self._watch.watched(args, "steal"), engine, inside).start()

        def failed() -> None:
            say(f"{engine.why}. If it speaks no TLS, set feature.network.incoming.tls.delivery to plain")

        def connected() -> None:
            Handshake(self._loop, link, channel, sock, engine, TAKE_TIMEOUT, done, failed)

        Connecting(self._loop, link, channel, sock, TAKE_TIMEOUT, connected)

    def _answered(self, port: int, data: bytes) -> None:
        """A program that gets HTTP/2 in plain."""
        if not data.startswith(b"\0"):  # as SETTINGS do, of less than 64 KiB
            self._broker.event(
                "say",
                text=f"port {port}: the target's clients speak HTTP/2 with it, which the local program doesn't know in plain; "
                "take it from them with feature.network.incoming.tls.alpn: [http/1.1]",
            )

    def _connect(self, real: tuple[str, int], args: Args) -> socket.socket:
        family = socket.AF_INET6 if ":" in real[0] else socket.AF_INET
        sock = self._network.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind((real[0], 0))
            # Sent before the connection exists: trap has it when the program's accept() asks who it is.
            self._broker.event("peer", port=sock.getsockname()[1], addr=args["peer"], local=args["local"])
            with contextlib.suppress(BlockingIOError):
                sock.connect(real)
        except OSError:
            sock.close()
            raise
        return sock

    def dropped(self, port: int) -> None:
        """A mirrored connection was not told to the program, or not to its end. The user hears it once a port."""
        if port not in self._told:
            self._told.add(port)
            self._broker.event(
                "say",
                text=f"mirror of port {port}: connections are dropped, as the local program is too slow or packets were lost; "
                "the target is not affected",
            )

    def noticed(self, name: str, args: dict[str, Any]) -> bool:
        """What the agent says of claims; False if it is about something else."""
        if name == "steal.lost":
            self._broker.event("say", text=f"port {args['port']} is no longer stolen: {args['text']}")
        elif name == "steal.waiting":
            self._broker.event("say", text=f"port {args['port']} is {args['text']}: waiting until it is free")
        return name.startswith("steal.")


def _owner() -> str:
    """Who has the port, as others are told."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def _why(code: int, result: Args) -> str:
    if code == errno.EPERM:
        return "the agent lacks CAP_NET_RAW or CAP_NET_ADMIN there"
    return str(result.get("text") or os.strerror(code).lower())
