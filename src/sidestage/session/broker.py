"""The session's end of the broker: requests from trap, answers, and events; the table is in ARCHITECTURE.md."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sidestage.protocol.errors import ProtocolError
from sidestage.session.messages import Messages
from sidestage.stream.loop import Loop

Args = dict[str, Any]
Reply = Callable[..., None]  # reply(errno=0, fds=(), **result)
Handler = Callable[[Args, list[int], Reply], None]


class Told(Protocol):
    """Whom a part of the session serves and tells: trap, or who runs a session without a program (bare.py)."""

    def on(self, op: str, handler: Handler) -> None: ...
    def event(self, name: str, /, fds: Sequence[int] = (), **args: Any) -> None: ...


class BrokerServer:
    """Also what a session is to its lane (lane.py): whoever sends requests is served."""

    def __init__(self, loop: Loop, sock: socket.socket, on_closed: Callable[[], None]) -> None:
        self._handlers: dict[str, Handler] = {}
        self._messages = Messages(loop, sock, self._asked, on_closed)

    def on(self, op: str, handler: Handler) -> None:
        self._handlers[op] = handler

    def event(self, name: str, /, fds: Sequence[int] = (), **args: Any) -> None:
        """Tell trap; `fds` are duplicated into the message and closed here."""
        self._messages.send({"ev": name, **args}, fds)

    def _asked(self, message: Args, fds: list[int] | None) -> None:
        reply = self._replier(message["id"])
        if fds is None:
            reply(errno.EMFILE)
            return
        try:
            self._handlers[message["op"]](message, fds, reply)
        except OSError as error:
            reply(error.errno or errno.EIO)
        except ProtocolError:  # a limit of the link: this call fails, and the session goes on
            reply(errno.EAGAIN)

    def _replier(self, request: int) -> Reply:
        answered = False

        def reply(errno: int = 0, fds: Sequence[int] = (), **result: Any) -> None:
            nonlocal answered
            if request and not answered:  # 0: trap told, and asked nothing
                answered = True
                self._messages.send({"id": request, "errno": errno, **result}, fds)

        return reply
