"""The agent's life: go to the target, say READY, serve the link until it, the target or the laptop's silence ends it."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from typing import Any, Callable, Dict, Tuple

from sidestage.agent import env
from sidestage.agent.files import Files
from sidestage.agent.mirror import Mirror
from sidestage.agent.outgoing import Outgoing
from sidestage.agent.target import Target
from sidestage.protocol.errors import ProtocolError
from sidestage.stream.link import HEARTBEAT, SILENCE, Link
from sidestage.stream.loop import Loop

READY = b"SIDESTAGE-AGENT-READY\n"
MAX_DATA = 256 << 10  # bytes in a data frame unless the laptop's side asks for less
NO_PYTHON, NO_PERMISSION, NO_PROCESS = 95, 96, 97  # exit codes of a start that failed

Args = Dict[str, Any]
Answer = Tuple[Args, bytes]


def run(args: Args) -> None:
    """`{pid: int | None, session: str, heartbeat, silence}`; ends the process."""
    # Nothing but the link may use the stream: a stray print would break it.
    stream_in, stream_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        target = Target(args["pid"])
    except (ProcessLookupError, FileNotFoundError):
        _die(NO_PROCESS, f"there is no process {args['pid']}")
    except PermissionError:
        _die(NO_PERMISSION, f"no permission to enter the namespaces of process {args['pid']}")
    _raise_limit()
    os.write(stream_out, READY)
    code = 1
    try:
        Agent(target, stream_in, stream_out, args).run()
        code = 0
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)  # at once: threads may still wait for a file system that hangs


class Agent:
    def __init__(self, target: Target, rfd: int, wfd: int, args: Args) -> None:
        self._target, self._args = target, args
        self._loop = Loop()
        self._files = Files(target.root)
        if os.fstat(rfd).st_ino == os.fstat(wfd).st_ino:
            wfd = rfd  # one socket: the loop must know it by one number
        self._link = Link(
            self._loop, rfd, wfd, "agent",
            on_call=self._called, on_open=lambda *opened: self._outgoing.opened(*opened), on_event=lambda *_: None,
            on_closed=lambda _reason: self._loop.stop(), max_data=int(args.get("max_data", MAX_DATA)),
            heartbeat=float(args.get("heartbeat", HEARTBEAT)), silence=float(args.get("silence", SILENCE)),
        )  # fmt: skip
        self._outgoing = Outgoing(self._loop, self._link, self._files)
        self._mirror = Mirror(self._loop, self._link)
        self._ops: Dict[str, Callable[[Args], Answer]] = {
            "hello": self._hello,
            "env": lambda a: ({}, env.read(target.pid)),
            "open": lambda a: self._files.open(a["path"], a.get("follow", True)),
            "read": lambda a: ({}, self._files.read(a["handle"], a["offset"], a["size"])),
            "readdir": lambda a: ({"entries": self._files.readdir(a["handle"])}, b""),
            "stat": lambda a: ({"stat": self._files.stat(a["path"], a.get("follow", True))}, b""),
            "readlink": lambda a: ({}, self._files.readlink(a["path"])),
            "statfs": lambda a: ({"statfs": self._files.statfs(a["path"])}, b""),
        }
        self._orders: Dict[str, Callable[[Args], None]] = {  # answered by nothing but success
            "close": lambda a: self._files.close(a["handle"]),
            "access": lambda a: self._files.access(a["path"], a["mode"]),
            "mirror": lambda a: self._mirror.subscribe(a["port"]),
            "unmirror": lambda a: self._mirror.unsubscribe(a["port"]),
        }
        if target.pidfd >= 0:
            self._loop.watch(target.pidfd, select.EPOLLIN, self._target_gone)

    def run(self) -> None:
        self._loop.run()

    def _called(self, call: int, op: str, args: Args, raw: bytes) -> None:
        result: Args
        try:
            if op in self._orders:
                self._orders[op](args)
                result, data = {}, b""
            else:
                result, data = self._ops[op](args)
        except OSError as error:
            self._link.fail(call, error.errno or errno.EIO, error.strerror or "")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self._link.fail(call, errno.EINVAL, repr(error))
        else:
            try:
                self._link.reply(call, result, data)
            except ProtocolError as error:  # an environment of more than a frame
                self._link.fail(call, errno.EMSGSIZE, str(error))

    def _hello(self, args: Args) -> Answer:
        target = self._target
        return {
            "pid": target.pid,
            "python": sys.version.split()[0],
            "hostname": target.hostname(),
            "addresses": target.addresses(),
            "nameservers": target.nameservers(),
            "payload": args.get("payload"),
        }, b""

    def _target_gone(self, _events: int) -> None:
        self._loop.unwatch(self._target.pidfd)
        self._link.event("target.gone", {"text": f"the target, process {self._target.pid}, has ended"})
        self._loop.later(1.0, self._loop.stop)


def _raise_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _die(code: int, text: str) -> None:
    os.write(2, text.encode() + b"\n")
    os._exit(code)
