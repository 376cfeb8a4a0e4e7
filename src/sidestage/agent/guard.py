"""The text of the agent container's main process, for `python -c`: it waits for the agent that exec starts, and ends with it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Optional

agent: Optional[socket.socket] = None


def told(*_: object) -> None:
    """The pod is being deleted: the agent hears of it and undoes what it did."""
    if agent is None:
        os._exit(0)
    agent.shutdown(socket.SHUT_WR)
    signal.alarm(10)


listener = socket.socket(socket.AF_UNIX)
listener.bind("\0" + sys.argv[1])  # abstract: the network namespace is its only door, and no file is left
listener.listen(1)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
signal.alarm(int(sys.argv[2]))
agent = listener.accept()[0]
signal.alarm(0)
while agent.recv(1):
    pass
