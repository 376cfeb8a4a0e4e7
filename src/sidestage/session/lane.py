"""The process that pumps the program's TCP connections, with bulk links of its own.

A busy process waits for its next turn of a busy processor, and all that it does waits with it: a word of control would wait behind
every byte that session moves. The lane is a fork of session, and ends with it; its other half is agent/lane.py.
It is asked as trap asks session (broker.py), and answers when there is something to say:

| op | | answer |
|---|---|---|
| `link {}` + stream | a bulk link, which the agent has let in | when it has ended |
| `open {number, host, port}` | connect, over the link with the fewest connections | errno, or `info`, the agent's words |
| `carry {number}` + socket | it is connected: pump | when both directions have ended: `up`, `down`, bytes |
| `reset {number}` | it is connected, and not wanted | none |
| `drop {}` | end all links: their agent is lost | none |
"""

from __future__ import annotations

import errno
import gc
import itertools
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sidestage.session.messages import Messages
from sidestage.session.opened import Ended
from sidestage.stream.loop import BULK_NICE, Loop
from sidestage.trap import kernel

TOTAL = struct.Struct("=QQ")  # bytes up and down, of all links

Args = dict[str, Any]
_LOST: Args = {"errno": errno.ECONNRESET}


class Lane:
    """Session's side. `ended()` comes when a link has ended, `lost()` when the process has."""

    def __init__(self, loop: Loop, limits: dict[str, Any], ended: Callable[[], None], lost: Callable[[], None]) -> None:
        """`limits` are the links'. Raises OSError."""
        self._ended, self._lost = ended, lost
        self._total = mmap.mmap(-1, TOTAL.size)  # shared with the fork
        self._numbers = itertools.count(1)
        self._asked: dict[int, Callable[[Args], None]] = {}
        self.links = 0
        self._over = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if not pid:
                _run(theirs, self._total, limits)
        self._messages = Messages(loop, ours, self._answered, self._gone)

    @property
    def total(self) -> tuple[int, int]:
        """Bytes up and down."""
        up, down = TOTAL.unpack(self._total[:])
        return up, down

    def add(self, fd: int) -> None:
        """The descriptor of a bulk link is the lane's from here on."""

        def over(_answer: Args) -> None:
            self.links -= 1
            self._ended()

        self.links += 1
        self._ask("link", over, fds=[fd])

    def open(self, host: str, port: int, connected: Callable[[Lent, Args], None], refused: Callable[[int], None]) -> None:
        number = next(self._numbers)

        def answered(answer: Args) -> None:
            if answer["errno"]:
                refused(answer["errno"])
                return
            lent = Lent(self, number)
            try:
                connected(lent, answer["info"])
            except OSError as error:  # no descriptor or no port is left
                lent.reset()
                refused(error.errno or errno.EIO)

        self._ask("open", answered, number=number, host=host, port=port)

    def carry(self, number: int, sock: socket.socket, ended: Ended) -> None:
        self._ask("carry", lambda answer: ended(answer.get("up", 0), answer.get("down", 0)), fds=[sock.detach()], number=number)

    def tell(self, op: str, **args: Any) -> None:
        self._messages.send({"id": 0, "op": op, **args})

    def close(self) -> None:
        """Its connections are reset."""
        self._messages.close()

    def _ask(self, op: str, answered: Callable[[Args], None], fds: Sequence[int] = (), **args: Any) -> None:
        request = next(self._numbers)
        self._messages.send({"id": request, "op": op, **args}, fds)
        if self._over:
            answered(_LOST)
        else:
            self._asked[request] = answered

    def _answered(self, message: Args, _fds: list[int] | None) -> None:
        self._asked.pop(message["id"])(message)

    def _gone(self) -> None:
        self._over = True
        self._lost()
        asked, self._asked = self._asked, {}
        for answered in asked.values():
            answered(_LOST)


class Lent:
    """An opened.Opened whose channel is the lane's."""

    def __init__(self, lane: Lane, number: int) -> None:
        self._lane, self._number = lane, number

    def carry(self, sock: socket.socket, ended: Ended) -> None:
        self._lane.carry(self._number, sock, ended)

    def reset(self) -> None:
        self._lane.tell("reset", number=self._number)


def _run(sock: socket.socket, total: mmap.mmap, limits: dict[str, Any]) -> None:
    try:
        os.nice(BULK_NICE)
        gc.freeze()  # or what is garbage here would one day close a descriptor whose number is in use again
        kernel.close_all_but({0, 1, 2, sock.fileno()})
        from sidestage.session.pumping import Pumping

        Pumping(sock, total, limits).run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)
