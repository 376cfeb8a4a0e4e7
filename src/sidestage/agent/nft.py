"""One redirected port as an nftables table of its own, over netlink: no command is needed beside the target.

The table has the owner flag where the kernel knows it (Linux 5.12): it vanishes with the socket that made it, so kill -9
leaves no rule. Only SYNs match, so connections that are there already go on. The port alone is rewritten, never the
address: no source becomes a martian, and what the client asked for is still seen. Both hooks run after those of service
meshes (-100), which take what is theirs first and give the plaintext hop behind their proxy to us. The agent's own
connections to the target carry MARK.
"""

from __future__ import annotations

import socket
import struct
from typing import List

from sidestage.agent import netlink
from sidestage.agent.netlink import Netlink, attr, nest, text, u32
from sidestage.agent.target import MARK

PREFIX = "sidestage-"
PRIORITY = -90  # behind dstnat (-100), where meshes and kube-proxy are
_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE, _DELRULE = 0, 1, 2, 3, 4, 6, 8
_OWNER = 2  # NFT_TABLE_F_OWNER
_PREROUTING, _LOCAL_OUT = 0, 3
_INET = 1  # NFPROTO_INET
_L4PROTO, _OIF, _MARK = 16, 5, 3  # enum nft_meta_keys
_EQ, _NEQ = 0, 1
_CHAINS = (("arriving", _PREROUTING), ("within", _LOCAL_OUT))


class Redirect:
    """From start() new connections to `port` go to `listener`, until drain(); those redirected by then go on until close()."""

    def __init__(self, link: Netlink, port: int, listener: int, session: str, *, owner: bool = True) -> None:
        """`link` is ours from now on. Raises OSError: EPERM without CAP_NET_ADMIN; EINVAL, EOPNOTSUPP or ENOENT where the
        kernel lacks a part of nftables.
        """
        self.name = f"{PREFIX}{port}-{session[:8]}-{listener}"
        self._link, self._port, self._listener, self._owned = link, port, listener, owner
        try:
            for stale in stale_tables(port):
                delete(stale)
            _batch(
                self._link,
                _message(_NEWTABLE, text(1, self.name) + u32(2, _OWNER if owner else 0), netlink.CREATE),
                *(_message(_NEWCHAIN, _chain(self.name, *chain), netlink.CREATE) for chain in _CHAINS),
                # The last rule about connections takes their tracking along, and NAT with it: this one, which nothing
                # reaches, stays until close().
                _message(_NEWCHAIN, text(1, self.name) + text(3, "tracked"), netlink.CREATE),
                _message(_NEWRULE, text(1, self.name) + text(2, "tracked") + nest(4, *_tracking()), netlink.CREATE),
            )
            self.start("being set up")  # so that what the kernel lacks shows now
            self.drain()
        except OSError:
            self.close()
            raise

    def start(self, comment: str) -> None:
        arriving, within = [*_syn(self._port), *_local_address()], [*_meta(_OIF, _lo()), *_syn(self._port)]
        _batch(
            self._link,
            _message(_NEWRULE, _rule(self.name, "arriving", arriving, self._listener, comment), netlink.CREATE),
            _message(_NEWRULE, _rule(self.name, "within", within, self._listener, comment), netlink.CREATE),
        )

    def drain(self) -> None:
        """New connections go to the target again. The chains stay: without them NAT of the others would end."""
        _batch(self._link, *(_message(_DELRULE, text(1, self.name) + text(2, chain)) for chain, _ in _CHAINS))

    def close(self) -> None:
        self._link.close()
        if not self._owned:
            delete(self.name)


def delete(name: str) -> None:
    """A table that nobody owns."""
    link = Netlink(netlink.NETFILTER)
    try:
        _batch(link, _message(_DELTABLE, text(1, name)))
    except FileNotFoundError:
        pass
    finally:
        link.close()


def stale_tables(port: int) -> List[str]:
    """Tables for `port` that a killed guard left. The caller holds the port's name, so nobody uses them."""
    return [name for name, flags in _tables() if name.startswith(f"{PREFIX}{port}-") and not flags & _OWNER]


