"""Threads and processes as clients: requests in parallel, pools, subprocesses, time-outs."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def fetch(n: int) -> str:
    with urllib.request.urlopen(f"http://orders.staging.internal:8080/{n}", timeout=10) as answer:
        return str(answer.read().decode().strip())


def echo(n: int) -> bool:
    with socket.create_connection(("10.77.0.20", 7000), 10) as sock:
        sock.sendall(b"%d" % n)
        return sock.recv(99) == b"%d" % n


def file(n: int) -> str:
    with open(f"/srv/folder/{'abc'[n % 3]}", encoding="ascii") as lines:
        return lines.read()


def main() -> None:
    with ThreadPoolExecutor(20) as pool:
        print(sorted(pool.map(fetch, range(60))))
        print(sum(pool.map(echo, range(200))), "".join(sorted(pool.map(file, range(60)))).split())
        print(set(pool.map(socket.gethostbyname, ["db.staging.internal"] * 40)))
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(3) as processes:
            print(method, sum(processes.map(echo, range(20))), sorted(set(processes.map(file, range(20)))))
    try:
        urllib.request.urlopen("http://10.77.0.20:7999/")
    except urllib.error.URLError as error:
        print(error.reason)
    print(subprocess.check_output("cat /srv/config.txt; hostname", shell=True, text=True), os.getenv("GREETING"))
    with socket.create_connection(("10.77.0.20", 7000)) as sock:
        sock.settimeout(0.2)
        try:
            sock.recv(1)
        except TimeoutError:
            print("nothing came")
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        copy.sendall(b"by the copy")
        print(sock.recv(99), copy.getpeername())
        copy.close()


if __name__ == "__main__":
    main()
