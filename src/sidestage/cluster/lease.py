"""The other end of the pool (pool.py): a keeper takes a Job for its agent, `sidestage status` asks which there are.

A lease is a SOCK_SEQPACKET connection: as long as it lasts, the Job stays. JSON objects go over it, one to a packet.

| to the pool | |
|---|---|
| a `sharing.Want` | a Job is wanted |
| `{}` | which are there? answered with `jobs` |

| to the keeper | |
|---|---|
| `phase {text}` | for the user, meanwhile |
| `granted {job, pod, container, guard}` | its container runs |
| `failed {cause, cure}` | there is none |
| `jobs {jobs: [{job, node, sessions}]}` | |
"""

from __future__ import annotations

import json
import os
import re
import socket
from typing import TYPE_CHECKING, Any

from sidestage.cluster.errors import ClusterError
from sidestage.cluster.plan import Plan
from sidestage.cluster.pods import PodTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidestage.cluster.launch import Created

MAX_MESSAGE = 64 << 10
LOOK = 0.5  # seconds between looks whether the session still wants it
MORE = 30.0  # seconds to wait for a Job, besides agent.startup_timeout; the pool's own waits say more
STATUS = 2.0  # seconds for the answer to a question


def address(pool: str) -> str:
    """The name of a pool's socket, an abstract one."""
    return f"\0sidestage-up-{os.getuid()}-{pool}"


def pools() -> list[str]:
    """Those of this user in this network namespace, by proc_pid_net(5)."""
    ours = re.compile(rf"@sidestage-up-{os.getuid()}-(\w+)$")
    with open("/proc/self/net/unix", encoding="utf-8", errors="replace") as lines:
        return sorted({match[1] for line in lines if (match := ours.search(line.rstrip("\n")))})


def take(plan: Plan, created: Created, chosen: PodTarget, say: Callable[[str, str], None]) -> None:
    """A Job on the node of `chosen`, into `created`. Raises OSError when there is no pool, ClusterError when it has none."""
    from sidestage.cluster import sharing

    sock = _connect(plan.pool)
    try:
        sock.send(sharing.encode(sharing.want(plan, chosen)))
        sock.settimeout(LOOK)
        granted = _granted(sock, created, say, (plan.agent.startup_timeout + MORE) / LOOK)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    created.job, created.pod, created.guard = granted["job"], granted["pod"], granted["guard"]
    created.container, created.lease = granted["container"], sock


def _granted(sock: socket.socket, created: Created, say: Callable[[str, str], None], looks: float) -> dict[str, Any]:
    while looks > 0:
        created.check()
        try:
            data = sock.recv(MAX_MESSAGE)
        except TimeoutError:
            looks -= 1
            continue
        message: dict[str, Any] = json.loads(data) if data else {}
        if message.get("ev") == "granted":
            return message
        if message.get("ev") == "failed":
            raise ClusterError(message["cause"], message["cure"])
        if not message:
            raise ConnectionResetError(104, "the process that shares it has ended")
        say("phase", message["text"])
    raise ClusterError("the agent that is shared has not started in time", "run again with --debug to see where it stops")


def jobs(pool: str) -> list[dict[str, Any]]:
    """{job, node, sessions} of each Job that a pool has. Raises OSError."""
    with _connect(pool) as sock:
        sock.settimeout(STATUS)
        sock.send(b"{}")
        data = sock.recv(MAX_MESSAGE)
        return list(json.loads(data)["jobs"]) if data else []


def _connect(pool: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(address(pool))
    except BaseException:
        sock.close()
        raise
    return sock
