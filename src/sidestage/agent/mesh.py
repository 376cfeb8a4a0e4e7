"""Which service mesh stands in front of the target, told by the chains that it has put into the target's network.

The redirect works with them as it is (nft.py says why); this is for what the user is told.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Iterable

from sidestage.agent import nft

_CHAINS = (
    ("ISTIO_PRERT", "Istio ambient: ztunnel's plaintext hop is stolen, with the clients' own addresses"),
    ("ISTIO_OUTPUT", "an Istio sidecar: its plaintext hop is stolen, and clients are seen as 127.0.0.6"),
    ("KUMA_MESH_OUTBOUND", "a Kuma sidecar: its plaintext hop is stolen, and clients are seen as 127.0.0.6"),
    ("PROXY_INIT_OUTPUT", "a Linkerd sidecar: its plaintext hop is stolen, and clients are seen as the pod itself"),
)
_IPT_SO_GET_INFO, _IPT_SO_GET_ENTRIES = 64, 65  # linux/netfilter_ipv4/ip_tables.h
_INFO, _NAME = 84, 32  # sizes of struct ipt_getinfo and of a table's name


def detect() -> str:
    """A line for the user; empty where there is none."""
    try:
        names = set(nft.chains())
    except OSError:
        names = set()
    return named(names) or _legacy()


def named(names: Iterable[str]) -> str:
    return next((said for chain, said in _CHAINS if chain in names), "")


def _legacy() -> str:
    """The same from tables of iptables-legacy, which netlink doesn't show: user chains carry their names."""
    blob = b"".join(_entries(table) for table in (b"nat", b"mangle"))
    return named([chain for chain, _ in _CHAINS if chain.encode() + b"\0" in blob])


def _entries(table: bytes) -> bytes:
    try:
        with open("/proc/net/ip_tables_names", "rb") as names:
            if table not in names.read().split():  # asking for it would make it
                return b""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            info = _get(sock, _IPT_SO_GET_INFO, table.ljust(_INFO, b"\0"))
            (size,) = struct.unpack_from("=I", info, 80)
            return _get(sock, _IPT_SO_GET_ENTRIES, table.ljust(_NAME, b"\0") + struct.pack("=I4x", size) + bytes(size))
    except OSError:
        return b""


def _get(sock: socket.socket, option: int, value: bytes) -> bytes:
    """getsockopt(2) of an option that reads its buffer first, which Python's own doesn't pass."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer, length = ctypes.create_string_buffer(value, len(value)), ctypes.c_uint32(len(value))
    if libc.getsockopt(sock.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw
