"""Routes the streams of one HTTP/2 connection, each to the target's own program (POD) or to a session's; sans-IO.

Until a stream is a session's, frames pass as they came and are only looked at. From then on the client's header blocks are
encoded anew for POD, as its decoder hasn't seen them all; POD's blocks still pass as they came, and a session's are put between
them without touching the table (hpack.py). SETTINGS, PING and GOAWAY are between the client and POD. Each session's program has
a connection of its own, made with the client's settings.

Flow control of requests: the client keeps to POD's windows. What is a session's is granted anew when it is passed on, and what
its program doesn't take yet waits in the stream's queue: one that stands still holds up nobody. Of answers: `_window` is what
the client takes, `_pod_window` what POD believes that it takes. What sessions used of it is the difference, and so much of the
client's grants is not passed on to POD.
"""

from __future__ import annotations

from typing import List, Optional

from sidestage.http import http2
from sidestage.http.answers2 import Answers
from sidestage.http.hpack import TABLE, HpackError
from sidestage.http.http2 import (
    DATA,
    END_STREAM,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BrokenFrame,
    Frame,
)  # fmt: skip
from sidestage.http.orders import CLIENT, POD, Send, body_bounds, choose
from sidestage.http.route1 import HEAD_TIME
from sidestage.http.streams import Leg, Part, Stream

MAX_QUEUE = 4 << 20  # bytes of one request that its program doesn't take; beyond the windows of most servers
MAX_QUEUES = 32 << 20  # and of all; then the client is not read
MAX_STREAMS = 1_000  # of sessions at once on one connection
MAX_RESETS = 200  # that the client may take back more than it completed (CVE-2023-44487: rapid reset)
LEG_WINDOW = 1 << 20  # bytes under way from a session's program


