"""A container instead of a program: its engine's client runs in the foreground, and the listeners come from the runtime.

The filter comes into the container's configuration by a profile that its box gives to the engine, or by a hook that sends us what
is about to be started, and gets it back changed. The runtime then connects to the filter's listenerPath and sends the descriptor,
once for the container and once for each process that `podman exec` or `docker exec` adds. All speak to one unix socket, in a folder
that session removes at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sidestage.trap import network, oci
from sidestage.trap.launch import LaunchError
from sidestage.trap.ports import Box
from sidestage.trap.supervisor import Supervisor, children, terminate

SPEAK = 5.0  # seconds for a hook or a runtime that has connected to say all it has to
MAX_SAID = 16 << 20  # bytes of a container's configuration; a profile and hundreds of mounts take some 100 KiB
_UCRED = struct.Struct("=iII")  # unix(7): pid, uid, gid
CLEAN_UP = 20.0  # seconds for the engine's client to tidy up after its container

class Engine:
    def __init__(self, sup: Supervisor, box: Box, ready: Callable[[int, socket.socket | None], None]) -> None:
        self._sup, self._box, self._ready = sup, box, ready
        self.pid = -1
        sup.boxed = True
        self._roots: dict[int, int] = {}  # first processes in the container, with a pidfd each
        self._handed = False
        self._refused = ""
        folder = box.folder
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.path = os.path.join(folder, "socket")
        self._sock.bind(self.path)
        self._sock.listen()
        box.offers(self.path, sup.names)
        sup.watch(self._sock.fileno(), self._connected)

    def start(self, argv: Sequence[str], env: Mapping[str, str], mask: Collection[int]) -> None:
        """Raises LaunchError."""
        self.pid = os.fork()
        if self.pid:
            return
        try:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is ignored is inherited (signal(7))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execve(argv[0], list(argv), dict(env))
        finally:
            os._exit(126)

    def tasks(self) -> list[int]:
        """All that runs in the container, with what was added to it."""
        found: set[int] = set()
        for pid, pidfd in list(self._roots.items()):
            if select.select([pidfd], [], [], 0)[0]:
                os.close(self._roots.pop(pid))  # ended, and its number may be in use again
            else:
                found |= {pid, *children(pid)}
        return list(found)

    def finish(self, reap: Callable[[float], bool]) -> None:
        """The container has ended: so does the client, when it has tidied up. `reap` waits for it."""
        self._sup.unwatch(self._sock.fileno())
        self._sock.close()  # who connects now fails
        if not self._handed:
            terminate([self.pid])  # it has not come to the container yet, or never will
        if not reap(CLEAN_UP):
            terminate([self.pid])
            if not reap(CLEAN_UP):
                terminate([self.pid], signal.SIGKILL)
                reap(CLEAN_UP)

    def check(self, done: bool) -> None:
        """After all: raises LaunchError if the container was refused, or ran to its end and was not plugged in."""
        if self._refused:
            raise LaunchError(self._refused, 1)
        if done and not self._handed:
            raise LaunchError("the container's runtime handed over no filter, so it was not plugged in; crun and runc 1.1 can", 1)

    def _connected(self) -> None:
        try:
            end, _ = self._sock.accept()
        except OSError:
            return
        with end:
            end.settimeout(SPEAK)
            try:
                data, fds, _, _ = socket.recv_fds(end, 1 << 16, 4)
                if fds:
                    for extra in fds[1:]:
                        os.close(extra)
                    told = json.loads(data)
                    peer = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
                    self._listen(told["pid"], told["state"], fds[0], _UCRED.unpack(peer)[0])
                    return
                while chunk := end.recv(1 << 16):
                    data += chunk
                    if len(data) > MAX_SAID:
                        return
                if data:
                    end.sendall(self._hooked(data))
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._sup.say(f"what the container's engine said can't be used: {error!r}")

    def _hooked(self, data: bytes) -> bytes:
        spec = json.loads(data)
        try:
            killable = self._box.begins(spec)
        except LaunchError as error:
            self._refused = str(error)
            return b""
        linux = spec.setdefault("linux", {})
        linux["seccomp"] = oci.seccomp(linux.get("seccomp"), self._sup.names, self.path, killable=killable)
        return json.dumps(spec).encode()

    def _listen(self, pid: int, state: Mapping[str, Any], listener: int, runtime: int) -> None:
        os.set_inheritable(listener, False)
        with contextlib.suppress(OSError):
            self._roots[pid] = os.pidfd_open(pid)
        first, self._handed = not self._handed, True
        try:
            if first:
                self._box.starts(state, runtime)
            made = network.maker(pid) if first else None
        except (OSError, LaunchError) as error:
            self._refused = str(error.strerror if isinstance(error, OSError) else error)
            terminate([pid], signal.SIGKILL)
            os.close(listener)
            return
        if made is None:
            self._ready(listener, None)
            return
        ours, sessions, ident = made
        self._sup.network.enter(ours, ident, pid)
        with sessions:
            self._ready(listener, sessions)
