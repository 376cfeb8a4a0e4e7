"""Datagrams and what is no TCP: the same plugged as inside the target, where it can be; said where it can't."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.testkit import build
from tests.testkit.target import ROOT, Target, run, same

DATAGRAMS = """
import errno, socket
def tried(what, *args):
    try: return what(*args)
    except OSError as error: return errno.errorcode[error.errno]
def made(family, only=0):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(10)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF): s.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    return s
places = [(socket.AF_INET, "10.77.0.20", 0), (socket.AF_INET6, "fd77::20", 0), (socket.AF_INET6, "fd77::20", 1),
          (socket.AF_INET6, "::ffff:10.77.0.20", 0)]
for family, host, only in places:
    for size in (0, 1, 1472, 9000, 65502, 65536):
        data = bytes(n % 251 for n in range(size))
        one = made(family, only); print(host, only, size, tried(one.connect, (host, 7000)), tried(one.send, data), end=" ")
        if size < 65507: got = one.recv(1 << 17); print(len(got), got == b"echo " + data, one.getpeername()[:2], end=" ")
        other = made(family, only); print(tried(other.sendto, data, (host, 7000)), end=" ")
        if size < 65507: got, source = other.recvfrom(1 << 17); print(len(got), got == b"echo " + data, source[:2], end=" ")
        print()
for n in (65507, 65508, 70000):
    print(n, tried(made(socket.AF_INET).sendto, bytes(n), ("10.77.0.20", 7000)), end=" ")
    print(tried(made(socket.AF_INET).sendmsg, [bytes(9), bytes(n - 9)], [], 0, ("10.77.0.20", 7000)))
bound = made(socket.AF_INET); bound.bind(("", 45454)); bound.connect(("10.77.0.20", 7000)); bound.send(b"x")
print(bound.recv(99), bound.getsockname()[1], bound.getpeername())
"""
TCP_BOUND = """
import socket
s = socket.socket(); s.bind(("", 45455)); s.settimeout(10); s.connect(("10.77.0.20", 7000)); s.sendall(b"x")
print(s.recv(9), s.getsockname()[1], s.getpeername())
t = socket.socket(socket.AF_INET6); t.settimeout(10); t.bind(("::", 45456)); t.connect(("::ffff:10.77.0.20", 7000)); t.sendall(b"y")
print(t.recv(9), t.getsockname()[1], t.getpeername()[:2])
u = socket.socket(); u.bind(("", 45457)); u.connect(("10.77.0.20", 7000)); u.sendall(b"z")
print(u.recv(9), u.getsockname()[1])
"""


def test_every_size_and_family(staging: Target) -> None:
    same(staging, [sys.executable, "-c", DATAGRAMS])


def test_bound_ports_and_mapped_addresses(staging: Target) -> None:
    same(staging, [sys.executable, "-c", TCP_BOUND])


REFUSED = """
import asyncio, errno, select, socket, sys, threading
def tried(what, *args):
    try: return what(*args)
    except OSError as error: return errno.errorcode.get(error.errno, type(error).__name__)
def made(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(15); return s
for family, host in (socket.AF_INET, "10.77.0.20"), (socket.AF_INET6, "fd77::20"), (socket.AF_INET6, "::ffff:10.77.0.20"):
    for port in 9, 53:
        s = made(family); s.connect((host, port)); poll = select.poll(); poll.register(s, select.POLLIN)
        print(host, port, s.send(b"query"), poll.poll(15000)[0][1] & select.POLLERR, tried(s.recv, 99), end=" ")
        print(s.send(b"again"), tried(s.recv, 99), s.send(b"more"), poll.poll(15000)[0][1] & select.POLLERR, end=" ")
        print(tried(s.send, b"x"), end=" ")
        print(s.send(b"y"), tried(s.recvfrom, 99), s.getpeername()[:2])
s = made(); s.connect(("10.77.0.20", 9)); s.connect(("10.77.0.20", 7000)); s.send(b"elsewhere"); print(s.recv(99))
s = made(); s.bind(("", 45460)); s.connect(("10.77.0.20", 9)); s.send(b"bound"); print(tried(s.recv, 99), s.getsockname()[1])
s = made(); s.settimeout(1); s.sendto(b"unconnected", ("10.77.0.20", 9)); print(tried(s.recvfrom, 99))
s.settimeout(15); print(s.sendto(b"x", ("10.77.0.20", 7000)), s.recvfrom(9))
def waits():
    s = made(); s.connect(("10.77.0.20", 9)); s.send(b"x"); print(tried(s.recv, 99))
thread = threading.Thread(target=waits); thread.start(); thread.join()
class Protocol(asyncio.DatagramProtocol):
    def error_received(self, error): print("asyncio", error); done.set()
async def asked():
    global done
    done = asyncio.Event()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, remote_addr=("10.77.0.20", 9))
    transport.sendto(b"x"); await asyncio.wait_for(done.wait(), 15); transport.close()
