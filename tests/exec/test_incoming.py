"""Mirrored requests reach the local program with their real client; the client gets the target's answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testkit.mirror import mirrored
from tests.testkit.target import Target

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
FORKED = """
import os, socket
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("0.0.0.0", 8080)); s.listen(9)
if os.fork(): print("listening", flush=True); os.wait()
while True:
    c, peer = s.accept(); line = c.recv(999).split()
    if line: print(line[1].decode(), peer[0], c.getpeername()[0], flush=True)
    c.send(b"HTTP/1.0 200 OK\\r\\n\\r\\nlocal"); c.close()
"""


@pytest.mark.parametrize("code", [PYTHON.replace("FAMILY", "socket.AF_INET"), ASYNCIO, FORKED], ids=["http", "asyncio", "fork"])
def test_python(staging: Target, tmp_path: Path, code: str) -> None:
    mirrored(staging, ["python3", "-c", code], tmp_path / "out")
