"""Answers in an agent's place from a reel: calls as they were answered, connections as they went.

What the program sends is compared with what it sent then. Bytes of a recorded answer are given when as much was sent as before
them then, or when the program waits with something else sent. Requests of the recorded clients come one at a time, each when the
one before it is answered, so that a run is the same each time. What was not recorded is refused, and counted.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import Any

from sidestage.exchange.model import Exchange
from sidestage.exchange.observer import Observer
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import Buffer
from sidestage.record.reel import FIRST, LISTED, Channel, File, Reel, question
from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop

QUIET = 0.5  # seconds without a byte from the program, after which a recorded answer is given all the same
TURN = 10.0  # seconds for the program to answer a request, after which the next one comes all the same

MAX_TOLD = 10_000  # differences of one run

Args = dict[str, Any]


class Player:
    """The agent's end of `stream`; `Loop.run` plays until it closes."""

    def __init__(self, reel: Reel, stream: int) -> None:
        self._reel, self._loop = reel, Loop()
        self._asked: dict[str, int] = {}
        self._handles: dict[int, str] = {}
        self._listed: dict[int, int] = {}
        self._outgoing: dict[tuple[str, str], list[Channel]] = {}
        for kind in ("tcp", "udp", "unix"):
            for channel in reel.of("laptop", kind):
                self._outgoing.setdefault((kind, channel.where), []).append(channel)
        self._clients = reel.of("agent", "mirror") + reel.of("agent", "steal")
        self._answers = {json.dumps(channel.args["peer"]): channel for channel in reel.of("agent", "answer")}
        self._current: _Client | None = None
        self._told = 0
        self.link = Link(
            self._loop, stream, stream, "agent", on_call=self._called, on_open=self._opened,
            on_event=self._noticed, on_closed=lambda _reason: self._loop.stop(),
        )  # fmt: skip

    def run(self) -> None:
        self._loop.run()

    # -- calls --

    def _called(self, call: int, op: str, args: Args, _raw: bytes) -> None:
        try:
            result, raw, code = self._answer(op, args)
        except KeyError:
            result, raw, code = {}, b"", errno.EINVAL
        if code:
            self.link.fail(call, code)
            return
        try:
            self.link.reply(call, result, raw)
        except ProtocolError:
            self.link.fail(call, errno.EMSGSIZE)

    def _answer(self, op: str, args: Args) -> tuple[Args, bytes, int]:
        if op == "open":
            return self._open(args["path"])
        if op in ("read", "readdir", "close"):
            return self._of_handle(op, args)
        if op in ("mirror", "steal"):
            self._loop.later(0.1, lambda: self._next_client(args["port"]))
            return {}, b"", 0
        if op in ("unmirror", "unsteal"):
            return {}, b"", 0
        key = question(op, args)
        known = self._reel.answers.get(key)
        if not known:
            return self._unknown(f"{op} {args.get('path', '')}".strip())
        turn = self._asked.get(key, 0)
        self._asked[key] = turn + 1
        result, raw, code = known[min(turn, len(known) - 1)]
        return ({**result, "bulk": False} if op == "hello" else result), raw, code

    def _unknown(self, what: str) -> tuple[Args, bytes, int]:
        self.tell("missing", what)
        return {}, b"", errno.ENOENT

    def _open(self, path: str) -> tuple[Args, bytes, int]:
        file = self._reel.files.get(path)
        if file is None:
            return self._unknown(f"open {path}")
        if file.opened is None:
            return {}, b"", file.errno
        handle = len(self._handles) + 1
        self._handles[handle] = path
        first = file.content(0, FIRST) or b""
        return {**file.opened, "handle": 0 if file.opened["eof"] else handle}, first, 0

    def _of_handle(self, op: str, args: Args) -> tuple[Args, bytes, int]:
        path = self._handles.get(args["handle"])
        if path is None:
            return {}, b"", errno.EBADF
        file: File = self._reel.files[path]
        if op == "read":
            data = file.content(args["offset"], args["size"])
            if data is None:
                self.tell("missing", f"read {path}")
                return {}, b"", errno.EIO
            return {}, data, 0
        if op == "readdir":
            at = self._listed.get(args["handle"], 0)
            self._listed[args["handle"]] = at + LISTED
            return {"entries": file.entries[at : at + LISTED]}, b"", 0
        return {}, b"", 0

    # -- what the program connects to --

    def _opened(self, channel: int, kind: str, args: Args) -> None:
        try:
            wanted = Channel(kind, args, "laptop").where
        except KeyError:
            self.link.refuse(channel, errno.EINVAL)
            return
        waiting = self._outgoing.get((kind, wanted), [])
        if kind == "udp":
            self.link.accept(channel, {"local": ["127.0.0.1", 0]})
            self.link.register(channel, _Datagrams(self, channel, waiting, wanted))
            return
        if not waiting:
            self.tell("missing", f"{kind} {wanted}")
            self.link.refuse(channel, errno.ECONNREFUSED)
            return
        then = waiting.pop(0)
        if then.accepted is None:
            self.link.refuse(channel, then.errno or errno.ECONNREFUSED)
            return
        self.link.accept(channel, then.accepted)
        stream = _Stream(self, channel, then, wanted)
        self.link.register(channel, stream)
        stream.go_on()

    def later(self, seconds: float, work: Callable[[], None]) -> Any:
        return self._loop.later(seconds, work)

    def tell(self, how: str, what: str) -> None:
        """`missing` in the recording, or `changed` since."""
        if self._told < MAX_TOLD:
            self._told += 1
            self.link.event(f"replay.{how}", {"what": what})

    # -- who connects to the program --

    def _next_client(self, port: int) -> None:
        if self._current is not None:
            return
        at = next((n for n, each in enumerate(self._clients) if each.args["port"] == port), None)
        if at is None:
            self.link.event("replay.done", {"port": port})
            return
        then = self._clients.pop(at)
        answer = self._answers.get(json.dumps(then.args["peer"]))
        self._current = _Client(self, then, answer, lambda: self._client_over(port))

    def _client_over(self, port: int) -> None:
        self._current = None
        self._loop.soon(lambda: self._next_client(port))

    def _noticed(self, name: str, args: Args) -> None:
        if name == "answered" and self._current is not None:
            self._current.answered()


