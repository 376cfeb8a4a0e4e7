"""Three processes, each with a listener of its own on the same port; and for IPv6 one more."""

from __future__ import annotations

import os
import socket
import threading


def serve(family: socket.AddressFamily) -> None:
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("", 8080))
    sock.listen()
    while True:
        end, peer = sock.accept()
        line = end.recv(1000).split()
        if line:
            print(line[1].decode(), peer[0], end.getpeername()[0], flush=True)
        end.sendall(b"HTTP/1.0 200 OK\r\n\r\nlocal")
        end.close()


if not os.fork():
    serve(socket.AF_INET)
if not os.fork():
    serve(socket.AF_INET)
threading.Thread(target=serve, args=(socket.AF_INET6,), daemon=True).start()
print("listening", flush=True)
serve(socket.AF_INET)
