"""The agent's life: go to the target, say READY, serve the links until the control link, the target or silence ends it."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, NoReturn, Optional, Tuple

from sidestage.agent import bulk, container, env
from sidestage.agent.bulk import Bulk
from sidestage.agent.changes import Changes
from sidestage.agent.files import Files
from sidestage.agent.lane import Lane
from sidestage.agent.mirror import Mirror
from sidestage.agent.outgoing import Outgoing
from sidestage.agent.target import Target
from sidestage.protocol.errors import ProtocolError
from sidestage.stream.link import HEARTBEAT, SILENCE, Link
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop

if TYPE_CHECKING:
    from sidestage.agent.inotify import Inotify
    from sidestage.agent.locks import Locks
    from sidestage.agent.steal import Steal

READY = b"SIDESTAGE-AGENT-READY\n"
MAX_DATA = 256 << 10  # bytes in a data frame; on the control link the laptop's side may ask for less
GUARD_SECONDS = 5.0  # for the container's main process to listen
NO_PYTHON, NO_PERMISSION, NO_PROCESS, NO_GUARD = 95, 96, 97, 98  # exit codes of a start that failed

# What it means to be in the target's pod as another user and without rights.
CLOSED = {
    "pod": "the agent may not look at the target's process, being another user: the environment is what the pod's specification "
    "says, and its files can't be had",
    "container": "the agent may not look at the target's main process: the environment is what the container was given",
}

Args = Dict[str, Any]
Answer = Tuple[Args, bytes]


def run(args: Args) -> None:
    """Serve until the end, and end the process. `args`:

    `pid` or the `container` (its id) that is the target, none of them for no target; `session`; `heartbeat` and `silence`; `guard`,
    the abstract name of the container's main process (guard.py); `bulk`, whether the laptop can reach a port here; `here`, as
    Target takes it; `agent`, the how-manieth of the session.
    """
    # Nothing but the link may use the stream: a stray print would break it.
    stream_in, stream_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # What is to be in our own network namespace is made before we leave it.
    guard = _guard(args["guard"]) if args.get("guard") else None
    listener = bulk.listen() if args.get("bulk") else None
    wanted = args.get("pid")
    try:
        if args.get("container"):
            wanted = container.find(args["container"], args.get("here", ""))
        target = Target(wanted, args.get("here", ""))
    except (ProcessLookupError, FileNotFoundError):
        _die(NO_PROCESS, f"there is no process {wanted}" if wanted else f"container {args['container'][:12]} has no process here")
    except PermissionError:
        _die(NO_PERMISSION, f"no permission to enter the namespaces of process {wanted}")
    _raise_limit()
    os.write(stream_out, READY)
    code = 1
    try:
        Agent(target, stream_in, stream_out, args, guard, listener).run()
        code = 0
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)  # at once: threads may still wait for a file system that hangs


class Agent:
    def __init__(
        self, target: Target, rfd: int, wfd: int, args: Args,
        guard: Optional[socket.socket] = None, listener: Optional[socket.socket] = None,
    ) -> None:  # fmt: skip
        self._target, self._args = target, args
        self._limits: Dict[str, Any] = {
            "heartbeat": float(args.get("heartbeat", HEARTBEAT)), "silence": float(args.get("silence", SILENCE)),
        }  # fmt: skip
        self._loop = Loop()
        self._files = Files(target.root, int(args.get("agent", 0)))
        self._changes = Changes(
            self._files, None if target.closed else target.pid, lambda text: self._links.control.event("warning", {"text": text})
        )
        self._outgoing = Outgoing(self._loop, self._files)
        if os.fstat(rfd).st_ino == os.fstat(wfd).st_ino:
            wfd = rfd  # one socket: the loop must know it by one number
        size = int(args.get("max_data", MAX_DATA))
        self._links = Links(self._link(rfd, wfd, size, lambda _link: self._end()))
        self._mirror = Mirror(self._loop, self._links)
        self._bulk = Bulk(self._loop, listener)
        self._lane = Lane(self._files, {**self._limits, "max_data": MAX_DATA})
        self._ops: Dict[str, Callable[[Args], Answer]] = {
            "hello": self._hello,
            "env": lambda a: ({}, env.own() if target.closed else env.read(target.pid)),
            "open": lambda a: self._files.open(a["path"], a.get("follow", True)),
            "read": lambda a: ({}, self._files.read(a["handle"], a["offset"], a["size"])),
            "readdir": lambda a: ({"entries": self._files.readdir(a["handle"], bool(a.get("again")))}, b""),
            "stat": lambda a: ({"stat": self._files.stat(a["path"], a.get("follow", True))}, b""),
            "realpath": lambda a: (self._files.realpath(a["path"]), b""),
            "readlink": lambda a: ({}, self._files.readlink(a["path"])),
            "bulk": lambda a: (self._bulk.ticket(self._in_lane if a.get("lane") else self._bulk_link), b""),
            "cpu": lambda a: ({"seconds": time.process_time()}, b""),
            "statfs": lambda a: ({"statfs": self._files.statfs(a["path"])}, b""),
            "watch": lambda a: (self._watching().watch(a["path"], bool(a.get("follow", True))), b""),
            "getlk": lambda a: (self._locking().getlk(a), b""),
        }
        self._orders: Dict[str, Callable[[Args], None]] = {  # answered by nothing but success
            "close": lambda a: self._files.close(a["handle"]),
            "access": lambda a: self._changes.access(a["path"], a["mode"]),
            "mirror": lambda a: self._mirror.subscribe(a["port"], bool(a.get("answers")), a.get("filter")),
            "unlock": lambda a: self._locking().unlock(a),
            "cancel": lambda a: self._locking().cancel(a),
            "unmirror": lambda a: self._mirror.unsubscribe(a["port"], bool(a.get("answers"))),
        }
        self._later: Dict[str, Callable[[int, Args], None]] = {  # answer for themselves, on the control link
            "steal": lambda call, a: self._stealing().steal(call, a),
            "unsteal": lambda call, a: self._stealing().unsteal(call, a),
            "lock": lambda call, a: self._locking().lock(call, a),
        }
        self._locks: Optional[Locks] = None
        self._steal: Optional[Steal] = None
        self._inotify: Optional[Inotify] = None
        if target.closed:
            self._links.control.event("warning", {"text": CLOSED[args.get("here", "")]})
        if target.pidfd >= 0:
            self._loop.watch(target.pidfd, select.EPOLLIN, self._target_gone)
        if guard:
            self._guard = guard
            self._loop.watch(guard.fileno(), select.EPOLLIN, self._guard_gone)

    def _link(self, rfd: int, wfd: int, max_data: int, closed: Callable[[Link], None]) -> Link:
        link = Link(
            self._loop, rfd, wfd, "agent",
            on_call=lambda *called: self._called(link, *called), on_open=lambda *opened: self._outgoing.opened(link, *opened),
            on_event=lambda *_: None, on_closed=lambda _reason: closed(link), max_data=max_data, **self._limits,
        )  # fmt: skip
        return link

    def _bulk_link(self, fd: int) -> None:
        def closed(link: Link) -> None:
            self._links.remove(link)
            os.close(fd)

        self._links.add(self._link(fd, fd, MAX_DATA, closed))

    def _in_lane(self, fd: int) -> None:
        try:
            self._lane.give(fd)
        except OSError as error:
            os.close(fd)
            text = f"there can be no other process beside the target for bulk, and control waits behind it: {error.strerror}"
            self._links.control.event("warning", {"text": text})

    def run(self) -> None:
        self._loop.run()

    def _called(self, link: Link, call: int, op: str, args: Args, raw: bytes) -> None:
        result: Args
        try:
            if op in self._later and link is self._links.control:
                self._later[op](call, args)
                return
            if op == "sync":
                self._sync(link, call, args)
                return
            if op in self._orders:
                self._orders[op](args)
                result, data = {}, b""
            elif op in self._changes:
                result, data = self._changes.call(op, args, raw)
            else:
                result, data = self._ops[op](args)
        except OSError as error:
            link.fail(call, error.errno or errno.EIO, error.strerror or "")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            link.fail(call, errno.EINVAL, repr(error))
        else:
            try:
                link.reply(call, result, data)
            except ProtocolError as error:  # an environment of more than a frame
                link.fail(call, errno.EMSGSIZE, str(error))

    def _sync(self, link: Link, call: int, args: Args) -> None:
        """The disk's time is nobody else's."""

        def done(_result: object, error: Optional[BaseException]) -> None:
            if error is None:
                link.reply(call, {}, b"")
            else:
                link.fail(call, getattr(error, "errno", None) or errno.EIO, str(error))

        self._loop.offload(lambda: self._changes.sync(args), done)

    def _hello(self, args: Args) -> Answer:
        target = self._target
        return {
            "pid": target.pid,
            "python": sys.version.split()[0],
            "hostname": target.hostname(),
            "addresses": target.addresses(),
            "nameservers": target.nameservers(),
            "payload": args.get("payload"),
            "bulk": self._bulk.open,
            # In the target's own pod a fork of ours that outlives us would be its first process's to bury, which may not do so.
            "lane": not self._args.get("here"),
            "closed": target.closed,
        }, b""

    def _stealing(self) -> Steal:
        if self._steal is None:
            from sidestage.agent.redirect import WAYS
            from sidestage.agent.steal import Steal

            ways = (self._args["redirect"],) if self._args.get("redirect") else WAYS
            self._steal = Steal(self._loop, self._links, str(self._args["session"]), ways, self._files.whole)
        return self._steal

    def _locking(self) -> Locks:
        if self._locks is None:
            from sidestage.agent.locks import Locks

            self._locks = Locks(self._loop, self._links, self._files, int(self._args.get("agent", 0)))
        return self._locks

    def _watching(self) -> Inotify:
        if self._inotify is None:
            from sidestage.agent.inotify import Inotify

            control = self._links.control
            self._inotify = Inotify(
                self._loop, self._files, lambda events: control.event("watched", {"events": events}), control.mux.pending
            )
        return self._inotify

    def _end(self) -> None:
        """The laptop is gone. Clients of the target whose connections pass through here are seen off first."""
        if self._steal is None:
            self._loop.stop()
        else:
            self._steal.end(self._loop.stop)

    def _guard_gone(self, _events: int) -> None:
        """Our pod is being deleted."""
        self._loop.unwatch(self._guard.fileno())
        self._links.control.event("pod.deleted", {})
        self._end()

    def _target_gone(self, _events: int) -> None:
        self._loop.unwatch(self._target.pidfd)
        self._links.control.event("target.gone", {"text": f"the target, process {self._target.pid}, has ended"})
        self._loop.later(1.0, self._loop.stop)


def _guard(name: str) -> socket.socket:
    """The main process of our container ends with this connection, and its end is ours: it is told when the pod is deleted.

    On a busy node it may be slower than we are, who came later.
    """
    sock = socket.socket(socket.AF_UNIX)
    ends = time.monotonic() + GUARD_SECONDS
    while True:
        try:
            sock.connect("\0" + name)
        except OSError as error:
            if time.monotonic() > ends:
                _die(NO_GUARD, f"the container's main process is gone ({error.strerror}): it waits only so long for its agent")
            time.sleep(0.02)
        else:
            return sock


def _raise_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _die(code: int, text: str) -> NoReturn:
    os.write(2, text.encode() + b"\n")
    os._exit(code)
