"""Which nameserver is asked for which name, by programs of every kind: the target's, or that of a laptop with its own network."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testkit.build import need
from tests.testkit.nscd import nscd
from tests.testkit.target import ROOT, SIDESTAGE, Result, Target, run, target

MANY = 60  # addresses: more than a datagram takes, even with EDNS
THERE_AT, HERE_AT = "10.77.0.50", "10.88.0.2"
SERVER = Path(__file__).parents[1] / "testkit" / "nameserver.py"


def zone(site: str, own: str, decoy: str, first: str, other: str) -> dict[str, list[list[str]]]:
    """Both sides know all names; only one answers each of them rightly."""
    return {
        f"db.{own}": [["A", first], ["AAAA", f"fd{site}::20"]],
        f"many.{own}": [["A", f"10.{site}.1.{n}"] for n in range(MANY)] + [["AAAA", f"fd{site}::{n + 1:x}"] for n in range(MANY)],
        f"_echo._tcp.{own}": [["SRV", f"1 2 7000 db.{own}"]],
        f"alias.{own}": [["CNAME", f"db.{own}"]],
        f"db.{decoy}": [["A", other]], f"many.{decoy}": [["A", other]], f"_echo._tcp.{decoy}": [["SRV", "9 9 9 decoy.invalid"]],
        f"printer.{decoy}": [["A", other]], "bare": [["A", first]],
    }  # fmt: skip


THERE = zone("77", "shop.internal", "corp.lan", "10.77.0.20", "10.77.9.9")
HERE = zone("88", "corp.lan", "shop.internal", "10.88.0.20", "10.88.9.9")
LAPTOP = f"""\
mount --make-rprivate /
ip link set lo up
ip addr add {HERE_AT}/32 dev lo
mount --bind "$FOLDER/resolv.conf" /etc/resolv.conf
mount --bind "$FOLDER/hosts" /etc/hosts
mkdir -p "$FOLDER/run/nscd" "$FOLDER/run/systemd/resolve"
mount --bind "$FOLDER/run" /run
exec "$PYTHON" "{SERVER}" {HERE_AT} "$FOLDER/zone.json" "$FOLDER/log"
"""


@dataclass(frozen=True, slots=True)
class Place:
    staging: Target
    laptop: int
    there: Path  # the names that the target's nameserver was asked for
    here: Path
    folder: Path

    def native(self, argv: Sequence[str]) -> Result:
        return run(["nsenter", "-t", str(self.laptop), "--net", "--mount", "--", *argv], 60, os.environ)

    def plugged(self, argv: Sequence[str], network: dict[str, object], timeout: float = 60) -> Result:
        self.there.write_text("")
        self.here.write_text("")
        config = self.folder / "sidestage.json"
        config.write_text(json.dumps({"feature": {"network": network}}))
        command = [*SIDESTAGE, "exec", "-f", str(config), "-t", f"process/{self.staging.pid}", "--", *argv]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        return run(["nsenter", "-t", str(self.laptop), "--net", "--mount", "--", *command], timeout, env)


@contextlib.contextmanager
def serving(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **env})
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    there, here = tmp_path_factory.mktemp("there"), tmp_path_factory.mktemp("here")
    (there / "zone.json").write_text(json.dumps(THERE))
    (here / "zone.json").write_text(json.dumps(HERE))
    (here / "resolv.conf").write_text(f"nameserver {HERE_AT}\nsearch corp.lan\n")
    (here / "hosts").write_text("127.0.0.1 localhost\n10.88.0.7 printer.corp.lan\n")
    with target(there) as staging:
        options = "options ndots:5 timeout:5 attempts:2"
        (there / "resolv.conf").write_text(f"nameserver {THERE_AT}\nsearch shop.internal internal\n{options}\n")
        (there / "hosts").write_text("127.0.0.1 localhost\n10.77.0.10 orders-7f9c\n10.77.0.20 pinned.corp.lan\n")
        enter = ["nsenter", "-t", str(staging.pid), "--net", "--", sys.executable, str(SERVER)]
        env = {"FOLDER": str(here), "PYTHON": sys.executable}
        with (
            serving([*enter, THERE_AT, str(there / "zone.json"), str(there / "log")], {}),
            serving(["unshare", "--net", "--mount", "sh", "-euc", LAPTOP], env) as laptop,
        ):
            yield Place(staging, laptop.pid, there / "log", here / "log", here)


SIDES: list[dict[str, object]] = [
    {"dns": {"filter": {"local": ["*.corp.lan"]}}},
    {"dns": {"filter": {"remote": ["DB", "*.internal"]}}},
    {"outgoing": {"filter": {"local": ["*.CORP.lan:7000"]}}},
]
WANTED = "10.77.0.20 10.88.0.20"
PYTHON = """
import socket, sys
print(*sorted({a[4][0] for n in ("db", "db.corp.lan") for a in socket.getaddrinfo(n, 80, socket.AF_INET)}))
"""
NODE = """
const dns = require("dns");
(async () => {
  const both = async f => [...await f("db.shop.internal"), ...await f("db.corp.lan")].sort().join(" ");
  const looked = await both(async n => (await dns.promises.lookup(n, {all: true, family: 4})).map(a => a.address));
  const asked = await both(n => dns.promises.resolve4(n));
  if (looked !== asked) throw new Error(looked + " " + asked);
  console.log(asked);
})();
"""
GO = """
package main
import ("context"; "fmt"; "net"; "os")
func main() {
	for n, name := range []string{"db", "db.corp.lan"} {
		found, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", name)
		if err != nil { fmt.Println(err); os.Exit(1) }
		if n > 0 { fmt.Print(" ") }
		fmt.Print(found[0])
	}
	fmt.Println()
}
"""
JAVA = """
class Ask { public static void main(String[] args) throws Exception {
  System.out.println(java.net.InetAddress.getByName("db").getHostAddress() + " "
    + java.net.InetAddress.getByName("db.corp.lan").getHostAddress());
} }
"""
NETTY = """
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.*;
import io.netty.resolver.ResolvedAddressTypes;
import io.netty.resolver.dns.*;
class AskNetty { public static void main(String[] args) throws Exception {
  NioEventLoopGroup group = new NioEventLoopGroup(1);
  DnsNameResolver resolver = new DnsNameResolverBuilder(group.next()).channelType(NioDatagramChannel.class)
    .socketChannelType(NioSocketChannel.class).resolvedAddressTypes(ResolvedAddressTypes.IPV4_ONLY).build();
  try {
    System.out.println(resolver.resolve("db").sync().getNow().getHostAddress() + " "
      + resolver.resolve("db.corp.lan").sync().getNow().getHostAddress());
  } finally { System.exit(0); }
} }
"""
NETTY_JARS = ":".join(f"/usr/share/java/{name}.jar" for name in (
    "netty-common", "netty-buffer", "netty-transport", "netty-resolver", "netty-resolver-dns", "netty-codec", "netty-codec-dns",
    "netty-handler", "jctools-core"))  # fmt: skip
C = """
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(void) {
    char *names[] = {"db", "db.corp.lan"};
    for (int n = 0; n < 2; n++) {
        struct hostent *h = gethostbyname(names[n]);
        printf("%s%s", n ? " " : "", h ? inet_ntoa(*(struct in_addr *)h->h_addr_list[0]) : "none");
    }
    puts("");
}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("programs")
    for name, text in {"ask.go": GO, "Ask.java": JAVA, "AskNetty.java": NETTY, "ask.c": C}.items():
        (folder / name).write_text(text)
    env = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"}
    subprocess.run([need("go"), "build", "-o", "ask-go", "ask.go"], cwd=folder, env=env, check=True, timeout=300)
    subprocess.run([need("musl-gcc"), "-static", "-o", "ask-musl", "ask.c"], cwd=folder, check=True)
    if not os.path.exists("/usr/share/java/netty-resolver-dns.jar"):
        pytest.skip("no Netty: apt-get install libnetty-java")
    subprocess.run([need("javac"), "-cp", NETTY_JARS, "Ask.java", "AskNetty.java"], cwd=folder, check=True, timeout=120)
    return {
        "glibc": [sys.executable, "-c", PYTHON], "node": [need("node"), "-e", NODE], "go": [str(folder / "ask-go")],
        "java": [need("java"), "-Xint", "-cp", str(folder), "Ask"],
        "netty": [need("java"), "-cp", f"{folder}:{NETTY_JARS}", "AskNetty"], "musl": [str(folder / "ask-musl")],
    }  # fmt: skip


