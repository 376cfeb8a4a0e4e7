"""The session's end of a target in a cluster: a `targets.plug.Plug` whose agent is kept by another process, the keeper.

Between both is a SOCK_SEQPACKET of JSON objects, with descriptors by SCM_RIGHTS. The end of our socket, however we end, is the
keeper's order to remove everything.

| to the session | |
|---|---|
| `phase {text}`, `say {text}` | for the user |
| `attached {text}` + stream | an agent has said READY; after `again`, its successor |
| `replica` + stream | an agent beside another pod of the target |
| `bulk` + stream | a connection to the agent's port |
| `nobulk {text}` | there will be none |
| `failed {cause, cure}` | before the first agent |
| `lost {text}` | there will be no other agent |

| to the keeper | |
|---|---|
| `bulk {port}` | open a connection to the agent's port |
| `again {why, gone, deleted}` | the agent is lost (its target is `gone`, its pod `deleted`): start one at the target's successor |
| `replicas {}` | the program listens: agents beside the other pods of the target are wanted |
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from sidestage.cluster import child
from sidestage.cluster.plan import EXEC_MAX_DATA, Plan
from sidestage.targets.spec import TargetError

MAX_MESSAGE = 64 << 10


class KeptAgent:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.news = sock.fileno()
        self.max_data = EXEC_MAX_DATA

    def wait_ready(self, say: Callable[[str, str], None]) -> int:
        while True:
            message, fds = self.read_news()
            event = message.get("ev")
            if event == "attached":
                return fds[0]
            if event == "failed":
                raise TargetError(message["cause"], message["cure"])
            if event in ("phase", "say"):
                say(event, message["text"])
            elif not message:
                raise TargetError("the process that keeps the agent has ended", "run again with --debug to see why")

    def read_news(self) -> tuple[dict[str, Any], list[int]]:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._sock, MAX_MESSAGE, 1)
        except OSError:
            return {}, []
        return (json.loads(data) if data else {}), list(fds)

    def send(self, op: str, **args: Any) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(json.dumps({"op": op, **args}).encode())

    def close(self) -> None:
        """The keeper does the rest, and nobody waits for it."""
        self._sock.close()


def start(plan: Plan, debug: bool = False) -> KeptAgent:
    """Fork the keeper; the agent is on its way."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def keep() -> None:
        ours.close()
        from sidestage.cluster import keeper

        keeper.run(theirs, plan, debug)

    child.fork(keep, debug)
    theirs.close()
    return KeptAgent(ours)
