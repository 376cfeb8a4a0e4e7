"""A stand-in for a mesh's proxy beside the target: takes a connection that begins with MESH, which stands for the mesh's
encryption, and hands what follows to the service in plain, from where the real proxy would connect. Without MESH it closes.

usage: sidecar.py PORT UID SOURCE MARK    SOURCE: an address to connect from, `client` for the client's own, or `-`
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading

IP_TRANSPARENT, SO_MARK, SO_ORIGINAL_DST = 19, 36, 80


def main() -> None:
    port, uid, source, mark = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4], 0)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(64)
        if uid:
            os.setuid(uid)
        print("ready", flush=True)
        while True:
            client, peer = listener.accept()
            threading.Thread(target=serve, args=(client, peer, port, source, mark), daemon=True).start()


def serve(client: socket.socket, peer: tuple[str, int], port: int, source: str, mark: int) -> None:
    with client, socket.socket() as service:
        if client.recv(4, socket.MSG_WAITALL) != b"MESH":
            return
        raw = client.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
        to = socket.inet_ntoa(raw[4:8]), struct.unpack_from("!H", raw, 2)[0]
        if mark:
            service.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        if source == "client":
            service.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            service.bind((peer[0], 0))
        elif source != "-":
            service.bind((source, 0))
        service.settimeout(5)
        try:
            service.connect(to)
        except OSError as error:
            client.sendall(f"the sidecar can't connect: {error}".encode())
            return
        threading.Thread(target=copy, args=(client, service), daemon=True).start()
        copy(service, client)


def copy(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


if __name__ == "__main__":
    main()
