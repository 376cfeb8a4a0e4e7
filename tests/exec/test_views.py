"""What a program sees when it is plugged in; the run inside the target's namespaces is the oracle."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.testkit.build import need
from tests.testkit.target import Target, same

PYTHON = """
import errno, os, socket
print(os.environ["GREETING"], os.environ["DATABASE_HOST"], repr(os.environ["EMPTY"]))
print(socket.gethostname(), os.uname().nodename)
print(open("/srv/config.txt").read().strip(), len(open("/srv/big", "rb").read()))
info = os.stat("/srv/config.txt")
print(oct(info.st_mode), info.st_size, int(info.st_mtime), info.st_uid, info.st_nlink)
print(sorted(os.listdir("/srv/folder")), os.readlink("/srv/link"), os.path.realpath("/srv/link"))
print(sorted((e.name, e.is_dir(), e.is_symlink()) for e in os.scandir("/srv")))
for path in ("/srv/none", "/srv/config.txt/x"):
    try: os.stat(path)
    except OSError as error: print(errno.errorcode[error.errno])
    try: open(path)
    except OSError as error: print(errno.errorcode[error.errno])
print(os.access("/srv/config.txt", os.R_OK), os.access("/srv/none", os.F_OK))
print(socket.gethostbyname("db.staging.internal"), socket.gethostbyname("db"))
try: socket.getaddrinfo("nowhere.staging.internal", 80)
except socket.gaierror as error: print(error.errno)
with socket.create_connection(("db.staging.internal", 7000), 5) as s:
    print(s.getpeername()); s.sendall(b"ping"); print(s.recv(10))
    s.shutdown(socket.SHUT_WR); print(s.recv(10))
with socket.create_connection(("127.0.0.1", 7001)) as s:
    s.sendall(b"own loopback"); print(s.recv(20))
for blocking in (True, False):
    s = socket.socket(); s.settimeout(None if blocking else 5)
    try: s.connect(("10.77.0.20", 7999))
    except OSError as error: print(errno.errorcode[error.errno])
s = socket.socket(); s.settimeout(5); s.connect(("10.77.0.20", 7000)); s.sendall(b"R")
try: print(s.recv(1))
except OSError as error: print(errno.errorcode[error.errno])
u = socket.socket(type=socket.SOCK_DGRAM); u.settimeout(5); u.connect(("10.77.0.20", 7000)); u.send(b"one"); print(u.recv(99))
print(u.getpeername())
v = socket.socket(type=socket.SOCK_DGRAM); v.settimeout(5); v.sendto(b"two", ("10.77.0.20", 7000)); print(v.recvfrom(99))
"""
NODE = """
const fs = require("fs"), os = require("os"), net = require("net"), dns = require("dns");
console.log(process.env.GREETING, os.hostname(), fs.readFileSync("/srv/config.txt", "utf8").trim());
console.log(fs.readdirSync("/srv/folder").sort().join(), fs.statSync("/srv/big").size);
try { fs.readFileSync("/srv/none") } catch (e) { console.log(e.code) }
(async () => {
  console.log(await dns.promises.resolve4("db.staging.internal"));
  console.log((await dns.promises.lookup("db.staging.internal")).address);
  try { await dns.promises.resolve4("nowhere.staging.internal") } catch (e) { console.log(e.code) }
  console.log(await (await fetch("http://orders.staging.internal:8080/x")).text());
  const s = net.connect(7000, "db.staging.internal", () => s.end("ping"));
  let got = ""; s.on("data", d => got += d); await new Promise(r => s.on("end", r)); console.log(got, s.remoteAddress);
  const r = net.connect(7999, "10.77.0.20"); r.on("error", e => console.log(e.code));
})();
"""
C = r"""
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    char host[99], line[99]; struct stat st; int n = 0;
    gethostname(host, sizeof host); printf("%s %s\n", getenv("GREETING"), host);
    FILE *f = fopen("/srv/config.txt", "r"); fgets(line, sizeof line, f); printf("%s", line);
    int fd = open("/srv/big", O_RDONLY); fstat(fd, &st);
    char *m = mmap(0, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0); printf("%ld %d\n", (long)st.st_size, m[299999]);
    DIR *d = opendir("/srv/folder"); while (readdir(d)) n++; printf("%d entries\n", n);
    printf("%d %d\n", open("/srv/none", O_RDONLY), errno);
    struct hostent *h = gethostbyname("db.staging.internal");
    printf("%s\n", h ? inet_ntoa(*(struct in_addr *)h->h_addr_list[0]) : "no such name");
    struct sockaddr_in a = {AF_INET, htons(7000)}; inet_aton("10.77.0.20", &a.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0); n = connect(s, (void *)&a, sizeof a); printf("%d\n", n);
    write(s, "ping", 4); n = read(s, line, 99); printf("%.*s\n", n, line);
    a.sin_port = htons(7999); s = socket(AF_INET, SOCK_STREAM, 0);
    n = connect(s, (void *)&a, sizeof a); printf("%d %d\n", n, errno);
}
"""


def test_python(staging: Target) -> None:
    same(staging, ["python3", "-c", PYTHON])


def test_node(staging: Target) -> None:
    same(staging, [need("node"), "-e", NODE])


# A static glibc has no resolver of its own
@pytest.mark.parametrize("command", [("gcc",), ("musl-gcc",), ("musl-gcc", "-static")], ids="-".join)
def test_c(staging: Target, tmp_path: Path, command: tuple[str, ...]) -> None:
    source, binary = tmp_path / "main.c", tmp_path / "main"
    source.write_text(C)
    subprocess.run([need(command[0]), "-w", *command[1:], "-o", binary, source], check=True)
    same(staging, [str(binary)])


@pytest.mark.parametrize(
    "argv",
    [
        ["curl", "-sS", "http://orders.staging.internal:8080/curl"],
        ["dig", "+short", "db.staging.internal"],
        ["dig", "+tcp", "+short", "db.staging.internal"],
        ["busybox", "cat", "/srv/config.txt"],
        ["busybox", "ls", "-l", "/srv/folder"],
        ["sh", "-c", "cat /srv/config.txt | tr a-z A-Z | wc -c; uname -n"],
        ["bash", "-c", "for n in {1..20}; do echo $n | cat | cat; done"],
        ["bash", "-c", "exec 3<>/dev/tcp/10.77.0.20/7000; echo hi >&3; head -1 <&3"],
    ],
    ids=lambda argv: "-".join(argv).replace("/", "_")[:40],
)
def test_tools(staging: Target, argv: list[str]) -> None:
    need(argv[0])
    same(staging, argv)


def test_unix_stream(staging: Target, tmp_path: Path) -> None:
    code = "import socket; s=socket.socket(socket.AF_UNIX); s.connect('/srv/echo.sock'); s.sendall(b'unix'); print(s.recv(9))"
    config = tmp_path / "c.json"
    config.write_text('{"feature": {"network": {"outgoing": {"unix_streams": "^/srv/.*sock$"}}}}')
    plugged = staging.plugged(["python3", "-c", code], flags=["-f", str(config)])
    assert plugged.out == "b'unix'\n", plugged.err


DGRAM = """
const s = require("dgram").createSocket("udp4");
s.on("message", (m, r) => { console.log(String(m), r.address, r.port); s.close() });
s.send("three", 7000, "10.77.0.20", (e, n) => console.log(e, n));
"""


def test_node_datagrams(staging: Target) -> None:
    """libuv sends and receives by the msg family of calls."""
    need("node")
    same(staging, ["node", "-e", DGRAM])
