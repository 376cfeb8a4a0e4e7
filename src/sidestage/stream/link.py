"""A mux over a duplex pair of descriptors: reads, dispatches, writes, and watches over silence."""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections import deque
from functools import partial
from itertools import islice
from typing import Any, Callable, Deque, Dict, List, Protocol

from sidestage.protocol import wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import (
    Accepted,
    Buffer,
    Bye,
    Called,
    CallFailed,
    Credit,
    Data,
    Eof,
    Event,
    Noticed,
    Opened,
    Pong,
    Refused,
    Replied,
    Reset,
)  # fmt: skip
from sidestage.protocol.mux import Mux
from sidestage.stream.loop import Loop

READ = 256 << 10  # bytes a read, when no long frame is under way
ROUND = 256 << 10  # bytes of data handed to the kernel before control may overtake again
IOV = 512  # buffers a writev, below IOV_MAX
REFUSED = "datagram.refused"  # an event that is about one channel
HEARTBEAT, SILENCE = 5.0, 20.0  # seconds

Args = Dict[str, Any]
Done = Callable[[Args, Any, int], None]


class ChannelHandler(Protocol):
    """`on_data`'s buffer is a view when it is long; `on_credit` says that more can be sent than before; `on_refused` of an accepted
    channel that a datagram was refused (ICMP)."""

    def on_accepted(self, info: Args) -> None: ...
    def on_refused(self, errno: int, text: str) -> None: ...
    def on_data(self, data: Buffer) -> None: ...
    def on_eof(self) -> None: ...
    def on_reset(self) -> None: ...
    def on_credit(self) -> None: ...


class QuietHandler:
    """A ChannelHandler that hears of nothing; its heirs hear of what concerns them."""

    def on_accepted(self, info: Args) -> None:
        return

    def on_refused(self, errno: int, text: str) -> None:
        return

    def on_data(self, data: Buffer) -> None:
        return

    def on_eof(self) -> None:
        return

    def on_reset(self) -> None:
        return

    def on_credit(self) -> None:
        return


