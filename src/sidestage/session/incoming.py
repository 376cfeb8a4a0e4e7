"""Incoming connections, laptop half: subscribe what the program listens on, and play each mirrored client to it."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from sidestage.session.broker import Args, BrokerServer, Reply
from sidestage.stream.link import Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.stream.pump import SocketPump
from sidestage.views.incoming import IncomingRules

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Incoming:
    def __init__(self, loop: Loop, links: Links, broker: BrokerServer, rules: IncomingRules) -> None:
        self._loop, self._links, self._broker, self._rules = loop, links, broker, rules
        # The target's port -> the program's real addresses, by IP version; one that takes both is there twice
        self._listeners: dict[int, dict[int, tuple[str, int]]] = {}
        broker.on("listen", self._listen)
        broker.on("unlisten", self._unlisten)

    def _listen(self, args: Args, _fds: list[int], reply: Reply) -> None:
        port, (host, real) = self._rules.remote_port(args["port"]), args["real"]
        known = self._listeners.setdefault(port, {})
        subscribed = bool(known)
        for version in (6,) if host == "::1" else (4, 6) if ":" in host else (4,):
            known[version] = (_WILDCARDS.get(host, host).removeprefix("::ffff:"), real)
        if not subscribed:
            self._subscribe(port)
        reply()  # the program's listen() needn't wait for the target

    def _subscribe(self, port: int) -> None:
        def done(_result: Args, _raw: bytes, errno: int) -> None:
            if errno:
                self._broker.event(
                    "say",
                    text=f"port {port} can't be mirrored ({_why(errno)}): the program listens, but gets no traffic",
                )

        self._links.call(self._rules.mode, {"port": port}, done)

    def subscribe_all(self) -> None:
        """With a new agent, which knows nothing of what was before."""
        for port in self._listeners:
            self._subscribe(port)

    def _unlisten(self, args: Args, _fds: list[int], reply: Reply) -> None:
        port = self._rules.remote_port(args["port"])
        if self._listeners.pop(port, None):
            self._links.call("un" + self._rules.mode, {"port": port}, lambda *_: None)
        reply()

    def opened(self, link: Link, channel: int, kind: str, args: dict[str, Any]) -> None:
        """The agent saw a client connect."""
        known = self._listeners.get(args["port"])
        if kind != "mirror" or not known:
            link.refuse(channel, 111)
            return
        real = known.get(6 if ":" in args["peer"][0] else 4) or next(iter(known.values()))
        sock = socket.socket(socket.AF_INET6 if ":" in real[0] else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind((real[0], 0))
        # Sent before the connection exists: trap has it when the program's accept() asks who it is.
        self._broker.event("peer", port=sock.getsockname()[1], addr=args["peer"], local=args["local"])
        try:
            with contextlib.suppress(BlockingIOError):
                sock.connect(real)
        except OSError as error:
            sock.close()
            link.refuse(channel, error.errno or 111)
            return
        link.accept(channel, {})
        SocketPump(self._loop, link, channel, sock, drop_input=True).start()


def _why(errno: int) -> str:
    import os

    return "the agent lacks CAP_NET_RAW there" if errno == 1 else os.strerror(errno).lower()
