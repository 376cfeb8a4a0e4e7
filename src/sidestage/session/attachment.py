"""The session's agent: the control link, bulk links beside it, and a new agent in the place of one that was lost.

Where the target's place offers it (`Plug.news`), the agent opens a port that only its own pod can reach, and we ask for
connections to it, each let in by a token that the control link brought. When the control link breaks and the place can attach
again, every channel is reset and calls under way fail; new ones wait for the next agent, with which the listeners are subscribed.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable

from sidestage.agent import payload
from sidestage.session.lane import Lane
from sidestage.stream.link import HEARTBEAT, SILENCE, Args, Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.targets.plug import Plug

BULK = 2  # connections for bulk
FAR = 0.005  # seconds of round trip from which a connection's window is what limits it
BULK_FAR = 4
BESIDE_LANE = 1  # for what is no TCP connection of the program, where these have the others
BESIDE_LANE_FAR = 2
BULK_DATA = 256 << 10  # bytes in a data frame of a bulk link
HOLD = 15.0  # seconds that a call of the program waits for the next agent; then it fails
BULK_TRIES = 12  # bulk connections asked for in the life of an agent


class Attachment:
    """`opened(link, channel, kind, args)`, `noticed(event, args)`, `said(text)`, `lost(text)`, `again()`, `replica(link)` are the
    session's."""

    def __init__(
        self, loop: Loop, plug: Plug, stream: int, *, heartbeat: float = HEARTBEAT, silence: float = SILENCE,
        opened: Callable[[Link, int, str, Args], None], noticed: Callable[[str, Args], None],
        said: Callable[[str], None], lost: Callable[[str], None], again: Callable[[], None],
        replica: Callable[[Link], None], make: Callable[..., Link] = Link, lane: bool = False,
    ) -> None:  # fmt: skip
        """`lane`: the program's TCP connections may be carried by a process of their own."""
        self._make, self._may_lane = make, lane
        self.lane: Lane | None = None
        self._loop, self._plug, self._heartbeat, self._silence = loop, plug, heartbeat, silence
        self._opened, self._noticed, self._said, self._lost, self._again = opened, noticed, said, lost, again
        self._replica = replica
        self._tokens: list[tuple[bytes, bool]] = []  # and is it for the lane?
        self._asked = 0
        self._ended = self._gone = False
        self.deleted = False  # is the agent's pod being deleted?
        self.links = Links(self._control(stream))
        self.links.on_everywhere = self._want_replicas
        if plug.news >= 0:
            loop.watch(plug.news, select.EPOLLIN, self._news)

    def hello(self, session: str, done: Callable[[Args, bytes, int], None]) -> None:
        """Ask the agent who it is, and open bulk links when it offers them."""
        sent = time.monotonic()

        def answered(result: Args, raw: bytes, errno: int) -> None:
            far = time.monotonic() - sent > FAR
            done(result, raw, errno)
            if not errno and result.get("bulk"):
                self._begin_bulk(far, bool(result.get("lane")))

        self.links.control.call("hello", {"session": session, "payload": payload.sha256()}, answered)

    # -- links --

    def _link(
        self, fd: int, max_data: int, closed: Callable[[Link, str], None], noticed: Callable[[str, Args], None] | None = None
    ) -> Link:
        def on_closed(reason: str) -> None:
            closed(link, reason)
            os.close(fd)

        link: Link = self._make(
            self._loop, fd, fd, "laptop",
            on_call=lambda call, *_: link.fail(call, 38), on_open=lambda *opened: self._opened(link, *opened),
            on_event=noticed or self._noticed, on_closed=on_closed, heartbeat=self._heartbeat,
            silence=self._silence, max_data=max_data,
        )  # fmt: skip
        return link

    def _control(self, stream: int) -> Link:
        return self._link(stream, self._plug.max_data, self._control_closed)

    def _control_closed(self, link: Link, reason: str) -> None:
        if self._ended or link is not self.links.control:
            return
        for bulk in list(self.links.bulk):
            bulk.close(reason)
        if self.lane:
            self.lane.tell("drop")
        if self._plug.news >= 0:
            self.links.down()
            self._loop.later(HOLD, self.links.up)
            self._plug.send("again", why=reason, gone=self._gone, deleted=self.deleted)
            self._gone = self.deleted = False
        else:
            self._lost(f"the agent beside the target is gone: {reason}")

    # -- bulk --

    def _begin_bulk(self, far: bool, lane: bool) -> None:
        count = BULK_FAR if far else BULK
        if self._may_lane and lane:
            self._begin_lane()
        if self.lane and lane:
            for _ in range(count):
                self._ask_bulk(lane=True)
            count = BESIDE_LANE_FAR if far else BESIDE_LANE
        for _ in range(count):
            self._ask_bulk()

    def _begin_lane(self) -> None:
        self._may_lane = False  # once
        limits = {"heartbeat": self._heartbeat, "silence": self._silence, "max_data": BULK_DATA}

        def ended() -> None:
            if not self._ended and self.lane:
                self._loop.later(1.0, lambda: self._ask_bulk(lane=True) if self.lane and not self.lane.links else None)

        def lost() -> None:
            self.lane = None
            self._said("the process that carries the program's connections has ended, and they are reset; session carries new ones")

        try:
            self.lane = Lane(self._loop, limits, ended, lost)
        except OSError as error:
            self._said(f"there can be no process for bulk alone ({error.strerror}): all else waits behind it")

    def _ask_bulk(self, *, lane: bool = False) -> None:
        if self._asked >= BULK_TRIES:
            return
        self._asked += 1

        def ticket(result: Args, _raw: bytes, errno: int) -> None:
            if not errno:
                self._tokens.append((result["token"].encode(), lane))
                self._plug.send("bulk", port=result["port"])

        self.links.control.call("bulk", {"lane": lane}, ticket)

    def _bulk_stream(self, fd: int) -> None:
        def closed(link: Link, _reason: str) -> None:
            self.links.remove(link)
            if self._ended:
                return
            self._loop.later(1.0, lambda: None if self.links.bulk else self._ask_bulk())

        if not self._tokens:
            os.close(fd)
            return
        token, lane = self._tokens.pop(0)
        os.write(fd, token)  # the buffer of a new socket has room for it
        if not lane:
            self.links.add(self._link(fd, BULK_DATA, closed))
        elif self.lane:
            self.lane.add(fd)
        else:
            os.close(fd)

    # -- replicas --

    def _want_replicas(self) -> None:
        """The program listens: requests come to all pods of the target."""
        self.links.on_everywhere = lambda: None
        if self._plug.news >= 0:
            self._plug.send("replicas")

    def _replica_stream(self, fd: int) -> None:
        link = self._link(fd, self._plug.max_data, lambda link, _reason: self.links.remove(link), self._replica_noticed)
        self.links.replicas.append(link)
        self._replica(link)

    def _replica_noticed(self, name: str, args: Args) -> None:
        if name != "target.gone":  # whoever started the agent knows, and looks for others
            self._noticed(name, args)

    # -- what the place tells --

    def _news(self, _events: int) -> None:
        message, fds = self._plug.read_news()
        event = message.get("ev")
        if event == "bulk":
            self._bulk_stream(fds[0])
        elif event == "replica":
            self._replica_stream(fds[0])
        elif event == "say":
            self._said(message["text"])
        elif event == "nobulk":
            self._tokens.clear()
            self._said(f"bulk data goes over the exec stream, at a third of the speed: {message['text']}")
        elif event == "attached":
            self._asked = 0
            self._tokens.clear()
            self.links.control = self._control(fds[0])
            self._again()
            self.links.up()
        elif event != "phase":  # the steps of a second start are of no interest
            self._loop.unwatch(self._plug.news)
            self.links.up()
            self._lost(message.get("text") or "the process that keeps the agent has ended")
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def target_gone(self, text: str) -> None:
        """The agent says that its target has ended."""
        if self._plug.news >= 0:
            self._gone = True
            self.links.control.close(text)
        else:
            self._lost(text)

    def close(self) -> None:
        """Say goodbye, so that the agent need not wait for the end of the stream."""
        self._ended = True
        self.links.control.mux.bye()
        self.links.control.flush()
        for link in self.links.replicas:
            link.mux.bye()
            link.flush()
        if self.lane:
            self.lane.close()
        for link in (*self.links.bulk, *self.links.replicas, self.links.control):
            link.close("the session has ended")