class Link:
    def __init__(
        self,
        loop: Loop,
        rfd: int,
        wfd: int,
        side: str,
        *,
        on_call: Callable[[int, str, Args, bytes], None],
        on_open: Callable[[int, str, Args], None],
        on_event: Callable[[str, Args], None],
        on_closed: Callable[[str], None],
        heartbeat: float = HEARTBEAT,
        silence: float = SILENCE,
        window: int = wire.WINDOW,
        max_data: int = wire.MAX_DATA,
    ) -> None:
        _keep_buffers()
        self.mux = Mux(side, window=window, max_data=max_data)
        self.rtt = 0.0
        self.bytes_in = self.bytes_out = 0
        self._loop, self._rfd, self._wfd = loop, rfd, wfd
        self._on_call, self._on_open, self._on_event, self._on_closed = on_call, on_open, on_event, on_closed
        self._heartbeat, self._silence = heartbeat, silence
        self._calls: Dict[int, Done] = {}
        self._handlers: Dict[int, ChannelHandler] = {}
        self._out: Deque[Buffer] = deque()
        self._blocked = self._flushing = False
        self._closed = False
        self._heard = time.monotonic()
        self._pinged = 0.0
        self._token = 0
        self._dispatch: Dict[type, Callable[[Any], None]] = {
            Called: lambda e: self._on_call(e.call, e.op, e.args, e.raw),
            Replied: lambda e: self._calls.pop(e.call)(e.result, e.raw, 0),
            CallFailed: lambda e: self._calls.pop(e.call)({"text": e.text}, b"", e.errno),
            Opened: lambda e: self._on_open(e.channel, e.kind, e.args),
            Accepted: self._accepted, Refused: self._refused, Data: self._data, Eof: self._eof, Reset: self._reset,
            Credit: lambda e: self._credit(e.channel), Noticed: self._noticed, Pong: self._pong,
            Bye: lambda e: self.close("the peer said goodbye"),
        }  # fmt: skip
        for fd in {rfd, wfd}:
            os.set_blocking(fd, False)
        loop.watch(rfd, select.EPOLLIN, self._ready)
        if wfd != rfd:
            loop.watch(wfd, 0, self._ready_to_write)
        self._beat()

    @property
    def closed(self) -> bool:
        return self._closed

    # -- orders --

    def call(self, op: str, args: Args, done: Done, raw: bytes = b"") -> None:
        """Ask the peer; `done(result, raw, errno)` comes exactly once, with EIO when the link closes before."""
        if self._closed:
            self._loop.soon(lambda: done({}, b"", 5))
            return
        self._calls[self.mux.call(op, args, raw)] = done
        self.flush()

    def reply(self, call: int, result: Args, raw: bytes = b"") -> None:
        if not self._closed:
            self.mux.reply(call, result, raw)
            self.flush()

    def fail(self, call: int, errno: int, text: str = "") -> None:
        if not self._closed:
            self.mux.fail(call, errno, text)
            self.flush()

    def event(self, name: str, args: Args) -> None:
        if self._closed:
            return
        self.mux.event(name, args)
        self.flush()

    @property
    def load(self) -> int:
        """Channels that are open."""
        return len(self._handlers)

    def open(self, kind: str, args: Args, handler: ChannelHandler, first: Buffer = b"") -> int:
        """`first` is sent along, for kinds of which the peer reads before it accepts."""
        if self._closed:
            self._loop.soon(lambda: handler.on_refused(5, "the link is closed"))
            return 0
        channel = self.mux.open(kind, args)
        self._handlers[channel] = handler
        if first:
            self.mux.send(channel, first, record=True)
        self.flush()
        return channel

    def register(self, channel: int, handler: ChannelHandler) -> None:
        """From now on `handler` hears of `channel`."""
        self._handlers[channel] = handler

    def accept(self, channel: int, info: Args) -> None:
        self.mux.accept(channel, info)
        self.flush()

    def refuse(self, channel: int, errno: int, text: str = "") -> None:
        self._handlers.pop(channel, None)
        self.mux.refuse(channel, errno, text)
        self.flush()

    def writable(self, channel: int) -> int:
        return self.mux.writable(channel)

    def send(self, channel: int, data: Buffer, *, record: bool = False) -> None:
        self.mux.send(channel, data, record=record)
        self.flush()

    def send_eof(self, channel: int) -> None:
        self.mux.send_eof(channel)
        self.flush()

    def reset(self, channel: int) -> None:
        self._handlers.pop(channel, None)
        self.mux.reset(channel)
        self.flush()

    def datagram_refused(self, channel: int, errno: int) -> None:
        self.event(REFUSED, {"channel": channel, "errno": errno})

    def consumed(self, channel: int, n: int) -> None:
        self.mux.consumed(channel, n)
        self.flush()

    def close(self, reason: str) -> None:
        """End: pending calls fail with EIO, channels are reset, then on_closed(reason), all once."""
        if self._closed:
            return
        self._closed = True
        for fd in {self._rfd, self._wfd}:
            self._loop.unwatch(fd)
        calls, self._calls = self._calls, {}
        for done in calls.values():
            done({}, b"", 5)
        handlers, self._handlers = self._handlers, {}
        for handler in handlers.values():
            handler.on_reset()
        self._on_closed(reason)

    # -- the peer's doings --

    def _accepted(self, event: Accepted) -> None:
        # An earlier event of the same batch may have made its handler reset this channel.
        handler = self._handlers.get(event.channel)
        if handler is not None:
            handler.on_accepted(event.info)

    def _refused(self, event: Refused) -> None:
        handler = self._handlers.pop(event.channel, None)
        if handler is not None:
            handler.on_refused(event.errno, event.text)

    def _noticed(self, event: Noticed) -> None:
        if event.name != REFUSED:
            self._on_event(event.name, event.args)
            return
        handler, errno = self._handlers.get(event.args.get("channel", 0)), event.args.get("errno")
        if handler is not None and isinstance(errno, int):
            handler.on_refused(errno, "a datagram")

    def _data(self, event: Data) -> None:
        handler = self._handlers.get(event.channel)
        if handler is not None:
            handler.on_data(event.data)

    def _eof(self, event: Eof) -> None:
        handler = self._handlers.get(event.channel)
        if handler is not None:
            handler.on_eof()

    def _reset(self, event: Reset) -> None:
        handler = self._handlers.pop(event.channel, None)
        if handler is not None:
            handler.on_reset()

    def _credit(self, channel: int) -> None:
        handler = self._handlers.get(channel)
        if handler is not None:
            handler.on_credit()

    def forget(self, channel: int) -> None:
        """Both directions have ended: nobody need hear of `channel` any more."""
        self._handlers.pop(channel, None)

    def _pong(self, event: Pong) -> None:
        if event.token == self._token:
            self.rtt = time.monotonic() - self._pinged

    def _beat(self) -> None:
        if self._closed:
            return
        quiet = time.monotonic() - self._heard
        if quiet > self._silence:
            self.close(f"no word for {quiet:.0f} s")
            return
        self._token = (self._token + 1) & 0xFFFFFFFF
        self._pinged = time.monotonic()
        self.mux.ping(self._token)
        self.flush()
        self._loop.later(self._heartbeat, self._beat)

    # -- descriptors --

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._ready_to_write(events)
        if events & ~select.EPOLLOUT and not self._closed:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._rfd, self.mux.wanted() or READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(os.strerror(error.errno or 5).lower())
            return
        if not data:
            self.close("the stream ended")
            return
        self.bytes_in += len(data)
        self._heard = time.monotonic()
        try:
            events: List[Event] = self.mux.feed(data)
            self._flushing = True  # answers of this batch leave together
            for event in events:
                self._dispatch[type(event)](event)
                if self._closed:
                    return
        except ProtocolError as error:
            self.close(f"protocol error: {error}")
            return
        finally:
            self._flushing = False
        self.flush()

    def flush(self) -> None:
        if not (self._flushing or self._blocked or self._closed):
            self._write()

    def _write(self) -> None:
        out = self._out
        while True:
            if not out:
                if not self.mux.pending():
                    break
                out.extend(self.mux.take(ROUND))
                for channel in self.mux.relieved():
                    self._loop.soon(partial(self._credit, channel))
            try:
                sent = os.writev(self._wfd, list(islice(out, IOV)))
            except BlockingIOError:
                self._block(True)
                return
            except OSError:
                # The read side may still hold the peer's last words, and closes the link after them.
                self._out.clear()
                self._loop.later(0.2, lambda: self.close("the stream broke"))
                self._blocked = True
                return
            self.bytes_out += sent
            while out and sent >= len(out[0]):
                sent -= len(out.popleft())
            if sent:
                out[0] = memoryview(out[0])[sent:]
        self._block(False)

    def _block(self, blocked: bool) -> None:
        if blocked != self._blocked:
            self._blocked = blocked
            events = select.EPOLLOUT if blocked else 0
            if self._rfd == self._wfd:
                events |= select.EPOLLIN
            self._loop.change(self._wfd, events)

    def _ready_to_write(self, events: int) -> None:
        if events & (select.EPOLLERR | select.EPOLLHUP) and self._rfd != self._wfd:
            self.close("the stream broke")
        elif not self._closed:
            self._write()


def _keep_buffers() -> None:
    """glibc maps every buffer above 128 KiB afresh and unmaps it, which costs 20 us of page faults a read: mallopt(3)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # not glibc
    mallopt(-3, 4 << 20)  # M_MMAP_THRESHOLD
    mallopt(-1, 64 << 20)  # M_TRIM_THRESHOLD
