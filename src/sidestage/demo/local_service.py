"""Version 2.0 of the demo's service, as under development: an ordinary program that knows nothing of sidestage.

It says what it sees of the world, then serves until WANTED requests have come. Its answers differ from staging's. The second time
it is told `alice`, and serves those that are hers.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

WANTED, ALICES = 150, 20  # about three seconds of traffic, and two of alice's
SHOWN = 4
PATIENCE = 15.0  # seconds


class Orders(BaseHTTPRequestHandler):
    served = 0
    clients: frozenset[str] = frozenset()

    def do_GET(self) -> None:
        body = b"LOCAL version 2.0: nobody but alice may ever see this\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        Orders.served += 1
        Orders.clients |= {self.client_address[0]}
        if Orders.served <= SHOWN:
            say("request", f"GET {self.path} from {self.client_address[0]}:{self.client_address[1]}")

    def log_message(self, *_: object) -> None:
        """say() is enough."""


def say(what: str, text: object) -> None:
    print(f"    {what:12} {text}", flush=True)


def main() -> int:
    alice = sys.argv[1:] == ["alice"]
    plugged = alice or sees_staging()
    wanted = ALICES if alice else WANTED
    server = HTTPServer(("0.0.0.0", 8080), Orders)
    server.timeout = 0.5
    until = time.monotonic() + PATIENCE
    while Orders.served < wanted and time.monotonic() < until:
        server.handle_request()
    who = ", ".join(sorted(Orders.clients)) or "nobody"
    say("requests", f"{Orders.served} {'of alice answered' if alice else 'mirrored'}, from {who}")
    return 0 if plugged and Orders.clients == {"10.77.0.50"} and Orders.served >= wanted else 1


def sees_staging() -> bool:
    host, port = os.environ["DATABASE_HOST"], int(os.environ["DATABASE_PORT"])
    say("host name", socket.gethostname())
    say("environment", f"GREETING={os.environ['GREETING']}")
    with open("/srv/orders/config.json", encoding="utf-8") as file:
        say("file", f"{file.name}: {file.read()}")
    address = socket.gethostbyname(host)
    say("DNS", f"{host} is {address}")
    with socket.create_connection((host, port), timeout=5) as database:
        database.sendall(b"SELECT count(*)\n")
        answer = database.recv(200).decode().strip()
    say("database", answer)
    return address == "10.77.0.20" and answer.startswith("42 orders")


if __name__ == "__main__":
    sys.exit(main())