@pytest.mark.timeout(400)  # the first run compiles
@pytest.mark.parametrize("runtime", ["glibc", "node", "go", "java", "netty", "musl"])
@pytest.mark.parametrize("side", SIDES, ids=["local", "remote", "outgoing"])
def test_every_resolver(place: Place, programs: dict[str, list[str]], runtime: str, side: dict[str, object]) -> None:
    result = place.plugged(programs[runtime], side)
    assert result.out == WANTED + "\n", result.err
    asked = set(place.there.read_text().split()), set(place.here.read_text().split())
    assert "db.shop.internal" in asked[0] and "db.shop.internal" not in asked[1]
    assert "db.corp.lan" in asked[1] and "db.corp.lan" not in asked[0]


@pytest.mark.parametrize("options", [[], ["+tcp"], ["+noedns"], ["+bufsize=512"]], ids=["udp", "tcp", "noedns", "small"])
def test_every_kind_of_question(place: Place, options: list[str]) -> None:
    """Among them answers too long for a datagram, for which dig comes again by TCP; one connection at a time, to both sides."""
    asked, wanted = [], []
    for zone, site in ((THERE, "shop.internal"), (HERE, "corp.lan")):
        for kind, name in (("A", "db"), ("AAAA", "db"), ("A", "many"), ("AAAA", "many"), ("SRV", "_echo._tcp"), ("A", "alias")):
            asked += [f"{name}.{site}", kind]
            found = zone[f"{name}.{site}"] + (zone[f"db.{site}"] if name == "alias" else [])
            wanted += [text for of, text in found if of in (kind, "CNAME")]
    assert len(wanted) == 2 * (2 * MANY + 5)
    result = place.plugged([need("dig"), "+short", *options, *asked], SIDES[0])
    assert sorted(line.rstrip(".") for line in result.out.splitlines()) == sorted(wanted), result.err


