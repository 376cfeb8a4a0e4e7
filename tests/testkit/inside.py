"""The process that is the target: a service, an echo dependency over TCP and UDP, a unix socket, and a DNS server."""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RECORDS = {
    b"\2db\7staging\10internal\0": "10.77.0.20",
    b"\6orders\7staging\10internal\0": "10.77.0.10",
}


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"staging " + self.path.encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


class Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "orders", 8080


class Echo(socketserver.BaseRequestHandler):
    """Sends back all it gets; half-close ends it; the first byte R makes it reset the connection."""

    def handle(self) -> None:
        sock: socket.socket = self.request
        first = True
        while data := sock.recv(1 << 18):
            if first and data[:1] == b"R":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                return
            first = False
            sock.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        return  # clients reset connections as they like

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


class EchoServer6(EchoServer):
    address_family = socket.AF_INET6


class EchoDatagrams6(socketserver.ThreadingUDPServer):
    address_family = socket.AF_INET6


class Greeter(socketserver.BaseRequestHandler):
    """Speaks first, and once, as SMTP and MySQL servers do; then echoes a line and hangs up."""

    def handle(self) -> None:
        sock: socket.socket = self.request
        sock.sendall(b"220 ready\n")
        sock.sendall(b"250 " + sock.recv(1000))


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(b"echo " + data, self.client_address)


class Names(socketserver.BaseRequestHandler):
    """RFC 1035, as little as a resolver needs: A records, NOERROR without answer for other types, NXDOMAIN."""

    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(answer(data), self.client_address)


class NamesTcp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        sock: socket.socket = self.request
        (size,) = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))
        reply = answer(sock.recv(size, socket.MSG_WAITALL))
        sock.sendall(struct.pack("!H", len(reply)) + reply)


def answer(query: bytes) -> bytes:
    end = query.index(b"\0", 12) + 1
    name, (kind, _) = query[12:end].lower(), struct.unpack_from("!HH", query, end)
    address = RECORDS.get(name)
    found = address is not None and kind == 1
    flags = 0x8580 if address else 0x8583
    head = query[:2] + struct.pack("!5H", flags, 1, int(found), 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address or "0.0.0.0") if found else b""
    return head + query[12 : end + 4] + record


def serve(server: socketserver.BaseServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    serve(Server6(("::", 8080), Service))
    serve(EchoServer(("10.77.0.20", 7000), Echo))
    serve(EchoServer6(("fd77::20", 7000), Echo))
    serve(EchoServer(("127.0.0.1", 7001), Echo))
    serve(EchoServer(("10.77.0.20", 7002), Greeter))
    serve(socketserver.ThreadingUDPServer(("10.77.0.20", 7000), EchoDatagram))
    serve(EchoDatagrams6(("fd77::20", 7000), EchoDatagram))
    serve(socketserver.ThreadingUDPServer(("10.77.0.2", 53), Names))
    serve(socketserver.ThreadingTCPServer(("10.77.0.2", 53), NamesTcp))
    serve(socketserver.ThreadingUnixStreamServer("/srv/echo.sock", Echo))
    print("ready", flush=True)
    os.close(1)
    threading.Event().wait()


if __name__ == "__main__":
    main()
