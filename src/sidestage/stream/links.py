"""All the links between the same two: the control link, and bulk links beside it, when there are any.

A bulk link has its own mux and its own connection. Channels and the contents of files go over the bulk link with the fewest
channels, so that no control message waits behind them.
"""

from __future__ import annotations

from typing import Callable, List

from sidestage.stream.link import Args, Done, Link

BULK_CALLS = ("open", "create", "read", "readdir", "write")


class Links:
    def __init__(self, control: Link) -> None:
        self.control = control
        self.bulk: List[Link] = []
        self.replicas: List[Link] = []  # to agents beside other pods of the target, for incoming traffic
        self.on_everywhere: Callable[[], None] = lambda: None
        self._up = True
        self._held: List[Callable[[], None]] = []

    def add(self, link: Link) -> None:
        self.bulk.append(link)

    def remove(self, link: Link) -> None:
        for links in (self.bulk, self.replicas):
            if link in links:
                links.remove(link)

    def carrier(self) -> Link:
        """The link for a new channel."""
        return min(self.bulk, key=lambda link: link.load) if self.bulk else self.control

    def down(self) -> None:
        """The control link is lost, and another one is on its way: what is asked meanwhile waits for it."""
        self._up = False

    def up(self) -> None:
        """There is a control link again, or there will be none: then what waited fails."""
        self._up = True
        held, self._held = self._held, []
        for fn in held:
            fn()

    def when_up(self, fn: Callable[[], None]) -> None:
        if self._up:
            fn()
        else:
            self._held.append(fn)

    def everywhere(self, op: str, args: Args, done: Done) -> None:
        """Ask the agent, and those of all replicas; `done` hears of each."""
        self.on_everywhere()
        for link in (self.control, *self.replicas):
            link.call(op, args, done)

    def call(self, op: str, args: Args, done: Done, raw: bytes = b"") -> None:
        """As Link.call, by the link that suits the call."""
        if not self._up:
            self._held.append(lambda: self.call(op, args, done, raw))
            return
        (self.carrier() if op in BULK_CALLS else self.control).call(op, args, done, raw)
