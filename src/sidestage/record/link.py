"""A link whose conversation is put on a tape as it passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from sidestage.protocol.messages import Accepted, Buffer, Data, Eof, Opened, Refused, Reset
from sidestage.record import mask
from sidestage.record.tape import Tape
from sidestage.stream.link import Args, ChannelHandler, Done, Link

_links = itertools.count()
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LEFT_OUT = "HTTP/2 is left out of the recording, as its headers can't be masked; --secrets records it whole"


class Recorder:
    """What all links of a session share: the tape, and what must be masked. `say(text)` tells the user."""

    def __init__(self, tape: Tape, masked: bool, say: Callable[[str], None]) -> None:
        self.tape, self.masked, self._say = tape, masked, say
        self._said: set[str] = set()
        self._calls = itertools.count()
        self._secret_handles: set[int] = set()

    def say(self, text: str) -> None:
        """Once."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def call(self, op: str, args: Args, raw: bytes) -> int:
        number = next(self._calls)
        if "tls" in args:  # may hold a private key, which is no part of what is played
            args = {**args, "tls": {}}
        self.tape.put("call", n=number, op=op, args=args, **({"raw": bytes(raw)} if raw else {}))
        return number

    def answered(self, number: int, op: str, args: Args, result: Args, raw: bytes, errno: int) -> None:
        raw = bytes(raw)
        if self.masked:
            if op == "env":
                raw = mask.environment(raw)
            elif op == "open" and mask.is_secret_file(args["path"]):
                self._secret_handles.add(result.get("handle") or 0)
                raw = mask.MASK * len(raw)
            elif op == "read" and args["handle"] in self._secret_handles:
                raw = mask.MASK * len(raw)
        self.tape.put("answer", n=number, result=result, errno=errno, **({"raw": raw} if raw else {}))


class RecordedLink(Link):
    """`begin` comes right after it is made, before anything crosses it."""

    recorder: Recorder

    def _name(self, channel: int) -> str:
        return f"{self._number}.{channel}"

    def begin(self, recorder: Recorder) -> None:
        self.recorder, self._number = recorder, next(_links)
        self._masks: dict[tuple[int, str], mask.Headers] = {}
        self._silent: set[int] = set()  # channels that are left out
        told = self._dispatch[Opened]

        def opened(event: Opened) -> None:
            recorder.tape.put("open", c=self._name(event.channel), by="agent", kind=event.kind, args=event.args)
            told(event)

        self._dispatch[Opened] = opened

    def call(self, op: str, args: Args, done: Done, raw: bytes = b"") -> None:
        number = self.recorder.call(op, args, raw)

        def answered(result: Args, answer: bytes, errno: int) -> None:
            self.recorder.answered(number, op, args, result, answer, errno)
            done(result, answer, errno)

        super().call(op, args, answered, raw)

    def open(self, kind: str, args: Args, handler: ChannelHandler, first: Buffer = b"") -> int:
        channel = super().open(kind, args, handler, first)
        self.recorder.tape.put("open", c=self._name(channel), by="laptop", kind=kind, args=args)
        if first:
            self._put("up", channel, first)
        return channel

    def accept(self, channel: int, info: Args) -> None:
        self.recorder.tape.put("accept", c=self._name(channel), info=info)
        super().accept(channel, info)

    def refuse(self, channel: int, errno: int, text: str = "") -> None:
        self.recorder.tape.put("refuse", c=self._name(channel), errno=errno)
        super().refuse(channel, errno, text)

    def send(self, channel: int, data: Buffer, *, record: bool = False) -> None:
        self._put("up", channel, data)
        super().send(channel, data, record=record)

    def send_eof(self, channel: int) -> None:
        self.recorder.tape.put("eof", c=self._name(channel), by="laptop")
        super().send_eof(channel)

    def reset(self, channel: int) -> None:
        self.recorder.tape.put("reset", c=self._name(channel), by="laptop")
        super().reset(channel)

    def _accepted(self, event: Accepted) -> None:
        self.recorder.tape.put("accept", c=self._name(event.channel), info=event.info)
        super()._accepted(event)

    def _refused(self, event: Refused) -> None:
        self.recorder.tape.put("refuse", c=self._name(event.channel), errno=event.errno)
        super()._refused(event)

    def _data(self, event: Data) -> None:
        self._put("down", event.channel, event.data)
        super()._data(event)

    def _eof(self, event: Eof) -> None:
        self.recorder.tape.put("eof", c=self._name(event.channel), by="agent")
        super()._eof(event)

    def _reset(self, event: Reset) -> None:
        self.recorder.tape.put("reset", c=self._name(event.channel), by="agent")
        super()._reset(event)

    def _put(self, way: str, channel: int, data: Buffer) -> None:
        copy = bytes(data)
        if self.recorder.masked:
            known = self._masks.get((channel, way))
            if known is None:
                known = self._masks[channel, way] = mask.Headers()
                if copy.startswith(_PREFACE):
                    self._silent.add(channel)
                    self.recorder.say(LEFT_OUT)
            if channel in self._silent:
                return
            copy = known.feed(copy)
        self.recorder.tape.put(way, c=self._name(channel), data=copy)


def maker(recorder: Recorder) -> Any:
    """Makes links as `Link` does, recorded ones."""

    def make(*args: Any, **named: Any) -> Link:
        link = RecordedLink(*args, **named)
        link.begin(recorder)
        return link

    return make
