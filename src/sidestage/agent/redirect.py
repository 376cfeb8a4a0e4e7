"""The redirect of a port by the best that the kernel has: an owned table, else rules with a warden.

Rules that nobody owns outlive a killed agent, and would refuse all clients. So a child process watches the agent, removes
them when it ends, and ends too. If both are killed at once, the next agent on this port removes what is left.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import shutil
import signal
import subprocess
from functools import partial
from typing import Callable, List, Protocol, Tuple

from sidestage.agent import listeners, nft
from sidestage.agent.netlink import NETFILTER, Netlink
from sidestage.agent.target import MARK
from sidestage.stream.loop import Loop

WAYS = ("owner", "nft", "iptables")
MAX_WARDENS = 20  # of one port; who kills more of them means it
COMMAND_TIMEOUT = 10.0  # seconds; iptables -w waits for others
_LACKING = (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
_GUARDED = "this kernel has no nftables tables with an owner (Linux 5.12): "


class Redirect(Protocol):
    def start(self, comment: str) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


def make(
    loop: Loop, link: Netlink, port: int, listener: int, session: str, ways: Tuple[str, ...] = WAYS
) -> "Tuple[Redirect, str]":
    """The redirect, and what the user should know of it; raises OSError. `link` is the redirect's from now on."""
    for way in ways:
        try:
            if way == "owner":
                return nft.Redirect(link, port, listener, session), ""
            if way == "nft":
                table = nft.Redirect(Netlink(NETFILTER), port, listener, session, owner=False)
                return Warded(loop, table, partial(nft.delete, table.name)), _GUARDED + "a process of ours guards the rules"
            rules = Iptables(port, listener, session)
            return Warded(loop, rules, rules.close), _GUARDED + "iptables is used, and a process of ours guards the rules"
        except OSError as error:
            if error.errno not in _LACKING or way == ways[-1]:
                raise
    raise OSError(errno.EOPNOTSUPP, "no way to redirect a port")


class Warded:
    """Rules that a child process removes when we end; `undo` does it, and may find them gone. One that is killed is replaced."""

    def __init__(self, loop: Loop, rules: Redirect, undo: Callable[[], None]) -> None:
        self._loop, self._rules, self._undo = loop, rules, undo
        self.start, self.drain = rules.start, rules.drain
        self._watch(0)

    def _watch(self, deaths: int) -> None:
        watched, self._alive = os.pipe2(os.O_CLOEXEC)
        self._its_end, its = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if not self._child:
            try:
                _leave_alone(watched, its)
                os.read(watched, 1)
                self._undo()
            finally:
                os._exit(0)
        os.close(watched)
        os.close(its)
        self._loop.watch(self._its_end, select.EPOLLIN, lambda _: self._died(deaths + 1))

    def _died(self, deaths: int) -> None:
        self._forget()
        if deaths < MAX_WARDENS:
            self._watch(deaths)
        else:
            self._alive = -1

    def _forget(self) -> None:
        self._loop.unwatch(self._its_end)
        for fd in (self._its_end, self._alive):
            os.close(fd)
        os.waitpid(self._child, 0)

    def close(self) -> None:
        self._rules.close()
        if self._alive >= 0:
            self._forget()


def _leave_alone(*keep: int) -> None:
    """A process of its own: no signal of a terminal or a group ends it, and it holds nobody's connection open."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    first, last = sorted(keep)
    os.closerange(3, first)
    os.closerange(first + 1, last)
    os.closerange(last + 1, 1 << 16)


class Iptables:
    """As nft.Redirect, by the commands: for nodes that have only the older tables."""

    def __init__(self, port: int, listener: int, session: str) -> None:
        found = [shutil.which(name, path=_PATH) for name in ("iptables", "iptables-legacy", "iptables-nft")]
        tools = [path for path in found if path and not _run([path, "-w", "-t", "nat", "-S", "PREROUTING"], check=False)]
        if not tools:
            raise OSError(errno.EOPNOTSUPP, "there is neither a usable nftables nor iptables")
        six = tools[0].replace("/iptables", "/ip6tables")
        self._tools = [tools[0], *([six] if os.path.exists("/proc/net/if_inet6") and os.path.exists(six) else [])]
        self._chain = f"SIDESTAGE-{port}-{session[:8]}"  # of at most 28 characters
        match = ["-p", "tcp", "--syn", "--dport", str(port), "-m", "mark", "!", "--mark", hex(MARK)]
        to = ["-m", "comment", "--comment", self._chain, "-j", "DNAT", "--to-destination", f":{listener}"]
        self._rules = [["PREROUTING", *match, "-m", "addrtype", "--dst-type", "LOCAL", *to], ["OUTPUT", "-o", "lo", *match, *to]]
        self._remove_old(f"SIDESTAGE-{port}-", listener)
        # The last rule about connections takes their tracking along, and NAT with it: this one stays.
        self._all(["-N", self._chain])
        self._all(["-A", self._chain, "-m", "conntrack", "--ctstate", "INVALID", "-j", "RETURN"])

    def _remove_old(self, chains: str, listener: int) -> None:
        """What was left when an agent and its warden were killed at once; an agent that sees its clients off still listens."""
        for tool in self._tools:
            table = [tool, "-w", "-t", "nat"]
            listed = subprocess.run([*table, "-S"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
            for rule in map(shlex.split, listed.stdout.splitlines()):
                chain = rule[rule.index("--comment") + 1] if "--comment" in rule else ""
                if not chain.startswith(chains):
                    continue
                to = int(rule[-1].rpartition(":")[2])
                if to == listener or not listeners.taken(to):
                    for args in (["-D", *rule[1:]], ["-F", chain], ["-X", chain]):
                        _run([*table, *args], check=False)

    def start(self, comment: str) -> None:
        for rule in self._rules:
            self._all(["-A", *rule])

    def drain(self) -> None:
        for rule in self._rules:
            self._all(["-D", *rule], check=False)

    def close(self) -> None:
        self.drain()
        self._all(["-F", self._chain], check=False)
        self._all(["-X", self._chain], check=False)

    def _all(self, args: List[str], check: bool = True) -> None:
        for tool in self._tools:
            _run([tool, "-w", "-t", "nat", *args], check)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _run(argv: List[str], check: bool) -> int:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{os.path.basename(argv[0])} doesn't end") from None
    if done.returncode and check:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise OSError(errno.EOPNOTSUPP, f"{os.path.basename(argv[0])}: {said}")
    return done.returncode
