"""A nameserver for tests, over UDP and TCP, as a program: `nameserver.py ADDRESS ZONE.json LOG`; each name asked is a line of LOG.

ZONE: {name: [[type, value], ...]}, type A, AAAA, SRV (`priority weight port target`) or CNAME (followed within the zone).
"""

from __future__ import annotations

import ipaddress
import json
import socketserver
import struct
import sys
import threading
from typing import Any

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28, "SRV": 33}
OPT = 41
ZONE: dict[str, list[list[str]]] = {}


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def value(kind: str, text: str) -> bytes:
    if kind in ("A", "AAAA"):
        return ipaddress.ip_address(text).packed
    if kind == "CNAME":
        return encoded(text)
    *numbers, target = text.split()
    return struct.pack("!3H", *map(int, numbers)) + encoded(target)


def answer(query: bytes, log: Any, limit: int) -> bytes:
    end = query.index(b"\0", 12) + 1
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    name, (kind, _) = ".".join(labels).lower(), struct.unpack_from("!HH", query, end)
    print(name, file=log, flush=True)
    more = struct.unpack_from("!H", query, 10)[0]
    if more and query[end + 4] == 0 and struct.unpack_from("!H", query, end + 5)[0] == OPT:
        limit = max(limit, struct.unpack_from("!H", query, end + 7)[0])  # EDNS: the room that the asker has (RFC 6891)
    found, owner = [], name
    for _ in range(8):
        records = ZONE.get(owner, [])
        found += [(owner, TYPES[t], value(t, v)) for t, v in records if TYPES[t] == kind or t == "CNAME"]
        alias = next((v for t, v in records if t == "CNAME"), None)
        if alias is None:
            break
        owner = alias
    raw = [encoded(o) + struct.pack("!HHIH", t, 1, 60, len(data)) + data for o, t, data in found]
    flags = 0x8580 if name in ZONE else 0x8583
    body = query[12 : end + 4]
    if 12 + len(body) + sum(map(len, raw)) > limit:
        flags, raw = flags | 0x0200, []  # cut: ask by TCP
    return query[:2] + struct.pack("!5H", flags, 1, len(raw), 0, 0) + body + b"".join(raw)


def main(address: str, zone: str, log: str) -> None:
    with open(zone) as file:
        ZONE.update(json.load(file))
    out = open(log, "a")  # noqa: SIM115 - as long as the process

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(answer(data, out, 512), self.client_address)

    class Stream(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.read(2):
                reply = answer(self.rfile.read(struct.unpack("!H", head)[0]), out, 65535)
                self.wfile.write(struct.pack("!H", len(reply)) + reply)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    stream = socketserver.ThreadingTCPServer((address, 53), Stream)
    stream.daemon_threads = True
    threading.Thread(target=stream.serve_forever, daemon=True).start()
    server = socketserver.ThreadingUDPServer((address, 53), Datagram)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