def test_names_that_are_nowhere_and_search_domains(place: Place) -> None:
    """`bare` is found by its search: first what the target's domains make of it, all asked here, as the filter says its name."""
    result = place.plugged(["getent", "ahostsv4", "bare"], {"dns": {"filter": {"local": ["bare"]}}})
    assert result.out.split()[0] == "10.88.0.20", result.err
    assert place.here.read_text().split()[0] == "bare.shop.internal" and not place.there.read_text()
    assert place.plugged(["getent", "hosts", "no.corp.lan"], SIDES[0]).code == 2
    assert place.plugged(["getent", "hosts", "no.shop.internal"], SIDES[0]).code == 2


def test_hosts_files(place: Place) -> None:
    """The target's is the program's; this machine's is asked for the names that are this machine's."""
    for name, wanted in (("printer.corp.lan", "10.88.0.7"), ("orders-7f9c", "10.77.0.10"), ("pinned.corp.lan", "10.77.0.20")):
        result = place.plugged(["getent", "ahostsv4", name], SIDES[0])
        assert result.out.split()[:1] == [wanted], (name, result.err)
    assert place.plugged(["getent", "ahostsv4", "printer.corp.lan"], {}).out.split()[0] == "10.77.9.9"


def test_a_server_asked_by_address(place: Place) -> None:
    """`dig @this-machine's-nameserver` means the target's, unless the name is this machine's."""
    dig = [need("dig"), "+short", f"@{HERE_AT}", "db.shop.internal", "db.corp.lan"]
    assert place.plugged(dig, SIDES[0]).out.split() == WANTED.split()
    assert place.plugged(dig, {}).out.split() == ["10.77.0.20", "10.77.9.9"]