asyncio.run(asked())
"""
REFUSED_NODE = """
const resolver = new (require("dns").Resolver)({ timeout: 20000, tries: 1 });
resolver.setServers(["10.77.0.20"]);
resolver.resolve4("db.staging.internal", error => console.log(error.code));
"""


def test_a_port_where_nobody_listens(staging: Target) -> None:
    """ICMP in the target is an error of the program's socket, at the very call at which it is there."""
    same(staging, [sys.executable, "-c", REFUSED])


def test_dig_at_a_port_where_nobody_listens(staging: Target) -> None:
    argv = [build.need("dig"), "+time=20", "+tries=1", "@10.77.0.20", "db.staging.internal"]
    native, plugged = staging.native(argv), staging.plugged(argv, 18)
    said = "connection refused"
    assert said in native.out
    assert (plugged.code, said in plugged.out) == (native.code, True), plugged.out


def test_c_ares_at_a_port_where_nobody_listens(staging: Target) -> None:
    same(staging, [build.need("node"), "-e", REFUSED_NODE], timeout=18)


PING = """
import socket
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
    s = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP); s.settimeout(5)
    s.sendto(bytes([8, 0, 247, 253, 0, 1, 0, 1]), ("127.0.0.1", 9)); print(s.recv(99)[-8:] != b"")
    for _ in range(2):
        try: s.sendto(bytes([8, 0, 247, 253, 0, 1, 0, 1]), ("10.77.0.20", 9))
        except OSError: pass
"""


def test_icmp_is_not_carried_and_that_is_said_once(staging: Target) -> None:
    allow = 'ip link set lo up; echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range; exec "$@"'
    command = ["unshare", "--net", "sh", "-euc", allow, "sh", *staging.command([sys.executable, "-c", PING])]
    result = run(command, 30, {**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert result.out == "True\nTrue\n", result.err
    assert result.err.count("ICMP and raw packets leave from this machine") == 1
    assert "ICMP" not in staging.plugged([sys.executable, "-c", DATAGRAMS]).err


SERVER = """
import socket
stream, packets = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
stream.bind("\\0sidestage-test-stream"); packets.bind("\\0sidestage-test-packets")
for server in (stream, packets): server.listen(9)
print("ready", flush=True)
while True:
    for server in (packets, stream):
        end, _ = server.accept()
        while data := end.recv(1 << 18): end.sendall(data)
        end.close()
"""
UNIX = """
import socket
p = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); p.settimeout(10); p.connect("\\0sidestage-test-packets")
for size in (1, 65536, 3): p.send(bytes(size))
print([len(p.recv(1 << 18)) for _ in range(3)]); p.close()
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect("\\0sidestage-test-stream")
s.sendall(b"abc"); s.shutdown(socket.SHUT_WR)
print(s.recv(9), s.recv(9))
try: socket.socket(socket.AF_UNIX).connect("\\0sidestage-test-none")
except OSError as error: print(error.errno)
"""
TOO_LONG = """
import socket
p = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); p.settimeout(10); p.connect("\\0sidestage-test-packets")
try: p.send(bytes(70000)); print(len(p.recv(1 << 18)))
except OSError as error: print(error.errno)
"""


def test_unix_sockets_of_both_kinds(staging: Target, tmp_path: Path) -> None:
    """Abstract names belong to a network namespace (unix(7)): this one is the target's."""
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--"]
    server = subprocess.Popen([*enter, sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        config = tmp_path / "sidestage.json"
        config.write_text('{"feature": {"network": {"outgoing": {"unix_streams": ["^@sidestage-test-"]}}}}')
        native = staging.native([sys.executable, "-c", UNIX])
        plugged = staging.plugged([sys.executable, "-c", UNIX], flags=["-f", str(config)])
        assert native.out == "[1, 65536, 3]\nb'abc' b''\n111\n"
        assert plugged.out == native.out, plugged.err
        long = staging.plugged([sys.executable, "-c", TOO_LONG], flags=["-f", str(config)])
        assert long.out in ("0\n", "104\n", "32\n"), long
    finally:
        server.kill()
        server.communicate()
