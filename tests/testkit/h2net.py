"""A client and programs of HTTP/2, played by the h2 library, around a router; bytes go between them in slices of any size."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from sidestage.http import http2
from sidestage.http.orders import CLIENT, POD, Close, Eof, Open, Order, Pause, Reset, Resume, Rule, Send, Splice, Timer
from sidestage.http.router import Router

Given = dict[h2.settings.SettingCodes | int, int] | None
Headers = list[tuple[bytes, bytes]]


def fields(path: str = "/", method: str = "GET", **more: str) -> Headers:
    pseudo = {":method": method, ":scheme": "http", ":path": path, ":authority": "x"}
    return [(k.encode(), v.encode()) for k, v in {**pseudo, **{k.replace("_", "-"): v for k, v in more.items()}}.items()]


@dataclass
class Message:
    headers: Headers = field(default_factory=list)
    data: bytes = b""
    trailers: Headers = field(default_factory=list)
    interim: list[Headers] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None


class End:
    """One end of an HTTP/2 connection, and what it got on each stream."""

    def __init__(self, client: bool, settings: Given = None, *, read: bool = True) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding=False)
        self.conn = h2.connection.H2Connection(config)
        self.streams: dict[int, Message] = {}
        self.read = read  # gives windows back
        self.goaway: int | None = None
        self.pings = 0
        self.eof = False
        self.client = client
        self.splitter = http2.Splitter()
        self.splitter.limit = http2.MAX_FRAME
        self.conn.initiate_connection()
        if settings:
            self.conn.update_settings(settings)

    def receive(self, data: bytes) -> None:
        if not self.client:
            for event in self.conn.receive_data(data):
                self.on(event)
            return
        for frame in self.splitter.feed(data):
            if self.goaway is None:
                for event in self.conn.receive_data(frame.raw):
                    self.on(event)
            else:
                self.late(frame)

    def late(self, frame: http2.Frame) -> None:
        """The library's client takes nothing behind GOAWAY; what streams are there yet go on by RFC 9113 6.8."""
        message = self.streams.setdefault(frame.stream, Message())
        if frame.kind == http2.HEADERS:
            pairs = _pairs(self.conn.decoder.decode(frame.content(), raw=True))
            message.trailers, message.headers = (pairs, message.headers) if message.headers else ([], pairs)
        elif frame.kind == http2.DATA:
            message.data += frame.content()
        elif frame.kind == http2.RST_STREAM:
            message.reset = frame.number()
        if frame.kind in (http2.HEADERS, http2.DATA) and frame.flags & http2.END_STREAM:
            message.ended = True

    def on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                assert event.stream_id is not None
                self.streams.setdefault(event.stream_id, Message()).headers = _pairs(event.headers)
            case h2.events.InformationalResponseReceived():
                assert event.stream_id is not None
                self.streams.setdefault(event.stream_id, Message()).interim.append(_pairs(event.headers))
            case h2.events.TrailersReceived():
                assert event.stream_id is not None
                self.streams[event.stream_id].trailers = _pairs(event.headers)
            case h2.events.DataReceived():
                assert event.stream_id is not None
                self.streams[event.stream_id].data += event.data
                if self.read and event.flow_controlled_length:
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                assert event.stream_id is not None
                self.streams[event.stream_id].ended = True
            case h2.events.StreamReset():
                assert event.stream_id is not None
                self.streams.setdefault(event.stream_id, Message()).reset = int(event.error_code or 0)
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code or 0)
            case h2.events.PingAckReceived():
                self.pings += 1


class Server(End):
    """Echoes: what it was sent comes back, with its own name and the request's trailers."""

    def __init__(self, name: str, settings: Given = None, **options: Any) -> None:
        super().__init__(False, settings, **options)
        self.name = name
        self.answers = True
        self.backlog: dict[int, bytes] = {}

    def on(self, event: h2.events.Event) -> None:
        super().on(event)
        if isinstance(event, h2.events.StreamEnded) and self.answers:
            assert event.stream_id is not None
            self.answer(event.stream_id)
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for stream in list(self.backlog):
                self.push(stream)

    def answer(self, stream: int) -> None:
        got = self.streams[stream]
        said = [(b"server", self.name.encode()), (b"x-path", dict(got.headers)[b":path"]), (b"x-same", b"same")]
        self.conn.send_headers(stream, [(b":status", b"200"), *said])
        self.backlog[stream] = got.data * 3
        self.push(stream)

    def push(self, stream: int) -> None:
        try:
            data = self.backlog[stream]
            while data:
                room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size, len(data))
                if not room:
                    self.backlog[stream] = data
                    return
                self.conn.send_data(stream, data[:room])
                data = data[room:]
            del self.backlog[stream]
            self.conn.send_headers(stream, [(b"x-trailer", self.name.encode()), *self.streams[stream].trailers], end_stream=True)
        except h2.exceptions.StreamClosedError:
            self.backlog.pop(stream, None)