class Http2(Answers):
    # -- from the client --

    def client(self, data: bytes) -> None:
        if self._over:
            return
        if not self._greeted:
            self._greeted = True
            self._out.append(Send(POD, PREFACE))
            data = data[len(PREFACE) :]
        try:
            for frame in self._splitter.feed(data):
                self._pending += frame.raw
                block = self._blocks.feed(frame)
                if block is not None:
                    self._from_client(frame, block)
                    self._pending = b""
                    if self._unended:
                        self._unended = False
                        self._timer(0)
                if self.done or self._over:
                    return
        except BrokenFrame as error:
            self._broken(error.code)
        except HpackError:
            self._broken(http2.COMPRESSION_ERROR)
        if self._pending and not self._timing and not (self.done or self._over):
            self._unended = True
            self._timer(HEAD_TIME)

    def _broken(self, code: int) -> None:
        """The client breaks the rules: while all is POD's, it may judge that itself."""
        if self._raw:
            self._splice()
        else:
            self._goaway(code)

    def _from_client(self, frame: Frame, block: List[Frame]) -> None:
        kind = frame.kind
        if block:
            self._request(block)
        elif kind == DATA:
            self._data(frame)
        elif kind == WINDOW_UPDATE:
            self._update(frame)
        elif kind == RST_STREAM:
            self._taken_back(frame)
        elif kind in (http2.PRIORITY, http2.PRIORITY_UPDATE) and not self._raw:
            pass  # numbers of streams may differ now; priorities are advice
        elif POD not in self._open:
            if kind == PING and not frame.flags & http2.ACK:
                self._out.append(Send(CLIENT, http2.frame(PING, http2.ACK, 0, frame.payload)))
            elif kind == SETTINGS and not frame.flags & http2.ACK:
                self._out.append(Send(CLIENT, http2.frame(SETTINGS, http2.ACK, 0)))
        elif self._raw or frame.stream == 0:
            if kind == SETTINGS and not frame.flags & http2.ACK:
                self._client_settings(frame.payload)
            elif kind == SETTINGS and self._pod_unacked:
                size = self._pod_unacked.popleft()
                if size < TABLE and not self._raw:
                    self._pod.updates.append(size)
            self._out.append(Send(POD, frame.raw))

    def _client_settings(self, payload: bytes) -> None:
        self._unacked.append(http2.table_size(payload))
        for key, value in http2.read_settings(payload):
            if key in (http2.INITIAL_WINDOW, http2.FRAME_SIZE, http2.LIST_SIZE):
                self._settings[key] = value
                if key == http2.FRAME_SIZE:
                    self._size = min(max(value, http2.SIZE), http2.MAX_FRAME)
        for leg in self._legs.values():
            if leg is not self._pod:
                self._out.append(Send(leg.to, http2.settings(self._settings)))

    def _request(self, block: List[Frame]) -> None:
        first = block[0]
        if first.kind == PUSH_PROMISE:
            raise BrokenFrame(http2.PROTOCOL_ERROR)
        fields, updates = self._decoder.decode(http2.fragment(block))
        cid, end = first.stream, bool(first.flags & END_STREAM)
        stream = self._streams.get(cid)
        new = stream is None and cid & 1 == 1 and cid > self._last
        if new:
            self._last = cid
            stream = self._streams[cid] = Stream(cid, fields, end)
            target = self._choose(stream, None)
            if self._raw and target == POD:
                stream.leg, stream.window, stream.kept = self._pod, self._pod.initial, None
                self._pod.streams[cid] = stream
                self._pod.last = cid
            else:
                self._raw = False
        if self._raw:
            self._out.append(Send(POD, self._pending))
            if stream and not new and end:
                self._ended(stream)
            return
        self._pod.updates += updates
        if new and stream:
            if target is None:
                self._timer(body_bounds(self._rules)[1])
            else:
                self._assign(stream, target)
        elif stream and not stream.ended:
            stream.push(Part(b"", fields, end))
            self._moved(stream)

    def _choose(self, stream: Stream, body: Optional[bytes]) -> Optional[int]:
        if not self._rules or self._balance > MAX_RESETS or len(self._streams) - len(self._pod.streams) > MAX_STREAMS:
            return POD
        if body is None:
            length = 0
            for name, value, _ in stream.fields:
                if name == b"content-encoding" or (name == b"content-length" and not value.isdigit()):
                    body = b""
                elif name == b"content-length":
                    length = int(value[:18])
            if stream.ended or length > body_bounds(self._rules)[0]:
                body = b""
        facts = http2.facts(stream.fields, body)
        return POD if facts is None else choose(self._rules, facts, self._out)

    def _assign(self, stream: Stream, target: int) -> None:
        """Sends a request on its way, with all of it that has come."""
        if target != POD and self._legs.get(target, self._pod).draining:
            target = POD  # its program is about to end
        if target == POD and (POD not in self._open or self._pod.draining):
            self._out.append(Send(CLIENT, http2.reset(stream.cid, http2.REFUSED_STREAM)))
            self._drop(stream)
            return
        leg = self._legs.get(target) or self._connect(target)
        stream.leg, stream.sid, stream.window = leg, leg.number(stream.cid), leg.initial
        stream.down = next((rule.down for rule in self._rules if rule.number == target), "pass")
        leg.streams[stream.sid] = stream
        if target == POD:
            stream.kept = None
        elif stream.queued:
            self._out.append(Send(CLIENT, http2.window_update(0, stream.queued)))
        end = stream.ended and not stream.queue
        self._out.append(Send(target, http2.headers(stream.sid, stream.fields, end, leg.size, leg.take_updates())))
        self._pump(stream)

    def _connect(self, target: int) -> Leg:
        leg = self._legs[target] = Leg(target)
        self._ensure(target)
        grant = http2.window_update(0, LEG_WINDOW - http2.WINDOW)
        self._out.append(Send(target, PREFACE + http2.settings(self._settings) + grant))
        return leg

    def _data(self, frame: Frame) -> None:
        stream, size, end, pod = self._streams.get(frame.stream), len(frame.payload), bool(frame.flags & END_STREAM), self._pod
        if stream is None or stream.ended:
            if self._raw:
                self._out.append(Send(POD, frame.raw))
            elif size:  # of a stream that is over: nobody else gives its window back
                self._out.append(Send(CLIENT, http2.window_update(0, size)))
            return
        if stream.leg is pod and (self._raw or (not stream.queue and size <= min(stream.window, pod.window))):
            stream.window -= size
            pod.window -= size
            self._out.append(Send(POD, frame.to(stream.sid)))
            if end:
                self._ended(stream)
            return
        data = frame.content()
        padding = size - len(data)
        if padding:  # it goes no further
            self._out.append(Send(CLIENT, http2.window_update(0, padding) + http2.window_update(stream.cid, padding)))
        if data and stream.leg not in (None, pod):
            self._out.append(Send(CLIENT, http2.window_update(0, len(data))))
        stream.push(Part(data, None, end))
        self._queued += len(data)
        self._moved(stream)

    def _moved(self, stream: Stream) -> None:
        """More of a request has come."""
        pod = self._pod
        full = self._queued >= pod.window
        if stream.leg is None:
            if stream.ended:
                self._assign(stream, self._choose(stream, stream.body()) or POD)
            # The client may have sent all that it is allowed to, and would wait for the timer.
            elif not self._rules or stream.queued > body_bounds(self._rules)[0] or stream.queued >= pod.initial or full:
                self._assign(stream, self._choose(stream, b"") or POD)
            return
        self._pump(stream)
        if stream.queued > MAX_QUEUE:
            self._out.append(Send(stream.leg.to, http2.reset(stream.sid, http2.CANCEL)))
            self._tell(stream.leg, http2.reset(stream.cid, http2.CALM), stream.cid)
            self._drop(stream)

    def timeout(self) -> None:
        """A body is waited for during at least one whole turn of the timer."""
        self._timing = 0.0
        if self._unended:
            self._broken(http2.CALM)
            return
        waiting = [stream for stream in self._streams.values() if stream.leg is None]
        for stream in waiting:
            if stream.aged or not self._rules:
                self._assign(stream, self._choose(stream, b"") or POD)
            stream.aged = True
        if any(stream.leg is None for stream in waiting):
            self._timer(body_bounds(self._rules)[1])

    def _update(self, frame: Frame) -> None:
        size = frame.number()
        if not frame.stream:
            swallowed = min(size, self._pod_window - self._window)
            self._window += size
            self._pod_window += size - swallowed
            if POD in self._open and (size > swallowed or not size):  # none at all is an error, and POD's to judge
                self._out.append(Send(POD, http2.window_update(0, size - swallowed) if swallowed else frame.raw))
            self._deliver()
            return
        stream = self._streams.get(frame.stream)
        if stream is not None and stream.leg is not None:
            self._out.append(Send(stream.leg.to, frame.to(stream.sid)))
        elif self._raw or not frame.stream & 1:  # even: POD's pushes
            self._out.append(Send(POD, frame.raw))

    def _taken_back(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        frame.number()
        if stream is not None:
            if stream.leg is not None:
                self._out.append(Send(stream.leg.to, frame.to(stream.sid)))
            if stream.leg is not self._pod:
                self._balance += 1
            elif stream.sid != stream.cid:
                self._pod.remember(stream)
            self._drop(stream)
        elif self._raw or not frame.stream & 1:
            self._out.append(Send(POD, frame.raw))

    def client_eof(self) -> None:
        self._client_ended = True
        if self._over:
            self.done = True
        elif self._raw:
            self._splice()
        else:
            for to in sorted(self._open):
                self._eof(to)
            if not self._open:
                self._goaway(http2.NO_ERROR)

    # -- to the programs --

    def _pump(self, stream: Stream) -> None:
        """Sends as much of a request's queue as its program takes."""
        leg = stream.leg
        if leg is None or (leg.to in self._blocked and leg.to != POD):
            return
        while stream.queue:
            data, trailers, end = stream.queue[0]
            if trailers is not None:
                self._out.append(Send(leg.to, http2.headers(stream.sid, trailers, end, leg.size, leg.take_updates())))
            else:
                room = min(stream.window, leg.window, leg.size)
                if data and room <= 0:
                    return
                part = data[:room]
                stream.window -= len(part)
                leg.window -= len(part)
                stream.queued -= len(part)
                self._queued -= len(part)
                last = len(part) == len(data)
                if part or end:
                    self._out.append(Send(leg.to, http2.frame(DATA, int(end and last), stream.sid, part)))
                if part and not stream.ended and leg is not self._pod:  # servers grant late, by windows of their own
                    self._out.append(Send(CLIENT, http2.window_update(stream.cid, len(part))))
                if not last:
                    stream.queue[0] = Part(data[len(part) :], None, end)
                    continue
            stream.queue.popleft()
        self._settle(stream)

    def _ended(self, stream: Stream) -> None:
        stream.ended = True
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        if stream.ended and stream.answered and not stream.queue:
            self._balance = max(0, self._balance - 1)
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """Nothing more is expected of a stream."""
        if self._streams.pop(stream.cid, None):
            self._queued -= stream.queued
        leg = stream.leg
        if leg is not None:
            leg.streams.pop(stream.sid, None)
            if leg.draining and not leg.streams and leg is not self._pod and leg.to in self._legs:
                del self._legs[leg.to]
                self._close(leg.to)
        self._quit()

    def settle(self) -> None:
        """A client takes nothing before SETTINGS (RFC 9113 3.4), and those are POD's: what is not its own waits behind them."""
        if self._raw or not (self._early or not self._pod.greeted):
            super().settle()
            return
        told = [order for order in self._out if type(order) is Send and order.to == CLIENT]
        first = []
        if not self._pod.greeted and (POD not in self._open or self.done or self._over):
            self._pod.greeted = True  # it won't
            first = [Send(CLIENT, http2.settings({}) + http2.frame(SETTINGS, http2.ACK, 0) * len(self._unacked))]
        elif self._pod.greeted:
            first, told = told[:1], told[1:]
        self._early += told
        self._out[:] = [order for order in self._out if type(order) is not Send or order.to != CLIENT]
        if first:
            self._out[:0] = [*first, *self._early]
            self._early.clear()
        super().settle()

    def ready(self, to: int) -> None:
        super().ready(to)
        if to in self._legs:
            self._legs[to].unread = 0
            self._pump_all(self._legs[to])

    def _pump_all(self, leg: Leg) -> None:
        for stream in list(leg.streams.values()):
            if stream.queue:
                self._pump(stream)

    def _full(self) -> bool:
        return POD in self._blocked or self._queued > MAX_QUEUES