class _Stream(QuietHandler):
    """One outgoing connection."""

    def __init__(self, player: Player, channel: int, then: Channel, where: str) -> None:
        self._player, self._channel, self._where = player, channel, where
        self._steps = list(then.steps)
        self._want = then.bytes_of("up")
        self._sent = 0  # by the program
        self._due = 0  # so much the program had sent when the next step came
        self._rest = b""  # of an answer that waits for credit
        self._same = True
        self._timer: Any = None

    def on_data(self, data: Buffer) -> None:
        link = self._player.link
        link.consumed(self._channel, len(data))
        if self._same and self._want[self._sent : self._sent + len(data)] != bytes(data):
            self._same = False
            self._player.tell("changed", f"sent to {self._where}")
        self._sent += len(data)
        self.go_on()

    def on_eof(self) -> None:
        self._sent = max(self._sent, len(self._want))
        self.go_on()

    def on_credit(self) -> None:
        self.go_on()

    def on_reset(self) -> None:
        self._steps.clear()
        self._rest = b""

    def go_on(self, patience: bool = True) -> None:
        link = self._player.link
        if self._timer:
            self._timer.cancel()
        while self._rest or self._steps:
            if self._rest:
                room = link.writable(self._channel)
                link.send(self._channel, self._rest[:room])
                self._rest = self._rest[room:]
                if self._rest:
                    return
                continue
            step, data = self._steps[0]
            if step == "up":
                if self._sent < self._due + len(data) and patience:
                    self._timer = self._player.later(QUIET, lambda: self.go_on(patience=False)) if self._sent > self._due else None
                    return
                self._due += len(data)
                patience = True
            elif step == "down":
                self._rest = data
            elif step == "eof" and data == "agent":
                link.send_eof(self._channel)
            elif step == "reset" and data == "agent":
                link.reset(self._channel)
                return
            self._steps.pop(0)


