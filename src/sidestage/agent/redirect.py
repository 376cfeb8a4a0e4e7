"""The redirect of a port by the best that the kernel has: an owned table, else rules with a warden.

Rules that nobody owns outlive a killed agent, and would refuse all clients. So a child process watches the agent, removes
them when it ends, and ends too. If both are killed, the next agent on this port removes what is left of nftables.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from functools import partial
from typing import Callable, List, Protocol, Tuple

from sidestage.agent import nft
from sidestage.agent.netlink import NETFILTER, Netlink
from sidestage.agent.target import MARK

WAYS = ("owner", "nft", "iptables")
COMMAND_TIMEOUT = 10.0  # seconds; iptables -w waits for others
_LACKING = (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
_GUARDED = "this kernel has no nftables tables with an owner (Linux 5.12): "


class Redirect(Protocol):
    def start(self, comment: str) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


def make(link: Netlink, port: int, listener: int, session: str, ways: Tuple[str, ...] = WAYS) -> "Tuple[Redirect, str]":
    """The redirect, and what the user should know of it; raises OSError. `link` is the redirect's from now on."""
    for way in ways:
        try:
            if way == "owner":
                return nft.Redirect(link, port, listener, session), ""
            if way == "nft":
                table = nft.Redirect(Netlink(NETFILTER), port, listener, session, owner=False)
                return Warded(table, partial(nft.delete, table.name)), _GUARDED + "a process of ours guards the rules"
            rules = Iptables(port, listener, session)
            return Warded(rules, rules.close), _GUARDED + "iptables is used, and a process of ours guards the rules"
        except OSError as error:
            if error.errno not in _LACKING or way == ways[-1]:
                raise
    raise OSError(errno.EOPNOTSUPP, "no way to redirect a port")


class Warded:
    """Rules that a child process removes when we end; `undo` does it, and may find them gone."""

    def __init__(self, rules: Redirect, undo: Callable[[], None]) -> None:
        self._rules = rules
        self.start, self.drain = rules.start, rules.drain
        watched, self._alive = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child:
            os.close(watched)
            return
        try:
            _leave_alone(watched)
            os.read(watched, 1)
            undo()
        finally:
            os._exit(0)

    def close(self) -> None:
        self._rules.close()
        os.close(self._alive)
        os.waitpid(self._child, 0)


def _leave_alone(keep: int) -> None:
    """A process of its own: no signal of a terminal or a group ends it, and it holds nobody's connection open."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, keep)
    os.closerange(keep + 1, 1 << 16)


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
        # The last rule about connections takes their tracking along, and NAT with it: this one stays.
        self._all(["-N", self._chain])
        self._all(["-A", self._chain, "-m", "conntrack", "--ctstate", "INVALID", "-j", "RETURN"])

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
