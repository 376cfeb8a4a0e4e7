"""The text of the agent container's main process, for `python -c`: it waits for the agents that exec starts, ends with the last.

Where several sessions share the container it waits a while for another one's agent before it ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from typing import List

agents: List[socket.socket] = []
leaving: List[int] = []


def told(*_: object) -> None:
    """The pod is being deleted: the agents hear of it and undo what they did."""
    if not agents:
        os._exit(0)
    leaving.append(1)
    for agent in agents:
        agent.shutdown(socket.SHUT_WR)
    signal.alarm(10)


def wait(seconds: int) -> None:
    """For an agent."""
    signal.alarm(seconds)
    agents.append(listener.accept()[0])
    signal.alarm(0)


name, first, another = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
listener = socket.socket(socket.AF_UNIX)
listener.bind("\0" + name)  # abstract: the network namespace is its only door, and no file is left
listener.listen(8)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
wait(first)
while agents:
    for sock in select.select([listener, *agents], [], [])[0]:
        if sock is listener:
            agents.append(listener.accept()[0])
        elif not sock.recv(1):
            agents.remove(sock)
    if not agents and another and not leaving:
        wait(another)