class _Datagrams(QuietHandler):
    """A datagram peer: the recorded answer to the same question, whatever its number (the first two bytes, as in DNS)."""

    def __init__(self, player: Player, channel: int, then: list[Channel], where: str) -> None:
        self._player, self._channel, self._where = player, channel, where
        self._known: dict[bytes, list[bytes]] = {}
        for each in then:
            asked: list[bytes] = []
            for step, data in each.steps:
                if step == "up":
                    asked.append(data)
                elif step == "down":
                    to = next((up for up in asked if up[:2] == data[:2]), asked[-1] if asked else b"")
                    self._known.setdefault(to[2:], []).append(data)

    def on_data(self, data: Buffer) -> None:
        link, question = self._player.link, bytes(data)
        link.consumed(self._channel, len(question))
        known = self._known.get(question[2:])
        if not known:
            self._player.tell("missing", f"asked of {self._where}")
            return
        answer = known.pop(0) if len(known) > 1 else known[0]
        link.send(self._channel, question[:2] + answer[2:] if self._where.endswith(":53") else answer, record=True)


class _Client(QuietHandler):
    """One recorded client: its requests one after the other, and what the target answered beside them."""

    def __init__(self, player: Player, then: Channel, answer: Channel | None, over: Callable[[], None]) -> None:
        self._player, self._over_with = player, over
        self._pieces = [data for step, data in then.steps if step == "down"]
        self._begun: list[Exchange] = []
        self._observer = Observer(lambda what, exchange, _side: self._begun.append(exchange) if what == "request" else None)
        self._answered = 0
        self._ended = False
        self._timer: Any = player.later(TURN, self._turn)
        self._channel = player.link.open("mirror", then.args, self)
        if answer:
            beside = _Beside(player, answer.bytes_of("down"))
            beside.channel = player.link.open("answer", then.args, beside)

    def on_accepted(self, info: Args) -> None:
        self._turn()

    def on_credit(self) -> None:
        if not self._waiting():
            self._turn()

    def on_refused(self, code: int, text: str) -> None:
        self._over()

    def on_reset(self) -> None:
        self._over()

    def answered(self) -> None:
        self._answered += 1
        if not self._waiting():
            self._turn()

    def _waiting(self) -> bool:
        """For the answer to a request that has all been sent."""
        return self._answered < len(self._begun) and self._begun[-1].complete

    def _turn(self) -> None:
        link = self._player.link
        while not self._ended:
            self._timer.cancel()
            self._timer = self._player.later(TURN, self._turn)
            if not self._pieces:
                link.send_eof(self._channel)
                self._over()
                return
            room = link.writable(self._channel)
            piece = self._pieces[0][:room]
            if not piece:
                return
            self._pieces[0] = self._pieces[0][room:]
            if not self._pieces[0]:
                self._pieces.pop(0)
            self._observer.client(piece)
            link.send(self._channel, piece)
            if self._waiting():
                return

    def _over(self) -> None:
        if not self._ended:
            self._ended = True
            self._timer.cancel()
            self._over_with()


class _Beside(QuietHandler):
    """The target's answers of then."""

    def __init__(self, player: Player, data: bytes) -> None:
        self._player, self._data = player, data
        self._open = True
        self.channel = 0

    def on_accepted(self, info: Args) -> None:
        self.on_credit()

    def on_credit(self) -> None:
        link = self._player.link
        while self._data and (room := link.writable(self.channel)):
            link.send(self.channel, self._data[:room])
            self._data = self._data[room:]
        if not self._data and self._open:
            self._open = False
            link.send_eof(self.channel)
