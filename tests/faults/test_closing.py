"""How connections end and fail to begin: half-close, RST and errno in both directions, as a native run in the target sees them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.testkit.laptop import Laptop
from tests.testkit.target import Target

PEER = """
import errno, socket, struct, threading, time
listener = socket.create_server(("10.77.0.20", 7100), backlog=64); ends = {}
def rst(c): c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()
def drain(c):
    total = 0
    try:
        while part := c.recv(65536): total += len(part)
        return f"eof after {total}"
    except OSError as error: return errno.errorcode[error.errno]
def serve(c):
    line = b""
    while not line.endswith(b"\\n"):
        part = c.recv(1)
        if not part: return
        line += part
    order, name = line.decode().split()
    if order == "drain": ends[name] = drain(c); c.close()                 # what the client's end looks like here
    elif order == "count": n = drain(c); c.sendall(n.encode()); c.close() # answers after the client's half-close
    elif order == "finfirst": c.sendall(b"bye"); c.shutdown(socket.SHUT_WR); ends[name] = drain(c); c.close()
    elif order == "rst": rst(c)
    elif order == "cutoff": c.sendall(b"x" * 100000); drain_one = c.recv(1); rst(c)  # RST in the middle of an answer
    elif order == "close": c.close()
    elif order == "how":
        for _ in range(200):
            if name not in ends: time.sleep(0.02)
        c.sendall(ends.get(name, "no end").encode()); c.close()
print("ready", flush=True)
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
CLIENT = """
import errno, select, socket, struct, sys, time
tag, kind = sys.argv[1:]
def connect(order, name="-"):
    s = socket.socket()
    if kind == "blocking": s.connect(("10.77.0.20", 7100))
    else: s.settimeout(20); s.connect(("10.77.0.20", 7100))
    s.sendall(f"{order} {tag}{name}\\n".encode()); return s
def rest(s):
    total = b""
    try:
        while part := s.recv(65536): total += part
        return f"{len(total)} then eof"
    except OSError as error: return f"{errno.errorcode[error.errno]}"
def how(name): return rest_text(connect("how", name))
def rest_text(s):
    total = b""
    while part := s.recv(65536): total += part
    return total.decode()
def rst(s): s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()

s = connect("drain", "a"); s.sendall(b"x" * 300000); s.close(); print("close", how("a"))
s = connect("drain", "b"); s.sendall(b"x" * 300000); s.shutdown(socket.SHUT_WR); print("half-close", rest(s), how("b"))
s = connect("drain", "c"); time.sleep(0.3); rst(s); print("reset", how("c"))
s = connect("count"); s.sendall(b"x" * 123456); s.shutdown(socket.SHUT_WR); print("answer after half-close", rest_text(s))
s = connect("finfirst", "d"); print("peer first", rest(s)); s.sendall(b"x" * 70000); s.close(); print("... then", how("d"))
s = connect("rst"); print("peer resets", rest(s))
s = connect("close"); print("peer closes", rest(s))
s = connect("cutoff"); time.sleep(0.3); got = s.recv(1000); s.sendall(b"!")
end = ""
try:
    while not end: end = "" if s.recv(65536) else "eof"
except OSError as error: end = errno.errorcode[error.errno]
print("a cut answer", len(got), end)
s = connect("close"); time.sleep(0.3)
try:
    for _ in range(5): s.sendall(b"x"); time.sleep(0.2)
    print("writing on goes well")
except OSError as error: print("writing on", errno.errorcode[error.errno])
s = connect("rst"); p = select.poll(); p.register(s, select.POLLIN | select.POLLOUT); time.sleep(0.5)
print("poll after reset", sorted(n for n in ("POLLIN", "POLLHUP", "POLLERR") for _, e in p.poll(1000) if e & getattr(select, n)))
print("SO_ERROR", errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
"""
ROUTES = """
ip route add unreachable 10.98.0.0/16
ip route add prohibit 10.97.0.0/16
ip route add blackhole 10.96.0.0/16
ip -6 route add unreachable fd98::/16
echo 1 >/proc/sys/net/ipv4/tcp_syn_retries
ip addr add 10.77.0.66/32 dev lo
nft add table inet deaf; nft add chain inet deaf in '{ type filter hook input priority 0; }'
nft add rule inet deaf in ip daddr 10.77.0.66 drop
"""
ERRORS = """
import asyncio, errno, socket, sys
PLACES = [("10.77.0.20", 7999), ("10.98.0.1", 80), ("10.97.0.1", 80), ("10.96.0.1", 80), ("10.99.0.1", 80), ("fd98::1", 80),
          ("fd99::1", 80), ("fd77::20", 7999), ("224.0.0.1", 80), ("255.255.255.255", 80), ("10.77.0.66", 80)]
def name(error): return errno.errorcode.get(error.errno, repr(error))
def blocking(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        try: s.connect((host, port)); return "connected"
        except OSError as error: first = name(error)
        return first
def waiting(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.settimeout(20)
        try: s.connect((host, port)); return "connected"
        except OSError as error: return name(error)
async def looped(host, port):
    try: await asyncio.open_connection(host, port); return "connected"
    except OSError as error: return name(error)
async def all_looped():
    return await asyncio.gather(*(looped(*place) for place in PLACES))
for place in PLACES: print(*place, blocking(*place), waiting(*place) if place[0] != "10.77.0.66" else "seconds later")
print(*asyncio.run(all_looped()))
with socket.socket() as s:
    s.settimeout(0.4)
    try: s.connect(("10.77.0.66", 80))
    except TimeoutError as error: print("own time limit", error)
"""


@pytest.fixture(scope="module")
def peer(staging: Target) -> Iterator[None]:
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--"]
    process = subprocess.Popen([*enter, sys.executable, "-c", PEER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("kind", ["blocking", "waiting"])
def test_ends(here: Laptop, staging: Target, kind: str) -> None:
    native = staging.native([sys.executable, "-c", CLIENT, f"n-{kind}-", kind])
    assert native.code == 0, native.err
    run = here.start(staging, [sys.executable, "-c", CLIENT, f"p-{kind}-", kind])
    assert run.end(30) == 0, run.stderr()
    assert run.stdout() == native.out


def test_errors(here: Laptop, staging: Target) -> None:
    made = staging.native(["sh", "-euc", ROUTES])
    assert made.code == 0, made.err
    native = staging.native([sys.executable, "-c", ERRORS], 60)
    assert native.code == 0, native.err
    run = here.start(staging, [sys.executable, "-c", ERRORS])
    assert run.end(50) == 0, run.stderr()
    assert run.stdout() == native.out