FOUR_TIMES = """
import contextlib, socket
for _ in range(4):
    for name in ("db", "gone"):
        with contextlib.suppress(OSError):
            print(socket.gethostbyname(name))
"""


def test_an_answer_is_kept_for_its_time(place: Place) -> None:
    """Its TTL is 60 s in the zone. What is not there is asked for anew: the zone has no SOA that says how long."""
    assert place.plugged([sys.executable, "-c", FOUR_TIMES], {}).out.split() == ["10.77.0.20"] * 4
    asked = place.there.read_text().split()
    assert asked.count("db.shop.internal") == 1 and asked.count("gone.shop.internal") == 4, asked
    dig = [need("dig"), "+nocookie", "+noall", "+answer", "db.shop.internal"]
    both = place.plugged(["sh", "-c", f"{' '.join(dig)}; sleep 2; {' '.join(dig)}"], {}).out.splitlines()
    first, second = (int(line.split()[1]) for line in both)
    assert first == 60 and 50 < second <= 58, both


def test_no_answer_from_here_is_said_at_once(place: Place) -> None:
    """Nobody listens on 10.88.0.2's neighbour; the kernel's refusal becomes SERVFAIL, which every resolver understands."""
    result = place.plugged([need("dig"), "@127.0.0.9", "x.corp.lan"], {"dns": {"filter": {"remote": ["nothing"]}}})
    assert "status: NXDOMAIN" in result.out, result.out  # the loopback's nameserver is ours
    with (place.folder / "resolv.conf").open("r+") as conf:
        before = conf.read()
        try:
            conf.seek(0)
            conf.truncate()
            conf.write("nameserver 127.0.0.9\n")
            conf.flush()
            result = place.plugged([need("dig"), "x.corp.lan"], SIDES[0])
            assert "status: SERVFAIL" in result.out, result.out
            conf.seek(0)
            conf.truncate()
            conf.write(f"nameserver 127.0.0.9\nnameserver {HERE_AT}\n")
            conf.flush()
            assert place.plugged([need("dig"), "+short", "db.corp.lan"], SIDES[0]).out == "10.88.0.20\n"
        finally:
            conf.seek(0)
            conf.truncate()
            conf.write(before)


CACHES = """
import os, socket, sys, threading
heard = []
def serve(path):
    server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen(9)
    def wait():
        while True:
            end, _ = server.accept(); heard.append(path); end.close()
    threading.Thread(target=wait, daemon=True).start()
paths = ["/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"]
for path in paths:
    if os.path.exists(path): os.unlink(path)
    serve(path)
print("ready", flush=True)
sys.stdin.readline()
print(*heard, flush=True)
"""
ASK_CACHES = """
import socket
for path in ("/run/nscd/socket", "/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"):
    try: socket.socket(socket.AF_UNIX).connect(path); print("connected")
    except OSError as error: print(error.errno)
print(*{a[4][0] for a in socket.getaddrinfo("db", 80, socket.AF_INET)})
"""


