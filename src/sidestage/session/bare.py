"""A session without a program: an agent and its links, for verbs that use them themselves.

One process, no trap and no broker; so it needs no seccomp. It runs until a signal, an order of the verb or of `sidestage status
--stop`, or the loss of the agent. What the parts of a session say to trap, Bare takes in trap's place (broker.Told).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from sidestage.session import interrupts
from sidestage.session.attachment import Attachment
from sidestage.session.broker import Handler
from sidestage.session.feed import Feed
from sidestage.session.recent import Recent
from sidestage.stream.link import HEARTBEAT, SILENCE, Args, Link
from sidestage.stream.loop import Loop
from sidestage.targets.plug import Plug

BEGIN_TIMEOUT = 20.0  # seconds for an agent that has said READY to say who it is


class Lost(Exception):
    """The session ended though nobody asked for it; the text is for the user."""


class Bare:
    """`opened` gets the channels that the agent opens, `noticed` its events first (True: that was all), `again` is called when
    another agent has taken the place of the first, or was added: it knows of no claims."""

    def __init__(
        self, session: str, about: dict[str, Any], plug: Plug, stream: int, say: Callable[[str], None], *,
        heartbeat: float = HEARTBEAT, silence: float = SILENCE,
    ) -> None:  # fmt: skip
        self._session, self._plug, self.say = session, plug, say
        self.loop = Loop()
        self.opened: Callable[[Link, int, str, Args], None] = lambda link, channel, *_: link.refuse(channel, 111)
        self.noticed: Callable[[str, Args], bool] = lambda *_: False
        self.again: Callable[[Link], None] = lambda link: None
        self.target: Args = {}  # what the agent said of it
        self.signal = 0  # that ended it
        self.agent_pid = 0  # where it is a process of this machine
        self._why: str | None = None
        self._handlers: dict[str, Handler] = {}
        self.feed = Feed(self.loop, session, about, lambda: self.lose("stopped from outside"))
        self._attachment = Attachment(
            self.loop, plug, stream, heartbeat=heartbeat, silence=silence, opened=lambda *opened: self.opened(*opened),
            noticed=self._noticed, said=self._say, lost=self.lose, again=self._again, replica=lambda link: self.again(link),
        )  # fmt: skip
        self.links = self._attachment.links
        self.asked = Recent(self.links)

    def begin(self) -> None:
        """Wait for the agent's greeting. Raises Lost."""

        def greeted(result: Args, _raw: bytes, errno: int) -> None:
            late.cancel()
            if errno:
                self.lose(f"the agent beside the target answered with: {os.strerror(errno)}")
            self.target = result
            self.feed.tell("begin", **result)
            self.loop.stop()

        late = self.loop.later(BEGIN_TIMEOUT, lambda: self.lose(f"the agent did not greet within {BEGIN_TIMEOUT:.0f} s"))
        self._attachment.hello(self._session, greeted)
        self.run()

    def run(self) -> None:
        """Until `stop`, or SIGINT and its like; `signal` says which. Raises Lost."""

        def came(number: int) -> None:
            self.signal = number
            self.loop.stop()

        with interrupts.heard(self.loop, came):
            if self._why is None:
                self.loop.run()
        if self._why is not None:
            raise Lost(self._why)

    def stop(self) -> None:
        self.loop.stop()

    def lose(self, text: str) -> None:
        self.feed.tell("lost", text=text)
        self._why = text
        self.loop.stop()

    def close(self) -> None:
        """Say goodbye; everything is removed."""
        self._attachment.close()
        self._plug.close()

    # -- in trap's place --

    def on(self, op: str, handler: Handler) -> None:
        self._handlers[op] = handler

    def request(self, op: str, **args: Any) -> None:
        """What trap would ask of a part; the answer is of no interest."""
        self._handlers[op](args, [], lambda *_, **__: None)

    def event(self, name: str, /, fds: Sequence[int] = (), **args: Any) -> None:
        if name == "say":
            self._say(args["text"])
        elif name in ("ended", "lost"):
            self.lose(args["text"])

    # -- the agent's side --

    def _noticed(self, name: str, args: Args) -> None:
        if self.noticed(name, args):
            return
        if name == "warning":
            self._say(args["text"])
        elif name == "mirror.dropped":
            self.feed.tell("dropped", **args)
        elif name == "target.gone":
            self._attachment.target_gone(args.get("text") or "the target has ended")

    def _say(self, text: str) -> None:
        self.say(text)
        self.feed.tell("say", text=text)

    def _again(self) -> None:
        def greeted(result: Args, _raw: bytes, errno: int) -> None:
            if not errno:
                self.target = result

        self.asked.forget()
        self._attachment.hello(self._session, greeted)
        self.again(self.links.control)