def chains() -> List[str]:
    """Names of all chains in this network namespace, those of iptables-nft among them."""
    link = Netlink(netlink.NETFILTER)
    try:
        found = link.dump(netlink.message(_NFNL_SUBSYS_NFTABLES << 8 | _GETCHAIN, netlink.DUMP, bytes(4), 1))
    finally:
        link.close()
    return [value.rstrip(b"\0").decode() for body in found for kind, value in netlink.attributes(body[4:]) if kind == 3]


def _tables() -> "List[tuple[str, int]]":
    link = Netlink(netlink.NETFILTER)
    try:
        found = link.dump(netlink.message(_NFNL_SUBSYS_NFTABLES << 8 | _GETTABLE, netlink.DUMP, bytes((_INET, 0, 0, 0)), 1))
    finally:
        link.close()
    attributes = [dict(netlink.attributes(body[4:])) for body in found]
    return [(a[1].rstrip(b"\0").decode(), struct.unpack("!I", a.get(2, bytes(4)))[0]) for a in attributes]


def _message(kind: int, body: bytes, flags: int = 0) -> "tuple[int, int, bytes]":
    return _NFNL_SUBSYS_NFTABLES << 8 | kind, flags, bytes((_INET, 0, 0, 0)) + body


def _batch(link: Netlink, *messages: "tuple[int, int, bytes]") -> None:
    """All or nothing."""
    subsystem = struct.pack("!BBH", 0, 0, _NFNL_SUBSYS_NFTABLES)
    last = len(messages)
    parts = [netlink.message(_BATCH_BEGIN, 0, subsystem, 0)]
    for at, (kind, flags, body) in enumerate(messages, 1):
        parts.append(netlink.message(kind, flags | (netlink.ACK if at == last else 0), body, at))
    link.commit(b"".join([*parts, netlink.message(_BATCH_END, 0, subsystem, last + 1)]), last)


def _chain(table: str, name: str, hook: int) -> bytes:
    return text(1, table) + text(3, name) + nest(4, u32(1, hook), u32(2, PRIORITY)) + text(7, "nat")


def _rule(table: str, chain: str, match: List[bytes], listener: int, comment: str) -> bytes:
    foreign = _meta(_MARK, struct.pack("=I", MARK), _NEQ)
    target = [_expr("immediate", u32(1, 1), nest(2, attr(1, struct.pack("!H", listener)))),
              _expr("nat", u32(1, 1), u32(2, _INET), u32(5, 1))]  # fmt: skip
    note = comment.encode()[:250] + b"\0"
    return text(1, table) + text(2, chain) + nest(4, *match, *foreign, *target) + attr(7, bytes((0, len(note))) + note)


def _expr(name: str, *data: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *data))


def _cmp(value: bytes, how: int = _EQ) -> bytes:
    return _expr("cmp", u32(1, 1), u32(2, how), nest(3, attr(1, value)))


def _meta(key: int, value: bytes, how: int = _EQ) -> List[bytes]:
    return [_expr("meta", u32(2, key), u32(1, 1)), _cmp(value, how)]


def _payload(offset: int, size: int) -> bytes:
    return _expr("payload", u32(1, 1), u32(2, 2), u32(3, offset), u32(4, size))  # of the transport header


def _syn(port: int) -> List[bytes]:
    """tcp flags & (syn | ack) == syn, tcp dport `port`"""
    masked = _expr("bitwise", u32(1, 1), u32(2, 1), u32(3, 1), nest(4, attr(1, b"\x12")), nest(5, attr(1, b"\0")))
    tcp = _meta(_L4PROTO, bytes((socket.IPPROTO_TCP,)))
    return [*tcp, _payload(13, 1), masked, _cmp(b"\x02"), _payload(2, 2), _cmp(struct.pack("!H", port))]


def _local_address() -> List[bytes]:
    """fib daddr type local: what this network only forwards isn't the target's."""
    return [_expr("fib", u32(3, 2), u32(2, 3), u32(1, 1)), _cmp(struct.pack("=I", 2))]


def _tracking() -> List[bytes]:
    """ct state"""
    return [_expr("ct", u32(1, 1), u32(2, 0))]


def _lo() -> bytes:
    return struct.pack("=I", socket.if_nametoindex("lo"))
