"""Behind a service mesh the plaintext hop is stolen: with the rule sets of Istio, Linkerd, Kuma and Istio ambient as those put
them into a pod, and a stand-in for the proxy (sidecar.py). The meshes themselves don't run here.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testkit.session import laptop
from tests.testkit.target import Target

POD, OUTSIDE = "10.78.0.1", "10.78.0.2"
SIDECAR = Path(__file__).with_name("sidecar.py")
MINE = {"header": "^x-me: alice$"}


@dataclass(frozen=True)
class Mesh:
    rules: str  # of iptables-restore; and commands before it
    port: int  # of the proxy, for what comes from outside
    uid: int
    source: str  # from where it connects to the service
    seen: str  # the client that the program sees
    said: str
    mark: str = "0"
    setup: str = ""


def istio(prefix: str, inbound: str, uid: int) -> str:
    """Istio's istio-iptables and Kuma's, which is made after it."""
    out, redirect = f"{prefix}_{'OUTPUT' if prefix == 'ISTIO' else 'OUTBOUND'}", f"{inbound}_REDIRECT"
    return f"""*nat
:{inbound} - [0:0]
:{redirect} - [0:0]
:{out} - [0:0]
:{out}_REDIRECT - [0:0]
-A PREROUTING -p tcp -j {inbound}
-A OUTPUT -p tcp -j {out}
-A {inbound} -p tcp --dport 15008 -j RETURN
-A {inbound} -p tcp --dport 15090 -j RETURN
-A {inbound} -p tcp --dport 15021 -j RETURN
-A {inbound} -p tcp -j {redirect}
-A {redirect} -p tcp -j REDIRECT --to-ports 15006
-A {out} -s 127.0.0.6/32 -o lo -j RETURN
-A {out} ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --uid-owner {uid} -j {redirect}
-A {out} -o lo -m owner ! --uid-owner {uid} -j RETURN
-A {out} -m owner --uid-owner {uid} -j RETURN
-A {out} -d 127.0.0.1/32 -j RETURN
-A {out} -j {out}_REDIRECT
-A {out}_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""


LINKERD = """*nat
:PROXY_INIT_REDIRECT - [0:0]
:PROXY_INIT_OUTPUT - [0:0]
-A PREROUTING -j PROXY_INIT_REDIRECT
-A OUTPUT -j PROXY_INIT_OUTPUT
-A PROXY_INIT_REDIRECT -p tcp -m multiport --dports 4190,4191 -j RETURN
-A PROXY_INIT_REDIRECT -p tcp -j REDIRECT --to-ports 4143
-A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -j RETURN
-A PROXY_INIT_OUTPUT -o lo -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -j REDIRECT --to-ports 4140
COMMIT
"""
AMBIENT = """*mangle
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -s 169.254.7.127/32 -p tcp -j ACCEPT
-A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -d 169.254.7.127/32 -p tcp -j ACCEPT
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
"""
ROUTES = "ip rule add fwmark 0x111/0xfff pref 32764 lookup 100; ip route add local 0.0.0.0/0 dev lo table 100"
UNROUTES = "ip rule del pref 32764 2>/dev/null; ip route flush table 100 2>/dev/null"
MESHES = {
    "istio": Mesh(istio("ISTIO", "ISTIO_INBOUND", 1337), 15006, 1337, "127.0.0.6", "127.0.0.6", "Istio sidecar"),
    "kuma": Mesh(istio("KUMA_MESH", "KUMA_MESH_INBOUND", 5678), 15006, 5678, "127.0.0.6", "127.0.0.6", "Kuma sidecar"),
    "linkerd": Mesh(LINKERD, 4143, 2102, "-", POD, "Linkerd sidecar"),
    "ambient": Mesh(AMBIENT, 15006, 0, "client", OUTSIDE, "Istio ambient", "0x539", ROUTES),
}


@pytest.fixture
def outside(staging: Target) -> Iterator[Target]:
    """A place beyond the target's network, which reaches it over a link."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo up; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == b"up\n"
    there = Target(holder.pid, holder)
    link = f"ip link add pod0 type veth peer name out0 netns {holder.pid}; ip addr add {POD}/24 dev pod0; ip link set pod0 up"
    assert staging.native(["sh", "-euc", link]).code == 0
    enter = ["nsenter", "-t", str(holder.pid), "--net", "--", "sh", "-euc"]
    subprocess.run([*enter, f"ip link set lo up; ip addr add {OUTSIDE}/24 dev out0; ip link set out0 up"], check=True)
    try:
        yield there
    finally:
        staging.native(["ip", "link", "del", "pod0"])
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


@contextlib.contextmanager
def meshed(staging: Target, mesh: Mesh, command: str) -> Iterator[None]:
    script = f"{command} <<'E'\n{mesh.rules}E\n{mesh.setup}"
    done = staging.native(["sh", "-euc", script])
    assert done.code == 0, done.err
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--", sys.executable, str(SIDECAR)]
    proxy = subprocess.Popen([*enter, str(mesh.port), str(mesh.uid), mesh.source, mesh.mark], stdout=subprocess.PIPE)
    assert proxy.stdout is not None
    try:
        assert proxy.stdout.readline() == b"ready\n"
        yield
    finally:
        proxy.kill()
        proxy.wait()
        proxy.stdout.close()
        tool = command.split("-restore")[0]
        undo = "; ".join(f"{tool} -t {table} -F; {tool} -t {table} -X" for table in ("nat", "mangle"))
        staging.native(["sh", "-c", f"{undo}; {UNROUTES}"])


def ask(outside: Target, prefix: bytes, header: str = "") -> str:
    with outside.connect((POD, 8080)) as client:
        client.sendall(prefix + f"GET /m HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n".encode())
        data = b""
        while part := client.recv(65536):
            data += part
    return data.decode().rpartition("\r\n\r\n")[2]


@pytest.mark.parametrize("command", ["iptables-nft-restore", "iptables-legacy-restore"])
@pytest.mark.parametrize("name", MESHES)
def test_the_plaintext_hop_is_stolen(
    staging: Target, outside: Target, program: tuple[str, int], name: str, command: str
) -> None:
    mesh = MESHES[name]
    with meshed(staging, mesh, command):
        assert ask(outside, b"MESH") == "staging /m\n"
        with laptop(staging, program) as there:
            assert there.steal(8080)[0] == 0
            assert mesh.said in there.events.get(timeout=5)[1]["text"]
            assert ask(outside, b"MESH") == "local /m\n"
            assert there.taken[-1]["peer"][0] == mesh.seen
            with pytest.raises(ConnectionResetError):  # what isn't the mesh's is the proxy's to refuse, as before
                ask(outside, b"")
        with laptop(staging, program) as there:
            assert there.steal(8080, MINE)[0] == 0
            assert ask(outside, b"MESH", "X-Me: alice\r\n") == "local /m\n"
            assert ask(outside, b"MESH") == "staging /m\n"
        assert ask(outside, b"MESH") == "staging /m\n"


def test_without_a_mesh_clients_from_outside_are_stolen_too(staging: Target, outside: Target, program: tuple[str, int]) -> None:
    with laptop(staging, program) as there:
        assert there.steal(8080)[0] == 0
        assert ask(outside, b"") == "local /m\n"
        assert there.taken[-1]["peer"][0] == OUTSIDE and there.events.empty()
    assert ask(outside, b"") == "staging /m\n"
