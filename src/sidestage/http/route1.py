"""Routes the requests of one HTTP/1 connection, each to the target's own program (POD) or to a session's; sans-IO.

Requests of a pipelining client that are POD's pass on at once; one that changes the program waits until all before it are
answered, so that answers keep their order. Bytes go out as they came. The connection is the target's in the end: what is
ambiguous is spliced with it, and so is everything in which nothing is left to decide. A session's program that fails before its
answer began is replaced by the target's own, if the request was kept (REPLAY); later than that the client sees a reset, as a
cut answer must not look complete. Whoever served last decides when an idle connection ends.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, List, Optional, Sequence, Union

from sidestage.http import http1
from sidestage.http.filters import Facts
from sidestage.http.http1 import Ambiguous, Answer, Chunked, Request
from sidestage.http.orders import CLIENT, MAX_WAITING, POD, REPLAY, UPGRADED, Eof, Note, Order, Rule, Send, body_bounds, choose
from sidestage.http.wires import Wires

DETECT_TIME = 0.5  # seconds for a first line that may yet be HTTP's
HEAD_TIME = 10.0  # seconds for a head; a slower one is the target's to judge
FAILED = b"sidestage: the local program that takes this request failed before it answered\n"
MAX_PIPELINED = 100  # requests that wait for their answers
_NONE = -2  # no exchange is under way
_NOTHING = Request(b"", b"", b"", b"", 0, True, b"", False)


class Http1(Wires):
    def __init__(self, rules: Sequence[Rule], out: List[Order]) -> None:
        super().__init__(rules, out)
        self._used = False  # the connection to POD has carried a request
        self._owner = POD  # who served last
        self._buffer = b""  # from the client, not yet sent on
        self._seen = 0  # bytes of a head that were looked at
        self._discard = False
        # the exchange
        self._target = _NONE
        self._request = _NOTHING  # the newest one
        self._asked: Deque[Request] = deque()  # what is to be answered; more than one only by POD
        self._answer = Answer(b"")  # to the first of them
        self._left: Union[int, Chunked] = 0  # of the request's body
        self._sending = self._body_begun = False
        self._waits = False  # the next request is not POD's, so it is not looked at before its turn
        self._hold: Optional[bytearray] = None  # a body that a filter waits for
        self._replay: Optional[bytes] = None  # all of the request that was sent, while it can be asked again
        self._stale = False  # the target's program may have closed the connection, as we kept it idle

    # -- from the client --

    def client(self, data: bytes) -> None:
        if not self._discard:
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()

    def client_eof(self) -> None:
        self._client_ended = True
        if self._discard:
            self.done = True
        elif self._target == POD and not self._buffer:
            self._splice(POD)
        elif self._target > POD and not self._buffer:
            self._eof(self._target)
        else:
            self._advance()

    def timeout(self) -> None:
        self._timing = 0.0
        if self._hold is not None:
            self._release(b"")
            self._advance()
        elif self._target in (POD, _NONE) and self._buffer and not self._sending:
            self._splice(POD)

    def _advance(self) -> None:
        """Does all that the client's bytes allow."""
        while not self.done and not self._discard:
            if self._sending:
                if not self._buffer:
                    break
                self._pass()
            elif self._buffer and (self._target == _NONE or self._may_pipeline()):
                if not self._next():
                    break
            elif self._target != _NONE:
                break
            else:
                if self._client_ended:
                    self._last()
                break

    def _may_pipeline(self) -> bool:
        """May another request follow before the last one is answered?"""
        last = self._request
        sure = not last.upgrade and not last.expects and last.method != b"CONNECT"
        if self._target != POD or self._waits or not sure:
            return False
        return self._answer.state < Answer.END and len(self._asked) < MAX_PIPELINED

    def _next(self) -> bool:
        """Begins an exchange; False when a head is not complete, nothing is left to decide, or others are answered first."""
        data = self._buffer
        try:
            end = http1.head_end(data, 0, self._seen)
            if end < 0:
                if self._client_ended or (self._timing != HEAD_TIME and not http1.begins_http1(data)):
                    raise Ambiguous
                if self._timing != HEAD_TIME:
                    self._timer(HEAD_TIME if b"\n" in data else DETECT_TIME)
                self._seen = len(data)
                return False
            self._seen = 0
            request = http1.request(data if end == len(data) else data[:end])
        except Ambiguous:
            self._splice(POD)
            return False
        self._timer(0)
        target = self._choose(request, None)
        if self._target != _NONE and target != POD:
            self._waits = True
            return False
        self._request, self._left = request, request.body
        if target is not None:
            return self._begin(target, data, end)
        self._hold, self._buffer, self._sending = bytearray(), data[end:], True
        if isinstance(self._left, Chunked):
            self._left.keep()
        self._timer(body_bounds(self._rules)[1])
        return True

    def _choose(self, request: Request, body: Optional[bytes]) -> Optional[int]:
        if body is None:
            length = request.body
            fits = bool(self._rules) and (not isinstance(length, int) or 0 < length <= body_bounds(self._rules)[0])
            # Who waits for 100 (Continue) sends no body before its request has been passed on.
            if not fits or request.expects or b"content-encoding:" in request.fields.lower():
                body = b""
        facts = Facts(request.method.decode(), request.target.decode(), lambda: http1.lines(request.fields), body)
        return choose(self._rules, facts, self._out)

    def _begin(self, target: int, data: bytes, end: int) -> bool:
        """Send a request, of which `data[:end]` has come; the rest are the client's further bytes."""
        request = self._request
        if target == POD and (not request.persistent or not self._rules):
            self._buffer = data
            self._splice(POD)  # nothing is left to decide
            return False
        self._sending = self._left != 0
        self._body_begun = False
        head, self._buffer = (data, b"") if end == len(data) else (data[:end], data[end:])
        self._asked.append(request)
        if self._target == POD:  # behind others
            self._keep(head)
            self._send(POD, head)
            return True
        self._target, self._answer = target, Answer(request.method)
        self._stale = target == POD and self._used and self._owner != POD
        self._replay = b"" if target != POD or self._stale else None
        self._keep(head)
        if target == POD:
            self._used = True
        else:
            if not self._used and POD in self._open:
                self._close(POD)  # a server that handles one connection at a time must not wait on it
            if b"h2c" in request.upgrade.lower():  # streams of an upgraded connection could not be told apart
                head = http1.without_upgrade(request.raw) + head[len(request.raw) :]
                self._asked[-1] = request._replace(upgrade=b"")
        self._send(target, head)
        return True

    def _pass(self) -> None:
        """Passes the part of the buffer on that belongs to the request's body."""
        data, left = self._buffer, self._left
        try:
            if isinstance(left, int):
                end = min(left, len(data))
                self._left = left - end
                complete = left == end
            else:
                end = left.feed(data)
                complete = end >= 0
                end = end if complete else len(data)
        except Ambiguous:
            self._broken()
            return
        self._buffer, part = (b"", data) if end == len(data) else (data[end:], data[:end])
        self._sending, self._body_begun = not complete, True
        if self._hold is not None:
            self._hold += part
            if complete:
                self._release(bytes(left.data or b"") if isinstance(left, Chunked) else bytes(self._hold))
            elif not self._rules or len(self._hold) > 2 * body_bounds(self._rules)[0]:
                self._release(b"")
            return
        self._keep(part)
        self._send(self._target, part)
        if complete and self._answer.state == Answer.DONE:
            self._end()

    def _keep(self, part: bytes) -> None:
        if self._replay is not None:
            self._replay = self._replay + part if len(self._replay) + len(part) <= REPLAY else None

    def _release(self, body: bytes) -> None:
        """Decides a request that was held; b"": its body is out of bounds."""
        assert self._hold is not None
        held, self._hold = self._request.raw + bytes(self._hold), None
        self._timer(0)
        sending = self._sending
        if self._begin(self._choose(self._request, body) or POD, held + self._buffer, len(held)):
            self._sending, self._body_begun = sending, True

    def _broken(self) -> None:
        """The body's framing has broken: the connection is the target's, with the whole request if it is still there."""
        if self._hold is None and self._target != POD:
            if self._replay is None:
                self._reset()
                return
            self._buffer = self._replay + self._buffer
        self._splice(POD)

    def _last(self) -> None:
        """The client has ended, and has got all its answers."""
        if POD in self._open:
            self._splice(POD)
        else:
            self._finish()

    # -- from the programs --

    def peer(self, to: int, data: bytes) -> None:
        answer = self._answer
        if to == self._target and answer.state != Answer.DONE:
            self._respond(data)
        elif to == POD and self._target in (POD, _NONE):
            self._splice(POD, data)  # it speaks first, or unasked: the connection is its own
        elif to == self._target:
            self._finish()  # more than an answer
        else:
            self._close(to)

    def _respond(self, data: bytes) -> None:
        while data and self._target != _NONE and not self.done:
            answer, target = self._answer, self._target
            try:
                data, end = answer.feed(data)
                if end < len(data) and answer.state == Answer.DONE and len(self._asked) < 2:
                    raise Ambiguous  # more than an answer
                if answer.status == 101 and not self._asked[0].upgrade:
                    raise Ambiguous
            except Ambiguous:
                data = answer.begun() or data
                if target == POD:
                    self._splice(POD, data)
                else:  # all that comes of it is one answer, which ends with the connection
                    self._out.append(Send(CLIENT, data))
                    answer.state, answer.persistent, self._replay = Answer.END, False, None
                return
            if not end:
                return
            self._replay = None
            if answer.state == Answer.SWITCHED or (target == POD and not answer.persistent and not self._sending):
                answer.begun()
                if answer.state == Answer.SWITCHED and b"h2c" in self._asked[0].upgrade.lower():
                    self._out.append(Note(0, UPGRADED))
                self._splice(target, data)
                return
            part, data = (data, b"") if end == len(data) else (data[:end], data[end:])
            self._out.append(Send(CLIENT, part))
            if answer.state != Answer.DONE:
                return
            if not self._sending or len(self._asked) > 1:
                self._end()
            elif self._request.expects and not self._body_begun:
                self._end(gone=True)  # the client may leave its body out, and the two may differ in that
        self._advance()

    def _end(self, gone: bool = False) -> None:
        """The first exchange is complete; `gone`: nobody knows what comes next."""
        self._asked.popleft()
        if self._asked:
            self._answer = Answer(self._asked[0].method)
            return
        self._owner, self._target, self._waits = self._target, _NONE, False
        if gone or not (self._answer.persistent and self._request.persistent):
            if self._owner == POD:
                self._splice(POD)
            else:
                self._finish()

    def peer_eof(self, to: int) -> None:
        state = self._answer.state
        if to != self._target:
            self._idle_gone(to, True)
        elif to == POD and not self._retry():
            self._flush()
            self._out.append(Eof(CLIENT))
            self._splice(POD)
        elif to == POD:
            return
        elif state == Answer.HEAD:
            self._close(to)
            self._instead()
        elif state in (Answer.END, Answer.DONE):
            self._finish()
        else:
            self._reset()

    def peer_reset(self, to: int) -> None:
        self._open.discard(to)
        state = self._answer.state
        if to != self._target:
            self._idle_gone(to, False)
        elif to == POD:
            if not self._retry():
                self._reset()
        elif state == Answer.HEAD:
            self._instead()
        elif state == Answer.DONE:
            self._finish()
        else:
            self._reset()

    def _idle_gone(self, to: int, orderly: bool) -> None:
        """A program ended a connection that carries no exchange."""
        if self._target == _NONE and to == POD and (self._owner == POD or self._owner not in self._open):
            if orderly:
                self._out.append(Eof(CLIENT))
                self._splice(POD)
            else:
                self._reset()
            return
        if orderly:
            self._close(to)
        if self._target == _NONE and to == self._owner:
            self._owner = POD  # which has its own mind about idle connections
            self._ensure(POD)

    def _retry(self) -> bool:
        """The target's program closed a connection that we kept idle just when this request came: ask again."""
        if not self._stale or self._replay is None or self._answer.state != Answer.HEAD or self._answer.begun():
            return False
        replay, self._replay, self._stale = self._replay, None, False
        if POD in self._open:
            self._close(POD)
        self._send(POD, replay)
        return True

    def _instead(self) -> None:
        """A session's program failed before its answer began: ask the target's."""
        down = next((rule.down for rule in self._rules if rule.number == self._target), "pass")
        if self._replay is None or down != "pass":
            head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            self._out.append(Send(CLIENT, head % len(FAILED) + FAILED))
            self._finish()
            return
        replay, self._replay, self._target, self._answer = self._replay, None, POD, Answer(self._request.method)
        if not self._request.persistent:
            self._buffer = replay + self._buffer
            self._splice(POD)
            return
        self._used = True
        self._send(POD, replay)

    # -- ends --

    def _send(self, to: int, data: bytes) -> None:
        self._ensure(to)
        self._out.append(Send(to, data))
        if self._client_ended and not self._buffer:
            self._eof(to)

    def _flush(self) -> None:
        begun = self._answer.begun()
        if begun:
            self._out.append(Send(CLIENT, begun))

    def _splice(self, to: int, data: bytes = b"") -> None:
        if self._hold is not None:
            self._buffer = self._request.raw + bytes(self._hold) + self._buffer
        self._splice_raw(to, self._buffer, data or self._answer.begun())

    def _finish(self) -> None:
        """The client gets no more; what it may still send is nobody's."""
        self._timer(0)
        self._out.append(Eof(CLIENT))
        for to in sorted(self._open):
            self._close(to)
        self._discard, self._sending, self._target, self._buffer = True, False, _NONE, b""
        self._asked.clear()
        self.done = self._client_ended

    def idle(self) -> bool:
        return self._target == _NONE and not self._buffer and self._hold is None

    def _full(self) -> bool:
        if self._discard or self._target == _NONE:
            return False
        return len(self._buffer) > MAX_WAITING or self._target in self._blocked
