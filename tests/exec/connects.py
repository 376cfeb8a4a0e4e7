"""Connects to where nobody answers for a while: what ends them, and what is told. The argument is a port that makes such places."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

HOST, CONTROL = "10.77.0.20", int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
caught: list[int] = []


def ask(what: str) -> int:
    with socket.create_connection((HOST, CONTROL)) as control:
        control.sendall(what.encode())
        return int(control.recv(100))


def connect(sock: socket.socket, port: int) -> str:
    """connect(2) itself: Python's goes on after a signal."""
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(HOST) + bytes(8)
    failed = libc.connect(sock.fileno(), address, len(address))
    return errno.errorcode[ctypes.get_errno()] if failed else "connected"


def soon(port: int, *, signals: int = 0, thread: int = 0, free: bool = True) -> threading.Thread:
    """In another thread, that holds all signals back: some signals, then the place answers."""

    def go() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        for _ in range(signals):
            time.sleep(0.3)
            signal.pthread_kill(thread, signal.SIGUSR1) if thread else os.kill(os.getpid(), signal.SIGUSR1)
        if free:
            ask(f"free {port}")

    one = threading.Thread(target=go)
    one.start()
    return one


def told(sock: socket.socket, port: int) -> None:
    """A socket whose connect() goes on by itself."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    print(poll.poll(0), connect(sock, port), end=" ")
    ask(f"free {port}")
    print(poll.poll(20000)[0][1], sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), end=" ")
    print(connect(sock, port), connect(sock, port), sock.getpeername() == (HOST, port))


def handler(*_: object) -> None:
    caught.append(1)


signal.signal(signal.SIGUSR1, handler)
for restarts in False, True:
    signal.siginterrupt(signal.SIGUSR1, not restarts)
    for thread in 0, threading.get_ident():
        caught.clear()
        port, sock = ask("new"), socket.socket()
        helper = soon(port, signals=2 if restarts else 1, thread=thread, free=restarts)
        print("signal", restarts, bool(thread), connect(sock, port), len(caught), end=" ")
        helper.join()
        if restarts:
            print(connect(sock, port), sock.getpeername() == (HOST, port))
        else:
            sock.setblocking(False)
            told(sock, port)

port, sock = ask("new"), socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, 400000))
start = time.monotonic()
print("SO_SNDTIMEO", connect(sock, port), connect(sock, port), 0.7 < time.monotonic() - start < 8, end=" ")
told(sock, port)
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 5, 0))
signal.siginterrupt(signal.SIGUSR1, False)
helper = soon(port := ask("new"), signals=1, free=False)
print("SO_SNDTIMEO and a signal", connect(sock, port), len(caught))
helper.join()

sock = socket.socket()
print("refused", [connect(sock, 9) for _ in range(3)], sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), end=" ")
print(connect(sock, CONTROL), connect(sock, CONTROL), sock.getpeername() == (HOST, CONTROL))
sock.sendall(b"new")
print("and used", int(sock.recv(100)) > 0)

port, sock = ask("new"), socket.socket()
sock.setblocking(False)
print("later blocking", connect(sock, port), connect(sock, port), end=" ")
sock.setblocking(True)
helper = soon(port)
print(connect(sock, port), connect(sock, port))
helper.join()

for how in "settimeout", "create_connection", "asyncio":
    port = ask("new")
    try:
        if how == "settimeout":
            sock = socket.socket()
            sock.settimeout(0.4)
            sock.connect((HOST, port))
        elif how == "create_connection":
            socket.create_connection((HOST, port), 0.4)
        else:
            import asyncio

            asyncio.run(asyncio.wait_for(asyncio.open_connection(HOST, port), 0.4))
    except OSError as error:
        print(how, type(error).__name__)
