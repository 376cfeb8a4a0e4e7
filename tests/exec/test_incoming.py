"""Mirrored requests reach the local program with their real client; the client gets the target's answer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.testkit.target import CLIENT, CLIENT6, ROOT, SERVICE, SERVICE6, Target, wait_for

PYTHON = """
import http.server, socket
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.client_address[0], self.connection.getpeername()[0], flush=True)
        self.send_response(200); self.end_headers(); self.wfile.write(b"local")
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer): address_family = FAMILY
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
s = S(("", 8080), H); print("listening", flush=True); s.serve_forever()
"""
ASYNCIO = """
import asyncio
async def handle(r, w):
    line = (await r.readline()).split()
    print(line[1].decode(), *[w.get_extra_info("peername")[0]] * 2, flush=True)
    w.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nlocal"); w.close()
async def main():
    s = await asyncio.start_server(handle, "0.0.0.0", 8080); print("listening", flush=True); await s.serve_forever()
asyncio.run(main())
"""
NODE = """
require("http").createServer((q, r) => { console.log(q.url, q.socket.remoteAddress.replace("::ffff:", ""),
  q.socket.remoteAddress.replace("::ffff:", "")); r.end("local") }).listen(8080, () => console.log("listening"))
"""
GO = """
package main
import ("fmt"; "net"; "net/http")
func main() {
    l, e := net.Listen("tcp", ":8080"); if e != nil { panic(e) }
    fmt.Println("listening")
    http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
        h, _, _ := net.SplitHostPort(r.RemoteAddr); fmt.Println(r.URL.Path, h, h) }))
}
"""
FORKED = """
import os, socket
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("0.0.0.0", 8080)); s.listen(9)
if os.fork(): print("listening", flush=True); os.wait()
while True:
    c, peer = s.accept(); line = c.recv(999).split()
    if line: print(line[1].decode(), peer[0], c.getpeername()[0], flush=True)
    c.send(b"HTTP/1.0 200 OK\\r\\n\\r\\nlocal"); c.close()
"""


def mirrored(staging: Target, argv: list[str], out: Path, *, six: bool = False) -> None:
    with open(out, "wb") as sink:
        process = subprocess.Popen(
            staging.command(argv), stdout=sink, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
        )
    try:
        wait_for("listening", lambda: "listening" in out.read_text())
        wait_for("the subscription", lambda: subscribed(staging, out))
        for n in range(5):
            assert staging.client(f"http://{SERVICE}:8080/v4-{n}").out == f"staging /v4-{n}\n"
        if six:
            assert staging.client(f"http://[{SERVICE6}]:8080/v6", CLIENT6).out == "staging /v6\n"
        want = [f"/v4-{n} {CLIENT} {CLIENT}" for n in range(5)] + ([f"/v6 {CLIENT6} {CLIENT6}"] if six else [])
        wait_for("the mirrored requests", lambda: set(want) <= set(out.read_text().splitlines()))
        lines = [line for line in out.read_text().splitlines() if not line.startswith(("/probe", "listening"))]
        assert sorted(lines) == sorted(want)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
    assert staging.client(f"http://{SERVICE}:8080/after").out == "staging /after\n"


def subscribed(staging: Target, out: Path) -> bool:
    assert staging.client(f"http://{SERVICE}:8080/probe").code == 0
    time.sleep(0.1)
    return "/probe" in out.read_text()


@pytest.mark.parametrize("code", [PYTHON.replace("FAMILY", "socket.AF_INET"), ASYNCIO, FORKED], ids=["http", "asyncio", "fork"])
def test_python(staging: Target, tmp_path: Path, code: str) -> None:
    mirrored(staging, ["python3", "-c", code], tmp_path / "out")


def test_node(staging: Target, tmp_path: Path) -> None:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    mirrored(staging, ["node", "-e", NODE], tmp_path / "out")


def test_static_go(staging: Target, tmp_path: Path) -> None:
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    source, binary = tmp_path / "main.go", tmp_path / "main"
    source.write_text(GO)
    subprocess.run(["go", "build", "-o", binary, source], check=True, env={**os.environ, "CGO_ENABLED": "0"})
    mirrored(staging, [str(binary)], tmp_path / "out")
