"""The process that carries bulk: port-forwards and their TLS, so that no word of control waits behind them for the processor.

A busy process has its share of a busy processor and waits for more, and all that it does waits with it; the keeper, which carries
control and little else, is seldom busy, so it has its turn at once. The carrier is a fork of the keeper with a client of its own
that is logged in; it ends with the keeper. Between both is a SOCK_SEQPACKET of JSON objects:

| to the carrier | |
|---|---|
| `bulk {number, path, port}` + stream | connect the stream to a port of a pod |
| `drop {}` | end all streams: their agent is lost |

Its answer to `bulk`: `{number, error}`, which is empty when the stream is connected.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from sidestage.cluster import launch
from sidestage.cluster.api import Api, ApiError
from sidestage.cluster.relay import Relay
from sidestage.stream.loop import BULK_NICE, Loop

MAX_MESSAGE = 64 << 10
MAX_WAITING = 64  # orders without an answer


def start(api: Api, keep: int, debug: bool) -> socket.socket:
    """Fork it, from a process of one thread; the keeper's end. `keep` is the keeper's descriptor, which is not the carrier's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        os.nice(BULK_NICE)
        os.close(keep)
        _Carrier(theirs, api).run()
    except BaseException:
        if debug:
            import traceback

            traceback.print_exc()
    finally:
        os._exit(0)


class Orders:
    """The keeper's side. `done(error)` comes once for each stream."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop, self._sock = loop, sock
        self._waiting: dict[int, Callable[[str], None]] = {}
        self._number = 0
        loop.watch(sock.fileno(), select.EPOLLIN, self._answered)

    def bulk(self, path: str, port: int, stream: socket.socket, done: Callable[[str], None]) -> None:
        self._number += 1
        message = json.dumps({"op": "bulk", "number": self._number, "path": path, "port": port}).encode()
        try:
            if len(self._waiting) >= MAX_WAITING:
                raise OSError
            socket.send_fds(self._sock, [message], [stream.fileno()])
        except OSError:
            self._loop.soon(lambda: done("the process that carries it has ended"))
        else:
            self._waiting[self._number] = done

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(b'{"op": "drop"}')

    def _answered(self, _events: int) -> None:
        try:
            data = self._sock.recv(MAX_MESSAGE)
        except OSError:
            data = b""
        if data:
            answer = json.loads(data)
            self._waiting.pop(answer["number"])(answer["error"])
            return
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done("the process that carries it has ended")


class _Carrier:
    def __init__(self, sock: socket.socket, api: Api) -> None:
        self._sock, self._api = sock, api
        self._loop = Loop()
        self._relays: set[Relay] = set()
        self._ending = False
        self._loop.watch(sock.fileno(), select.EPOLLIN, self._ordered)

    def run(self) -> None:
        self._loop.run()

    def _ordered(self, _events: int) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._sock, MAX_MESSAGE, 1)
        except OSError:
            data, fds = b"", []
        if not data:  # the keeper's end is ours, as soon as the streams have said goodbye, which relay.py bounds
            self._loop.unwatch(self._sock.fileno())
            self._ending = True
            self._end_if_done()
            return
        order = json.loads(data)
        if order["op"] == "drop":
            for relay in list(self._relays):
                relay.close("the agent is lost")
        else:
            self._connect(order["number"], order["path"], order["port"], socket.socket(fileno=fds[0]))

    def _connect(self, number: int, path: str, port: int, stream: socket.socket) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            if error:
                stream.close()
                forbidden = isinstance(error, ApiError) and error.status == 403
                self._answer(number, "you may not create pods/portforward" if forbidden else str(error) or repr(error))
                return
            upgraded, channels = result
            relay = Relay(self._loop, upgraded.sock, upgraded.leftover, channels, stream, lambda _reason: self._ended(relay))
            self._relays.add(relay)
            self._answer(number, "")

        self._loop.offload(lambda: launch.forward(self._api, path, port), done)

    def _answer(self, number: int, error: str) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(json.dumps({"number": number, "error": error}).encode())

    def _ended(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._ending and not self._relays:
            self._loop.stop()