def test_caching_daemons_of_this_machine_are_not_asked(place: Place) -> None:
    """glibc asks nscd's socket and, by nss-resolve, systemd-resolved's, before any nameserver: they must seem not to be there."""
    enter = ["nsenter", "-t", str(place.laptop), "--net", "--mount", "--"]
    daemons = subprocess.Popen([*enter, sys.executable, "-c", CACHES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert daemons.stdout is not None and daemons.stdout.readline() == "ready\n"
        for network in ({}, SIDES[0]):
            result = place.plugged([sys.executable, "-c", ASK_CACHES], network)
            assert result.out == "2\n2\n2\n10.77.0.20\n", result.err
        assert place.plugged(["getent", "ahostsv4", "db"], {}).out.split()[0] == "10.77.0.20"
        before = daemons.communicate("\n", timeout=20)[0]
        assert before == "\n"
    finally:
        daemons.kill()
        daemons.wait()


def test_the_daemons_would_be_asked_without_us(place: Place) -> None:
    enter = ["nsenter", "-t", str(place.laptop), "--net", "--mount", "--"]
    daemons = subprocess.Popen([*enter, sys.executable, "-c", CACHES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert daemons.stdout is not None and daemons.stdout.readline() == "ready\n"
        place.native(["getent", "hosts", "db.corp.lan"])
        assert "/run/nscd/socket" in daemons.communicate("\n", timeout=20)[0]
    finally:
        daemons.kill()
        daemons.wait()


def test_nscd_itself_is_not_asked(place: Place, tmp_path: Path) -> None:
    with nscd(place.laptop, tmp_path):
        ask = ["getent", "ahostsv4"]
        assert [place.native([*ask, "db.corp.lan"]).out[:10] for _ in range(2)] == ["10.88.0.20"] * 2
        place.here.write_text("")
        assert place.native([*ask, "db.corp.lan"]).out[:10] == "10.88.0.20"
        assert place.here.read_text() == ""  # by nscd
        for name, address in {"db": "10.77.0.20", "db.corp.lan": "10.77.9.9", "pinned.corp.lan": "10.77.0.20"}.items():
            assert place.plugged([*ask, name], {}).out.split()[:1] == [address]
        assert place.plugged([*ask, "db.corp.lan"], SIDES[0]).out.split()[:1] == ["10.88.0.20"]


def connected(name: str) -> str:
    return f"import socket; s = socket.create_connection(({name!r}, 7000), 5); s.sendall(b'hi'); print(s.recv(9))"


@pytest.mark.parametrize(
    "name, by",
    [("db", "db"), ("db", "db.shop.internal"), ("alias", "db.shop.internal"), ("alias", "*.shop.internal:7000"),
     ("pinned.corp.lan", "pinned.corp.lan")],
)  # fmt: skip
def test_a_connection_goes_by_any_name_of_its_address(place: Place, name: str, by: str) -> None:
    """What stays local is refused: nobody listens there on this machine."""
    result = place.plugged([sys.executable, "-c", connected(name)], {"outgoing": {"filter": {"remote": [by]}}})
    assert result.out == "b'hi'\n", result.err
    result = place.plugged([sys.executable, "-c", connected(name)], {"outgoing": {"filter": {"remote": ["other", "10.1.2.3"]}}})
    assert result.code == 1 and "unreachable" in result.err, result.err


def test_names_learnt_by_tcp(place: Place) -> None:
    dig = [need("dig"), "+tcp", "+short", "db.shop.internal"]
    ask = f"import subprocess; a = subprocess.check_output({dig}, text=True).strip()"
    code = f"{ask}\n{connected('db').replace(repr('db'), 'a')}"
    result = place.plugged([sys.executable, "-c", code], {"outgoing": {"filter": {"remote": ["db.shop.internal"]}}})
    assert result.out == "b'hi'\n", result.err


@pytest.mark.parametrize(
    "network, said",
    [
        ({"dns": {"filter": {"local": ["a"], "remote": ["b"]}}}, "feature.network.dns.filter: remote and local exclude each other"),
        ({"dns": {"filter": {"local": [":80"]}}}, "':80' has no name"),
        ({"dns": {"filter": {"local": ["a b"]}}}, "'a b' is not [name][:port]"),
        ({"outgoing": {"filter": {"local": ["10.0.0.0/99"]}}}, "feature.network.outgoing.filter.local[0]: '10.0.0.0/99'"),
    ],
)
def test_bad_filters(place: Place, network: dict[str, object], said: str) -> None:
    result = place.plugged(["true"], network)
    assert result.code == 1 and said in result.err and len(result.err.splitlines()) == 2


def test_what_a_filter_can_not_mean_is_said(place: Place) -> None:
    result = place.plugged(["true"], {"dns": {"filter": {"local": ["a.lan:5432"]}}})
    assert result.code == 0 and "a.lan:5432: a query doesn't say for which port" in result.err