class World:
    """Everything together. `slice_`: the most bytes that go at once; 0: all."""

    def __init__(
        self, rules: list[Rule], *, slice_: int = 0, client: Given = None, pod: Given = None, mine: Given = None, seed: int = 1
    ) -> None:
        self.router = Router(rules)
        self.random = random.Random(seed)
        self.slice = slice_
        self.client = End(True, client)
        self.given = {POD: pod, 1: mine, 2: None}
        self.servers: dict[int, Server] = {}
        self.old: list[Server] = []
        self.wires: dict[tuple[int, int], bytearray] = {}  # (from, to) -> under way; the router is 99
        self.paused: set[int] = set()
        self.spliced: int | None = None
        self.over = False
        self.timer = 0.0
        self.log: list[str] = []
        self.do(self.router.start())

    @property
    def pod(self) -> Server:
        return self.servers[POD]

    @property
    def mine(self) -> Server:
        return self.servers[1]

    def do(self, orders: list[Order]) -> None:
        for order in orders:
            assert self.spliced is None and not self.over, order
            match order:
                case Send(to, data):
                    assert to == CLIENT or to in self.servers, order
                    self.wires.setdefault((99, to), bytearray()).extend(data)
                case Open(to):
                    assert to not in self.servers
                    self.servers[to] = Server(f"program {to}", self.given[to])
                    self.log.append(f"open {to}")
                case Close(to) | Reset(to) if to != CLIENT:
                    self.settle(to)
                    self.old.append(self.servers.pop(to))
                    self.log.append(f"close {to}")
                case Reset(to):
                    self.over = True
                    self.log.append("reset client")
                case Eof(to):
                    self.settle(to)
                    (self.client if to == CLIENT else self.servers[to]).eof = True
                    self.log.append(f"eof {to}")
                case Splice(to):
                    self.spliced = to
                    self.log.append(f"splice {to}")
                case Pause(source):
                    self.paused.add(source)
                case Resume(source):
                    self.paused.discard(source)
                case Timer(seconds):
                    self.timer = seconds

    def settle(self, to: int) -> None:
        data = bytes(self.wires.pop((99, to), b""))
        if data:
            (self.client if to == CLIENT else self.servers[to]).receive(data)

    def run(self, turns: int = 100_000) -> None:
        """Until nothing is under way."""
        for _ in range(turns):
            ends: dict[int, End] = {CLIENT: self.client, **self.servers}
            for number, end in ends.items():
                data = end.conn.data_to_send()
                if data:
                    self.wires.setdefault((number, 99), bytearray()).extend(data)
            ready = [way for way, data in self.wires.items() if data and way[0] not in self.paused and way[1] != 98]
            if not ready:
                return
            way = self.random.choice(ready)
            wire = self.wires[way]
            size = self.random.randint(1, self.slice) if self.slice else len(wire)
            part = bytes(wire[:size])
            del wire[:size]
            source, to = way
            if to == 99:
                if self.spliced is not None:
                    self.wires.setdefault((99, self.spliced if source == CLIENT else CLIENT), bytearray()).extend(part)
                elif source == CLIENT:
                    self.do(self.router.client(part))
                elif source in self.servers:
                    self.do(self.router.peer(source, part))
            elif to == CLIENT or to in self.servers:
                (self.client if to == CLIENT else self.servers[to]).receive(part)
        raise AssertionError("does not come to rest")

    def ask(self, headers: Headers, data: bytes | None = None, trailers: Headers | None = None) -> int:
        stream = self.client.conn.get_next_available_stream_id()
        self.client.conn.send_headers(stream, headers, end_stream=data is None and trailers is None)
        self.client.streams[stream] = Message()
        if data is not None:
            self.send(stream, data, end=trailers is None)
        if trailers is not None:
            self.client.conn.send_headers(stream, trailers, end_stream=True)
        return stream

    def send(self, stream: int, data: bytes, end: bool = True) -> None:
        conn = self.client.conn
        while data:
            room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, len(data))
            if not room:
                before = len(data)
                self.run()
                assert conn.local_flow_control_window(stream), f"{before} bytes are stuck"
                continue
            conn.send_data(stream, data[:room], end_stream=end and room == len(data))
            data = data[room:]

    def got(self, stream: int) -> Message:
        return self.client.streams[stream]

    def who(self, stream: int) -> str:
        return dict(self.got(stream).headers).get(b"server", b"?").decode()


def _pairs(headers: Any) -> Headers:
    return [(bytes(name), bytes(value)) for name, value in headers]
