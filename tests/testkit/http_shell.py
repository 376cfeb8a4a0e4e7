"""A plain shell around routers: a thread that listens, connects and carries orders out; programs are addresses."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sidestage.http.orders import CLIENT, Close, Eof, Note, Open, Order, Pause, Reset, Resume, Rule, Send, Splice, Timer
from sidestage.http.router import Router

HIGH, LOW = 256 << 10, 64 << 10
_RST = struct.pack("ii", 1, 0)


class Wire:
    def __init__(self, number: int, sock: socket.socket, connected: bool) -> None:
        self.number, self.sock, self.connected = number, sock, connected
        self.out = bytearray()
        self.eof = self.ended = self.closing = self.paused = self.full = self.gone = False


class Connection:
    def __init__(self, shell: Shell, sock: socket.socket) -> None:
        self.shell = shell
        self.router: Any = Router(shell.rules)
        self.wires: dict[int, Wire] = {CLIENT: Wire(CLIENT, sock, True)}
        self.spliced: int | None = None
        self.deadline = 0.0
        shell.watch(self, self.wires[CLIENT])
        self.do(self.router.start())

    def do(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Send(to, data):
                    if to in self.wires:
                        self.wires[to].out += data
                        self.flush(self.wires[to])
                case Open(to):
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.wires[to] = Wire(to, sock, False)
                    with contextlib.suppress(BlockingIOError):
                        sock.connect(self.shell.programs[to])
                    self.shell.watch(self, self.wires[to])
                case Eof(to):
                    if to in self.wires:
                        self.wires[to].eof = True
                        self.flush(self.wires[to])
                case Close(to):
                    wire = self.wires.pop(to)
                    wire.closing = True
                    self.flush(wire)
                case Reset(to):
                    self.reset(self.wires.pop(to, None))
                case Splice(to):
                    self.spliced = to
                    for wire in self.wires.values():
                        wire.paused = False
                        self.shell.watch(self, wire)
                case Pause(source) | Resume(source):
                    self.wires[source].paused = isinstance(order, Pause)
                    self.shell.watch(self, self.wires[source])
                case Timer(seconds):
                    self.deadline = time.monotonic() + seconds if seconds else 0.0
                case Note(_, text):
                    self.shell.notes.append(text)

    def reset(self, wire: Wire | None) -> None:
        if wire is not None and not wire.gone:
            with contextlib.suppress(OSError):
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            self.drop(wire)

    def drop(self, wire: Wire) -> None:
        if not wire.gone:
            wire.gone = True
            self.shell.unwatch(wire)
            wire.sock.close()
            if self.wires.get(wire.number) is wire:
                del self.wires[wire.number]

    def flush(self, wire: Wire) -> None:
        if wire.gone or not wire.connected:
            return
        try:
            while wire.out:
                del wire.out[: wire.sock.send(wire.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.failed(wire)
            return
        if not wire.out and wire.closing:
            self.drop(wire)
            return
        if not wire.out and wire.eof:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_WR)
            if wire.ended and (self.spliced is not None or self.router.done):
                self.drop(wire)
                return
        self.shell.watch(self, wire)
        if self.spliced is None and wire.number in self.wires and not wire.closing:
            if not wire.full and len(wire.out) > HIGH:
                wire.full = True
                self.do(self.router.blocked(wire.number))
            elif wire.full and len(wire.out) < LOW:
                wire.full = False
                self.do(self.router.ready(wire.number))

    def failed(self, wire: Wire) -> None:
        known = self.wires.get(wire.number) is wire
        connected = wire.connected
        self.drop(wire)
        if not known:
            return
        if self.spliced is not None:
            self.reset(self.wires.get(self.spliced if wire.number == CLIENT else CLIENT))
        elif wire.number == CLIENT:
            self.do(self.router.client_reset())
        else:
            self.do(self.router.peer_reset(wire.number) if connected else self.router.peer_failed(wire.number))

    def ready(self, wire: Wire, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            if not wire.connected:
                if wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.failed(wire)
                    return
                wire.connected = True
            self.flush(wire)
        if events & selectors.EVENT_READ and not wire.gone:
            try:
                data = wire.sock.recv(self.shell.read)
            except BlockingIOError:
                return
            except OSError:
                self.failed(wire)
                return
            self.got(wire, data)

    def got(self, wire: Wire, data: bytes) -> None:
        number = wire.number
        if not data:
            wire.ended = True
            self.shell.watch(self, wire)
        if self.spliced is not None:
            other = self.wires.get(self.spliced if number == CLIENT else CLIENT)
            if other is not None:
                other.out += data
                other.eof = other.eof or not data
                self.flush(other)
            if not data and wire.eof and not wire.out:
                self.drop(wire)
        elif number == CLIENT:
            self.do(self.router.client(data) if data else self.router.client_eof())
        else:
            self.do(self.router.peer(number, data) if data else self.router.peer_eof(number))


class Shell:
    """`programs[0]` is the target's own."""

    def __init__(self, rules: Sequence[Rule], programs: Mapping[int, tuple[str, int]], read: int = 65536) -> None:
        self.rules, self.programs, self.read = rules, programs, read
        self.notes: list[str] = []
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.errors: list[BaseException] = []
        self.stopping = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def watch(self, connection: Connection, wire: Wire) -> None:
        if wire.gone:
            return
        events = 0 if wire.paused or wire.ended or wire.closing else selectors.EVENT_READ
        if wire.out or not wire.connected:
            events |= selectors.EVENT_WRITE
        key = self.selector.get_map().get(wire.sock)
        if key is not None and (not events or key.events != events):
            self.selector.unregister(wire.sock)
            key = None
        if key is None and events:
            self.selector.register(wire.sock, events, (connection, wire))

    def unwatch(self, wire: Wire) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(wire.sock)

    def run(self) -> None:
        connections: list[Connection] = []
        try:
            while not self.stopping:
                for key, events in self.selector.select(0.02):
                    if key.fileobj is self.listener:
                        sock, _ = self.listener.accept()
                        sock.setblocking(False)
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        connections.append(Connection(self, sock))
                    elif not key.data[1].gone:
                        key.data[0].ready(key.data[1], events)
                now = time.monotonic()
                for connection in connections:
                    if connection.deadline and now > connection.deadline and connection.spliced is None:
                        connection.deadline = 0.0
                        connection.do(connection.router.timeout())
                connections = [each for each in connections if each.wires]
        except BaseException as error:
            self.errors.append(error)
        finally:
            for each in connections:
                for wire in list(each.wires.values()):
                    each.drop(wire)
            self.listener.close()
            self.selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self.thread.join()
        if self.errors:
            raise self.errors[0]
