"""The way back of route2.py: frames of the programs, brought to the one client in an order that it can read."""

from __future__ import annotations

import struct
from collections import deque
from typing import Deque, Dict, List, Sequence

from sidestage.http import http2
from sidestage.http.hpack import TABLE, Decoder, Field, HpackError
from sidestage.http.http2 import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Blocks,
    BrokenFrame,
    Frame,
    Splitter,
)  # fmt: skip
from sidestage.http.orders import CLIENT, POD, Eof, Order, Rule, Send
from sidestage.http.route1 import FAILED
from sidestage.http.streams import Down, Leg, Stream
from sidestage.http.wires import Wires

MAX_UNREAD = 1_000  # answers to control frames of a program that reads none of them


class Answers(Wires):
    def __init__(self, rules: Sequence[Rule], out: List[Order]) -> None:
        super().__init__(rules, out)
        self._raw = True  # all is POD's so far
        self._pod = Leg(POD)
        self._legs: Dict[int, Leg] = {POD: self._pod}
        self._splitter, self._blocks, self._decoder = Splitter(), Blocks(), Decoder()
        self._streams: Dict[int, Stream] = {}
        self._last = 0  # the client's newest stream
        self._greeted = False
        self._early: List[Order] = []  # for the client, before it may be told
        self._pending = b""  # what was split, and not yet passed on: from the client
        self._pod_pending = b""  # and from POD
        self._window = self._pod_window = http2.WINDOW
        self._settings = {http2.ENABLE_PUSH: 0}  # what a session's program is told of the client
        self._size = http2.SIZE  # bytes of a frame that the client takes
        self._shrink: List[int] = []  # sizes of the client's decoder's table; its next block must begin with the smallest
        # The table's size in each of the client's SETTINGS that POD has yet to acknowledge, and the other way round
        self._unacked: Deque[int] = deque()
        self._pod_unacked: Deque[int] = deque()
        self._waiting: Deque[Down] = deque()
        self._queued = 0  # bytes of requests in streams' queues
        self._unended = False  # a header block that doesn't end is timed
        self._balance = 0  # streams taken back less those completed
        self._going = False  # the client was told not to come with more
        self._over = False  # it was told that it is over

    # -- what route2.py does --

    def _assign(self, stream: Stream, target: int) -> None:
        raise NotImplementedError

    def _pump_all(self, leg: Leg) -> None:
        raise NotImplementedError

    def _settle(self, stream: Stream) -> None:
        raise NotImplementedError

    def _drop(self, stream: Stream) -> None:
        raise NotImplementedError

    # -- from the programs --

    def peer(self, to: int, data: bytes) -> None:
        leg = self._legs.get(to)
        if leg is None or self._over:
            return
        pod = leg is self._pod
        try:
            for frame in leg.splitter.feed(data):
                if pod:
                    self._pod_pending += frame.raw
                block = leg.blocks.feed(frame)
                if block is not None:
                    if pod:
                        self._from_pod(frame, block)
                        self._pod_pending = b""
                    else:
                        self._from_leg(leg, frame, block)
                if self.done or self._legs.get(to) is not leg:
                    return
        except (BrokenFrame, HpackError):
            if not pod:
                self._close(to)
                self._lost(leg)
            elif self._raw:
                self._splice()
            else:
                self._reset()

    def _from_pod(self, frame: Frame, block: List[Frame]) -> None:
        kind, pod = frame.kind, self._pod
        sid = block[0].stream if block else frame.stream
        stream = pod.streams.get(sid)
        cid = stream.cid if stream else pod.late.get(sid, sid)
        known = self._raw or stream is not None or not sid & 1  # even: pushed
        if block:  # its decoder needs it, whether the client still wants the stream or not
            self._shrink = []
            self._tell(pod, b"".join(part.to(cid) for part in block), cid)
            if stream is not None:
                stream.begun = True
                if block[0].flags & END_STREAM and block[0].kind == HEADERS:
                    self._answered(stream)
        elif kind == DATA:
            self._pod_data(frame, cid, known)
            if stream is not None and frame.flags & END_STREAM:
                self._answered(stream)
        elif kind == WINDOW_UPDATE:
            size = frame.number()
            if not sid:
                pod.window += size
                self._pump_all(pod)
            elif stream is not None:
                stream.window += size
                self._pump_all(pod)
            if known:
                self._out.append(Send(CLIENT, frame.to(cid)))
        elif kind == RST_STREAM:
            if known:
                self._tell(pod, frame.to(cid), cid)
            if stream is not None:
                self._drop(stream)
        elif kind == GOAWAY and not self._raw:
            self._pod_goes(frame)
        elif known:
            if kind == SETTINGS and frame.flags & ACK:
                size = self._unacked.popleft() if self._unacked else TABLE
                if size < TABLE:
                    self._shrink.append(size)
            elif kind == SETTINGS:
                pod.greeted = True
                self._pod_unacked.append(http2.table_size(frame.payload))
                self._read_settings(pod, frame.payload)
            self._out.append(Send(CLIENT, frame.to(cid)))

    def _pod_data(self, frame: Frame, cid: int, known: bool) -> None:
        size = len(frame.payload)
        if not known:
            if size:
                self._out.append(Send(POD, http2.window_update(0, size)))
            return
        self._pod_window -= size
        if self._raw or (not self._waiting and size <= self._window):
            self._window -= size
            self._out.append(Send(CLIENT, frame.to(cid)))
            return
        data = frame.content()
        padding = size - len(data)
        if padding:
            self._pod_window += padding
            self._out.append(Send(POD, http2.window_update(0, padding) + http2.window_update(frame.stream, padding)))
        self._waiting.append(Down(b"", self._pod, cid, data, bool(frame.flags & END_STREAM)))
        self._deliver()

    def _pod_goes(self, frame: Frame) -> None:
        if len(frame.payload) < 8:
            raise BrokenFrame(http2.FRAME_SIZE_ERROR)
        last = int.from_bytes(frame.payload[:4], "big") & http2.MAX_WINDOW
        if last >= http2.MAX_WINDOW - 1:  # a notice that the end is near, RFC 9113 6.8
            self._out.append(Send(CLIENT, frame.raw))
            return
        self._pod.draining = True
        # Numbers differ, and those of sessions go on: so none is declared unseen but one by one.
        self._dismiss(int.from_bytes(frame.payload[4:8], "big"))
        for stream in [stream for stream in self._pod.streams.values() if stream.sid > last]:
            self._tell(self._pod, http2.reset(stream.cid, http2.REFUSED_STREAM), stream.cid)
            self._drop(stream)

    def _from_leg(self, leg: Leg, frame: Frame, block: List[Frame]) -> None:
        kind = frame.kind
        if not leg.greeted and kind != SETTINGS:
            raise BrokenFrame(http2.PROTOCOL_ERROR)
        sid = block[0].stream if block else frame.stream
        stream = leg.streams.get(sid)
        if block:
            if block[0].kind == PUSH_PROMISE:
                raise BrokenFrame(http2.PROTOCOL_ERROR)
            fields, _ = leg.decoder.decode(http2.fragment(block))
            if stream is not None:
                self._begin_answer(stream)
                self._tell_fields(leg, stream, fields, bool(block[0].flags & END_STREAM))
        elif kind == DATA:
            self._leg_data(leg, stream, frame)
        elif kind == WINDOW_UPDATE:
            size = frame.number()
            if not sid:
                leg.window += size
            elif stream is not None:
                stream.window += size
            self._pump_all(leg)
        elif kind == RST_STREAM and stream is not None:
            if frame.number() == http2.REFUSED_STREAM and not stream.begun:
                self._instead(stream)
            else:
                self._tell(leg, frame.to(stream.cid), stream.cid)
                self._drop(stream)
        elif kind == SETTINGS and not frame.flags & ACK:
            leg.greeted = True
            self._read_settings(leg, frame.payload)
            self._reply(leg, http2.frame(SETTINGS, ACK, 0))
        elif kind == PING and not frame.flags & ACK:
            self._reply(leg, http2.frame(PING, ACK, 0, frame.payload))
        elif kind == GOAWAY:
            leg.draining = True
            last = int.from_bytes(frame.payload[:4], "big") & http2.MAX_WINDOW
            for stream in [stream for stream in leg.streams.values() if stream.sid > last]:
                self._instead(stream)
            if not leg.streams and leg.to in self._legs:
                del self._legs[leg.to]
                self._close(leg.to)

    def _reply(self, leg: Leg, data: bytes) -> None:
        if leg.to in self._blocked:
            leg.unread += 1
            if leg.unread > MAX_UNREAD:
                raise BrokenFrame(http2.CALM)
        self._out.append(Send(leg.to, data))

    def _leg_data(self, leg: Leg, stream: "Stream | None", frame: Frame) -> None:
        size = len(frame.payload)
        data = frame.content() if stream is not None else b""
        padding = size - len(data)
        if padding:
            grant = http2.window_update(0, padding)
            self._out.append(Send(leg.to, grant if stream is None else grant + http2.window_update(frame.stream, padding)))
        if stream is None:
            return
        self._begin_answer(stream)
        end = bool(frame.flags & END_STREAM)
        self._waiting.append(Down(b"", leg, stream.cid, data, end))
        self._deliver()
        if end:
            self._answered(stream)

    def _read_settings(self, leg: Leg, payload: bytes) -> None:
        for key, value in http2.read_settings(payload):
            if key == http2.INITIAL_WINDOW:
                if value > http2.MAX_WINDOW:
                    raise BrokenFrame(http2.FLOW_CONTROL_ERROR)
                for stream in leg.streams.values():
                    stream.window += value - leg.initial
                leg.initial = value
            elif key == http2.FRAME_SIZE:
                leg.size = min(max(value, http2.SIZE), http2.MAX_FRAME)
                if leg is self._pod:
                    self._splitter.limit = leg.size
            elif key == http2.TABLE_SIZE:
                if leg is self._pod:
                    self._decoder.limit = max(self._decoder.limit, value)
                elif value < TABLE:
                    leg.updates = [value]
        self._pump_all(leg)

    # -- to the client --

    def _tell(self, leg: Leg, raw: bytes, cid: int) -> None:
        if self._waiting:
            self._waiting.append(Down(raw, leg, cid, b"", False))
        else:
            self._out.append(Send(CLIENT, raw))

    def _tell_fields(self, leg: Leg, stream: Stream, fields: List[Field], end: bool) -> None:
        shrink, self._shrink = self._shrink, []
        self._tell(leg, http2.headers(stream.cid, fields, end, self._size, [min(shrink)] if shrink else []), stream.cid)
        if end:
            self._answered(stream)

    def _deliver(self) -> None:
        """As much of what waits as the client takes."""
        waiting = self._waiting
        while waiting:
            raw, leg, cid, data, end = waiting[0]
            if raw:
                self._out.append(Send(CLIENT, raw))
            else:
                room = min(self._window, self._size)
                if data and room <= 0:
                    return
                part = data[:room]
                self._window -= len(part)
                last = len(part) == len(data)
                if part or end:
                    self._out.append(Send(CLIENT, http2.frame(DATA, int(end and last), cid, part)))
                if part and leg is not self._pod and self._legs.get(leg.to) is leg:
                    self._out.append(Send(leg.to, http2.window_update(0, len(part))))
                if not last:
                    waiting[0] = Down(b"", leg, cid, data[len(part) :], end)
                    continue
            waiting.popleft()
        self._quit()

    def _begin_answer(self, stream: Stream) -> None:
        stream.begun, stream.kept = True, None

    def _answered(self, stream: Stream) -> None:
        stream.answered = True
        self._settle(stream)

    # -- ends --

    def peer_eof(self, to: int) -> None:
        leg = self._legs.get(to)
        if to == POD and self._raw and not self._over:
            down = self._pod_pending + self._pod.splitter.rest()
            self._pod_pending = b""
            if down:
                self._out.append(Send(CLIENT, down))
            self._out.append(Eof(CLIENT))
            self._splice()
        elif leg is not None and to in self._open:
            self._close(to)
            self._lost(leg)

    def peer_reset(self, to: int) -> None:
        leg = self._legs.get(to)
        self._open.discard(to)
        if to == POD and len(self._streams) == len(self._pod.streams) and not self._over:
            self._reset()
        elif leg is not None:
            self._lost(leg)

    def _lost(self, leg: Leg) -> None:
        """Its connection is over."""
        del self._legs[leg.to]
        if leg is self._pod:
            self._dismiss(http2.NO_ERROR)
            for stream in list(leg.streams.values()):
                self._tell(leg, http2.reset(stream.cid, http2.INTERNAL_ERROR), stream.cid)
                self._drop(stream)
            self._quit()
        else:
            for stream in list(leg.streams.values()):
                self._instead(stream)

    def _instead(self, stream: Stream) -> None:
        """A session's program failed: POD is asked, if the answer hasn't begun."""
        leg, kept = stream.leg, stream.kept
        assert leg is not None
        leg.streams.pop(stream.sid, None)
        stream.leg = None
        if not stream.begun and kept is not None and stream.down == "pass":
            self._queued -= stream.queued
            stream.queue, stream.queued = deque(kept), sum(len(part.data) for part in kept)
            self._queued += stream.queued
            self._assign(stream, POD)
            return
        if stream.begun:
            self._tell(leg, http2.reset(stream.cid, http2.INTERNAL_ERROR), stream.cid)
        else:
            size = b"%d" % len(FAILED)
            fields = [Field(b":status", b"502"), Field(b"content-type", b"text/plain"), Field(b"content-length", size)]
            self._tell_fields(leg, stream, fields, False)
            self._waiting.append(Down(b"", leg, stream.cid, FAILED, True))
            self._deliver()
            if not stream.ended:
                self._tell(leg, http2.reset(stream.cid, http2.NO_ERROR), stream.cid)
        self._drop(stream)

    def _splice(self) -> None:
        up, down = self._pending + self._splitter.rest(), self._pod_pending + self._pod.splitter.rest()
        self._splice_raw(POD, up, down)

    def idle(self) -> bool:
        return not self._streams and not self._waiting

    def _quit(self) -> None:
        """The last answer has been delivered, and POD is gone."""
        if POD not in self._open and not self._streams and not self._waiting and not self._over:
            self._goaway(http2.NO_ERROR)

    def _dismiss(self, code: int) -> None:
        if not self._going or code:
            self._going = True
            self._out.append(Send(CLIENT, http2.frame(GOAWAY, 0, 0, struct.pack("!II", self._last, code))))

    def _goaway(self, code: int) -> None:
        self._timer(0)
        self._dismiss(code)
        self._out.append(Eof(CLIENT))
        for to in sorted(self._open):
            self._close(to)
        self._legs.clear()
        self._streams.clear()
        self._over = True
        self.done = self._client_ended
