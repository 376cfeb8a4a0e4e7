"""The session process: starts the agent, keeps the link, and serves what trap asks. `serve` is its whole life."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sidestage.cluster import child
from sidestage.session import fusemount, guard, reaper
from sidestage.session.attachment import Attachment
from sidestage.session.broker import Args, BrokerServer, Reply
from sidestage.session.feed import Feed, variables
from sidestage.session.fusefs import FuseFiles
from sidestage.session.here import Here
from sidestage.session.incoming import Incoming
from sidestage.session.memfiles import MemFiles
from sidestage.session.outgoing import Outgoing
from sidestage.session.pathchanges import PathChanges
from sidestage.session.recent import Recent
from sidestage.session.resolver import Resolver
from sidestage.session.shadows import Shadows, no_watch
from sidestage.session.watch import Watch, Wish
from sidestage.stream.link import HEARTBEAT, SILENCE, Link
from sidestage.stream.loop import Loop
from sidestage.targets import local
from sidestage.targets.plug import Plug
from sidestage.targets.spec import TargetError, TargetSpec
from sidestage.trap import kernel
from sidestage.trap.broker import encode
from sidestage.trap.network import Network
from sidestage.views.dns import NameRules
from sidestage.views.incoming import IncomingRules
from sidestage.views.resolve import Settings

if TYPE_CHECKING:
    from sidestage.record.tape import Tape

HAR = ".har"
REPLAYED = 0.5  # seconds for the last answers of a program that is played to
PULSE = 2.0  # seconds between words about the links


@dataclass(frozen=True, slots=True)
class SessionOptions:
    target: TargetSpec
    session: str
    python: str | None = None
    files: bool = True
    incoming: IncomingRules = field(default_factory=IncomingRules)
    heartbeat: float = HEARTBEAT
    silence: float = SILENCE
    about: dict[str, Any] = field(default_factory=dict)  # told to the feed's readers
    watch: Wish = Wish()
    record: str = ""  # file; one that ends in .har gets the exchanges alone
    secrets: bool = False  # recorded as they are
    writable: bool = False  # may files of the target be changed?
    executable: bool = False  # may programs of the target be run?
    names: NameRules = NameRules()
    named: bool = False  # do other decisions depend on names?
    inside: int = 0  # a process in the user namespace of the containers of this user
    folder: str = ""  # trap's, for a container to be started; removed at the end


def serve(sock: socket.socket, options: SessionOptions, kept: Plug | None = None, *, debug: bool = False) -> None:
    """Run until trap's end of `sock` closes. Called in a child process of its own, which it detaches.

    `kept` is the agent that is on its way already, where another process keeps it; else one is started on this machine.
    While the agent starts, the mount is made: on a warm machine both take some 20 ms.
    """
    trap = os.getppid()
    _detach([sock.fileno(), *([kept.news] if kept else [])], debug)
    try:
        with _while_wanted(sock):
            agent = kept or _start(options)
            mounted = _mount(options) if options.files else None
            stream = agent.wait_ready(lambda kind, text: _tell(sock, kind, text=text))
    except TargetError as error:
        _tell(sock, "failed", cause=error.cause, cure=error.cure)
        return
    except Abandoned:
        return
    session = Session(sock, options, agent, stream, mounted, trap)
    try:
        session.run()
        session.end()
    finally:
        if session.lost and isinstance(agent, local.AgentProcess):
            agent.drains = False  # it does not answer: it is killed, and what it holds of the target's goes with it
        agent.close()


def _start(options: SessionOptions) -> Plug:
    """Raises TargetError."""
    if options.target.kind == "replay":
        from sidestage.record import plug as recording

        return recording.start(options.target.name)
    limits = {"heartbeat": options.heartbeat, "silence": options.silence}
    agent = local.start_agent(local.resolve(options.target), options.session, options.python, limits)
    agent.drains = options.incoming.mode == "steal"
    return agent


class Abandoned(BaseException):
    """Trap has ended, or wants no session any more, before there was one."""


@contextlib.contextmanager
def _while_wanted(sock: socket.socket) -> Iterator[None]:
    """Start-up, which may wait long for others, ends at once by Abandoned when trap dies (prctl(2)) or sends SIGTERM."""

    def abandon(*_: object) -> None:
        raise Abandoned

    signal.signal(signal.SIGTERM, abandon)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        with contextlib.suppress(BlockingIOError):
            if not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):  # it died before the line above
                raise Abandoned
        yield
    finally:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Session:
    def __init__(
        self, sock: socket.socket, options: SessionOptions, agent: Plug, stream: int, mounted: Mounted | None, trap: int
    ) -> None:
        self._options, self._trap = options, trap
        self._guard: tuple[int, int] | None = None
        self._tape: Tape | None = None
        self.lost = False
        self._fuse = mounted.fuse if mounted else -1
        self._loop = Loop()
        self._listeners: list[int] = []
        self._begun: dict[str, Any] = {}
        self._reading = 0  # files of the target that decide on names
        self._hosts = ""
        self._feed = Feed(self._loop, options.session, options.about, lambda: self._lost("stopped from outside"))
        self._broker = BrokerServer(self._loop, sock, self._trap_gone)
        self._broker.on("ready", self._ready)
        self._attachment = Attachment(
            self._loop, agent, stream, heartbeat=options.heartbeat, silence=options.silence,
            opened=lambda *opened: self._incoming.opened(*opened), noticed=self._noticed,
            said=self._say, lost=self._lost, again=self._attached_again,
            replica=lambda link: self._incoming.subscribe_all(link), make=self._maker(), lane=self._tape is None,
        )  # fmt: skip
        links = self._links = self._attachment.links
        self._asked = Recent(links)
        self._network = Network()
        self._outgoing = Outgoing(self._loop, links, self._broker, self._feed, self._network, lambda: self._attachment.lane)
        watch = Watch(self._feed, self._broker, options.watch, lambda text: self._broker.event("ended", text=text))
        if options.record.endswith(HAR):
            from sidestage.record.har import HarFile

            watch.kept = HarFile(options.record, options.secrets).keep
        self._incoming = Incoming(self._loop, links, self._broker, options.incoming, watch, self._network)
        if options.target.kind == "replay":
            watch.answered = lambda: links.control.event("answered", {})
        self._attachment.hello(options.session, self._on_hello)
        links.call("env", {}, self._on_env)
        if options.names or options.named:
            self._learn_names()
        self._root: list[int] = []  # of the FUSE mount, and maybe its opener
        self._files: FuseFiles | MemFiles | None = None
        self._shadows: Shadows | None = None
        if mounted:
            self._root = [fd for fd in (mounted.root, mounted.opener) if fd >= 0]
            asked = self._asked
            if mounted.why:
                self._files = MemFiles(self._loop, asked)
            else:
                self._files = FuseFiles(self._loop, asked, mounted.fuse, writable=options.writable)
                self._broker.on("change", PathChanges(asked, self._files).change)
                self._shadows = Shadows(asked, self._files.changed, self._say)
            self._broker.on("watch", self._shadows.watch if self._shadows else no_watch)
            self._begun["note"] = mounted.why
        for op in ("stat", "readlink", "access", "statfs", "realpath"):
            self._broker.on(op, self._path_call(op))
        self._broker.on("open", self._open)

    def _maker(self) -> Any:
        if not self._options.record or self._options.record.endswith(HAR):
            return Link
        from sidestage.record.link import Recorder, maker
        from sidestage.record.tape import Tape

        masked = not self._options.secrets
        self._tape = Tape(self._options.record, self._options.about, masked)
        return maker(Recorder(self._tape, masked, self._say))

    def run(self) -> None:
        self._pulse()
        self._loop.run()

    def _pulse(self) -> None:
        """How the links are, for who follows."""
        if self._feed.watched:
            links, lane = [self._links.control, *self._links.bulk], self._attachment.lane
            count, up, down = (lane.links, *lane.total) if lane else (0, 0, 0)
            self._feed.tell(
                "link", rtt=round(self._links.control.rtt * 1000, 3), links=len(links) + count,
                up=up + sum(link.bytes_out for link in links), down=down + sum(link.bytes_in for link in links),
            )  # fmt: skip
        self._loop.later(PULSE, self._pulse)

    def end(self) -> None:
        """Trap is gone, or we can't go on: end what it supervised, and the agent."""
        if self._fuse >= 0:
            os.close(self._fuse)  # first: a task that waits for a file can't be killed before its request has failed
        for listener in self._listeners or [-1]:
            reaper.reap(listener, self._options.session)
        reaper.remove(self._options.folder)
        if self._guard:
            guard.stop(*self._guard)
        self._attachment.close()
        if self._tape:
            self._tape.close()

    # -- start: begin is sent when hello and env are there --

    def _on_hello(self, result: Args, _raw: bytes, errno: int) -> None:
        self._begun["hello"] = result
        self._begin(errno)

    def _on_env(self, _result: Args, raw: bytes, errno: int) -> None:
        kept = bytes(raw)
        self._feed.tell("env", variables=lambda: variables(kept))
        env = os.memfd_create("sidestage-env", os.MFD_CLOEXEC)
        os.write(env, raw)
        self._begun["env"] = env
        if errno:
            self._say(f"the target's environment can't be read: {os.strerror(errno).lower()}")
        self._begin(0)

    def _begin(self, errno: int) -> None:
        if errno:
            self._lost(f"the agent beside the target answered with: {os.strerror(errno)}")
        elif {"hello", "env"} <= self._begun.keys() and not self._reading:
            fds = [self._begun["env"], *self._root]
            self._feed.tell("begin", **self._begun["hello"])
            self._broker.event("begin", fds=fds, note=self._begun.get("note"), **self._begun["hello"])

    def _learn_names(self) -> None:
        """What the decisions about names depend on must be known before the program asks."""
        resolver = Resolver(self._loop, self._links, self._asked, lambda: self._begun.get("hello", {}).get("nameservers", []))
        if self._options.names:
            self._outgoing.here = Here(self._loop, self._options.names)
        self._reading = 2

        def settings(of: Settings) -> None:
            self._outgoing.search = of.search
            if self._outgoing.here:
                self._outgoing.here.told(of)
            read()

        def hosts(text: str) -> None:
            self._hosts = text
            read()

        def read() -> None:
            self._reading -= 1
            self._begin(0)

        resolver.settings(settings)
        resolver.file("/etc/hosts", hosts)

    # -- requests from trap --

    def _ready(self, args: Args, fds: list[int], reply: Reply) -> None:
        """Once for a program's listener; a container has one for each process that comes into it from outside."""
        self._listeners = [*filter(reaper.in_use, self._listeners), fds[0]]
        if self._guard:
            reply()
            return
        if len(fds) > 1:
            self._outgoing.moves(socket.socket(fileno=fds[1]), tuple(args["network"]), args["pid"])
        self._outgoing.tells_names = args["names"]
        if args["names"]:
            self._outgoing.learn_hosts(self._hosts)
        reply()
        with contextlib.suppress(ProcessLookupError):  # trap died just now: we shall hear of it
            self._guard = guard.start(self._trap, fds[0], self._options.session, self._options.folder)

    def _open(self, args: Args, _fds: list[int], reply: Reply) -> None:
        assert self._files is not None

        def done(result: Args, errno: int) -> None:
            fds = result.pop("fds", ())
            reply(errno, fds=fds, **result)
            info = result.get("stat")
            self._feed.tell("open", path=args["path"], errno=errno, size=info[7] if info else None)

        self._files.open(args["path"], args.get("flags", 0), done, args.get("mode", 0), writable=args.get("writable", False))

    def _path_call(self, op: str) -> Any:
        def handle(args: Args, _fds: list[int], reply: Reply) -> None:
            def done(result: Args, raw: bytes, errno: int) -> None:
                if op == "readlink":
                    result = {"target": os.fsdecode(raw)}
                reply(errno, **result)

            self._asked.call(op, {key: args[key] for key in ("path", "follow", "mode") if key in args}, done)

        return handle

    # -- the agent's side --

    def _noticed(self, name: str, args: Args) -> None:
        if self._incoming.noticed(name, args):
            return
        if name.startswith("replay."):
            self._broker.event("replay", how=name.partition(".")[2], what=args.get("what", ""))
            if name == "replay.done":
                self._loop.later(REPLAYED, lambda: self._broker.event("ended", text="all that was recorded is played"))
        elif name == "watched" and self._shadows:
            self._shadows.happened(args["events"])
        elif name == "warning":
            self._say(args["text"])
        elif name == "mirror.dropped":
            self._feed.tell("dropped", **args)
            self._incoming.dropped(args["port"])
        elif name == "pod.deleted":
            self._attachment.deleted = True
        elif name == "target.gone":
            self._attachment.target_gone(args.get("text") or "the target has ended")

    def _say(self, text: str) -> None:
        """To the user, and to who follows the feed."""
        self._broker.event("say", text=text)
        self._feed.tell("say", text=text)

    def _lost(self, text: str) -> None:
        self.lost = True
        self._feed.tell("lost", text=text)
        self._broker.event("lost", text=text)

    def _attached_again(self) -> None:
        """The place has given us another agent: what the program listens on is subscribed there."""
        self._asked.forget()
        self._attachment.hello(self._options.session, lambda *_: None)
        if isinstance(self._files, FuseFiles):
            self._files.agent_changed()
        if self._shadows:
            self._shadows.agent_changed()
        self._incoming.subscribe_all(self._links.control)

    def _trap_gone(self) -> None:
        self._loop.stop()


class Mounted(NamedTuple):
    """A FUSE mount that is nowhere but in these descriptors, or the reason why there is none."""

    fuse: int = -1
    root: int = -1
    opener: int = -1
    why: str = ""


def _mount(options: SessionOptions) -> Mounted:
    writable, executable = options.writable, options.executable
    try:
        if options.inside:
            return Mounted(*fusemount.mount_inside(options.inside, writable=writable, executable=executable))
        return Mounted(*fusemount.mount(writable=writable, executable=executable))
    except OSError as error:
        return Mounted(
            why=f"FUSE can't be used ({error.strerror or error}): remote files are copied whole when opened, and remote "
            "directories can't be listed; `sidestage doctor` names the cure"
        )


def _detach(keep: list[int], debug: bool) -> None:
    """No descriptor of the user's pipelines stays open here."""
    child.detach(debug)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for low, high in itertools.pairwise([2, *sorted(keep), min(hard, 1 << 16)]):
        os.closerange(low + 1, high)


def _tell(sock: socket.socket, name: str, **args: Any) -> None:
    with contextlib.suppress(OSError):
        sock.send(encode({"ev": name, **args}))
