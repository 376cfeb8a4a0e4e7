"""The demo's staging: run by `unshare -Urnm --uts`, standard library only.

    clients 10.77.0.50 ──veth── 10.77.0.10:8080 service orders-7f9c
                                10.77.0.20:5432 database      10.77.0.2:53 DNS

Each is a process of its own that ends at the end of its stdin, so the death of whoever started staging ends it all. On
stdout: one JSON line with the service's PID (there is no PID namespace: it is the one seen outside), then one line of
the clients' statistics for each line on stdin.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO

SERVICE, DATABASE, DNS, CLIENTS = "10.77.0.10", "10.77.0.20", "10.77.0.2", "10.77.0.50"
PORT, DATABASE_PORT = 8080, 5432
HOSTNAME = "orders-7f9c"
DATABASE_NAME = "db.staging.internal"
CONFIG = "/srv/orders/config.json"
RATE = 50  # requests a second
ALICE = 5  # each so many-th is alice's, who may be answered by a version 2.0
ENVIRONMENT = {"DATABASE_HOST": DATABASE_NAME, "DATABASE_PORT": str(DATABASE_PORT), "GREETING": "hello from staging"}


class Orders(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"staging version 1.0 answers {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet: stdout is the control channel."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128


class Database(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"42 orders, asked from " + self.client_address[0].encode() + b": " + line)


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class NamesUdp(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(resolve(self.rfile.read()))


class NamesTcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        size = int.from_bytes(self.rfile.read(2), "big")
        answer = resolve(self.rfile.read(size))
        self.wfile.write(len(answer).to_bytes(2, "big") + answer)


def resolve(query: bytes) -> bytes:
    """The answer to one question (RFC 1035, 4.1): A of the database, nothing for its other types, else NXDOMAIN."""
    end = 12
    labels = []
    while query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].decode().lower())
        end += 1 + query[end]
    end += 5  # the root label, type, class
    known, wants_a = ".".join(labels) == DATABASE_NAME, query[end - 4 : end - 2] == b"\0\1"
    flags = b"\x85\x80" if known else b"\x85\x83"
    count = 1 if known and wants_a else 0
    head = query[:2] + flags + b"\0\1" + count.to_bytes(2, "big") + bytes(4) + query[12:end]
    record = b"\xc0\x0c\0\1\0\1" + (5).to_bytes(4, "big") + b"\0\4" + socket.inet_aton(DATABASE)
    return head + record * count


def clients() -> None:
    """Steady traffic, each request on a new connection; a line of statistics since the last one for each line read."""
    times: list[float] = []
    due, errors, number, new = time.monotonic(), 0, 0, 0
    while True:
        readable, _, _ = select.select([0], [], [], max(0.0, due - time.monotonic()))
        if readable:
            if not os.read(0, 64):
                return
            times.sort()
            at = [times[int(len(times) * q)] * 1000 for q in (0.5, 0.99)] if times else [0.0, 0.0]
            said = {"requests": len(times), "errors": errors, "new": new, "p50_ms": at[0], "p99_ms": at[1]}
            print(json.dumps(said), flush=True)
            times, errors, new, due = [], 0, 0, time.monotonic()
            continue
        due += 1 / RATE
        number += 1
        started = time.monotonic()
        try:
            connection = http.client.HTTPConnection(SERVICE, PORT, timeout=5)
            alice = number % ALICE == 0
            connection.request("GET", f"/orders/{number}", headers={"X-User": "alice"} if alice else {})
            answer = connection.getresponse().read()
            if alice and answer.startswith(b"LOCAL version 2.0"):
                new += 1
            elif not answer.startswith(b"staging version 1.0"):
                errors += 1
            connection.close()
        except OSError:
            errors += 1
        times.append(time.monotonic() - started)


def serve(role: str) -> None:
    """One of the servers, until the end of stdin."""
    if role == "service":
        servers: list[socketserver.BaseServer] = [Server((SERVICE, PORT), Orders)]
    elif role == "database":
        servers = [Tcp((DATABASE, DATABASE_PORT), Database)]
    else:
        servers = [socketserver.ThreadingUDPServer((DNS, 53), NamesUdp), Tcp((DNS, 53), NamesTcp)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("up", flush=True)
    os.read(0, 1)
    os._exit(0)


def start(role: str, *prefix: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-I", __file__, role],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def pipe(end: IO[str] | None) -> IO[str]:
    assert end is not None
    return end


def sh(script: str, *args: str) -> None:
    subprocess.run(["/bin/sh", "-euc", script, "sh", *args], check=True)


def furnish(scratch: str) -> None:
    """Files and names that only this mount and UTS namespace has."""
    socket.sethostname(HOSTNAME)
    for name, text in (("resolv.conf", f"nameserver {DNS}\noptions timeout:1 attempts:2\n"), ("hostname", HOSTNAME + "\n")):
        with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
            file.write(text)
        sh('[ ! -e "$2" ] || mount --bind "$1" "$2"', file.name, f"/etc/{name}")
    sh("mount -t tmpfs demo /srv && mkdir /srv/orders")
    with open(CONFIG, "w", encoding="utf-8") as file:
        json.dump({"currency": "EUR", "source": "only in staging"}, file)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        furnish(scratch)
        sh("ip link set lo up; ip link add eth0 type veth peer name eth1; ip link set eth0 up")
        for address in (SERVICE, DATABASE, DNS):
            sh('ip addr add "$1/24" dev eth0', address)
        servers = [start("database"), start("dns"), start("service", **ENVIRONMENT)]
        outside = start("wait", "unshare", "-n")
        for process in (*servers, outside):
            if pipe(process.stdout).readline() != "up\n":
                sys.exit("a part of the demo's staging did not start")
        sh('ip link set eth1 netns "$1"', str(outside.pid))
        join = ("nsenter", f"--net=/proc/{outside.pid}/ns/net")
        sh(f"{' '.join(join)} sh -euc 'ip link set lo up; ip link set eth1 up; ip addr add {CLIENTS}/24 dev eth1'")
        traffic = start("clients", *join)
        print(json.dumps({"service": servers[-1].pid}), flush=True)
        for line in sys.stdin:
            pipe(traffic.stdin).write(line)
            pipe(traffic.stdin).flush()
            print(pipe(traffic.stdout).readline(), end="", flush=True)
        for process in (traffic, outside, *servers):
            process.communicate()


if __name__ == "__main__":
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role == "clients":
        clients()
    elif role == "wait":
        print("up", flush=True)
        os.read(0, 1)
    elif role:
        serve(role)
    else:
        main()
