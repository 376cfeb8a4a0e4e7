"""Real HTTP servers that tell what they understood of a request: nginx, Node, Go, uvicorn; HTTP/2 where they have it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NODE = r"""
const http = require('http'), http2 = require('http2');
const tell = (req, res) => {
  const parts = [];
  req.on('data', (part) => parts.push(part)).on('error', () => {}).on('end', () => {
    const body = Buffer.concat(parts);
    const text = body.toString('latin1').slice(0, 200);
    const said = JSON.stringify({m: req.method, u: req.url, h: req.headers, b: text, n: body.length, t: req.trailers});
    if (req.url.startsWith('/204')) { res.writeHead(204); res.end(); }
    else if (req.url.startsWith('/chunked') && req.method !== 'HEAD' && req.httpVersion === '1.1') {
      res.writeHead(200, {Trailer: 'X-Sum'}); res.write(said); res.write('more'); res.addTrailers({'X-Sum': '1'}); res.end();
    }
    else if (req.url.startsWith('/close')) { res.writeHead(200, {Connection: 'close'}); res.end(said); }
    else if (req.url.startsWith('/big')) { res.writeHead(200); res.end('x'.repeat(300000)); }
    else if (req.url.startsWith('/hints')) { res.writeEarlyHints({link: '</a>; rel=preload'}); res.end(said); }
    else { res.writeHead(200, {'Content-Length': Buffer.byteLength(said)}); res.end(said); }
  });
};
const one = http.createServer(tell);
one.on('upgrade', (req, socket, head) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n' + head.toString('latin1'));
  socket.on('data', (data) => socket.write(data)).on('end', () => socket.end()).on('error', () => {});
});
one.listen(+process.argv[2], '127.0.0.1');
const two = http2.createServer();
two.on('stream', (stream, headers) => {
  const parts = [];
  stream.on('error', () => {}).on('data', (part) => parts.push(part)).on('end', () => {
    const body = Buffer.concat(parts);
    if (stream.destroyed) return;
    if (headers[':path'] === '/rst') { stream.close(2); return; }
    if (headers[':path'] === '/goaway') { stream.session.goaway(0); }
    stream.respond({':status': 200, 'x-path': headers[':path']}, {waitForTrailers: true});
    stream.on('wantTrailers', () => stream.sendTrailers({'x-n': String(body.length)}));
    stream.end(JSON.stringify({h: headers, n: body.length}) + 'y'.repeat(headers[':path'] === '/big' ? 300000 : 0));
  });
});
two.on('sessionError', () => {});
two.listen(+process.argv[3], '127.0.0.1');
"""

GO = r"""
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
)

func tell(w http.ResponseWriter, r *http.Request) {
	if len(os.Args) > 3 {
		w.Header().Set("Server", os.Args[3])
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "body: "+err.Error(), 400)
		return
	}
	said, _ := json.Marshal(map[string]any{"m": r.Method, "u": r.URL.String(), "h": r.Header, "n": len(body),
		"t": r.Trailer, "host": r.Host})
	switch {
	case strings.HasPrefix(r.URL.Path, "/204"):
		w.WriteHeader(204)
	case strings.HasPrefix(r.URL.Path, "/chunked"):
		w.Header().Set("Trailer", "X-Sum")
		w.Write(said)
		w.(http.Flusher).Flush()
		w.Write([]byte("more"))
		w.Header().Set("X-Sum", "1")
	case strings.HasPrefix(r.URL.Path, "/close"):
		w.Header().Set("Connection", "close")
		w.Write(said)
	case strings.HasPrefix(r.URL.Path, "/big"):
		w.Write([]byte(strings.Repeat("x", 300000)))
	case strings.HasPrefix(r.URL.Path, "/hints"):
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(103)
		w.Write(said)
	case r.URL.Path == "/rst":
		panic(http.ErrAbortHandler)
	default:
		w.Write(said)
	}
}

func main() {
	var one, two http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	go (&http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: http.HandlerFunc(tell), Protocols: &one}).ListenAndServe()
	(&http.Server{Addr: "127.0.0.1:" + os.Args[2], Handler: http.HandlerFunc(tell), Protocols: &two}).ListenAndServe()
}
"""

NGINX = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {folder}/pid;
events {{ worker_connections 1000; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; default_type text/plain;
  keepalive_timeout 5s; client_header_timeout 3s; client_body_timeout 3s;
  server {{
    listen 127.0.0.1:{one};
    location / {{ return 200 "$request_method $request_uri $http_host $http_content_length $http_transfer_encoding\\n"; }}
    location /204 {{ return 204; }}
    location /big {{ return 200 "{big}"; }}
    location /file {{ root {folder}; }}
  }}
  server {{
    listen 127.0.0.1:{two} http2;
    location / {{ return 200 "$request_method $request_uri $http_host $http_content_length\\n"; }}
    location /big {{ return 200 "{big}"; }}
    location /file {{ root {folder}; }}
  }}
}}
"""

UVICORN = """
import json

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if event["type"] == "http.disconnect" or not event.get("more_body"):
            break
    headers = [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]]
    said = json.dumps({"m": scope["method"], "u": scope["raw_path"].decode("latin-1"), "h": headers, "n": len(body)}).encode()
    status, extra = (204, []) if scope["path"].startswith("/204") else (200, [])
    if scope["path"].startswith("/big"):
        said = b"x" * 300000
    if scope["path"].startswith("/close"):
        extra = [(b"connection", b"close")]
    if not scope["path"].startswith("/chunked") and status == 200:
        extra = [*extra, (b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": status, "headers": extra})
    await send({"type": "http.response.body", "body": b"" if status == 204 else said})
"""


def lacking() -> list[str]:
    return [tool for tool in ("nginx", "node", "go") if not (shutil.which(tool) or os.path.exists(f"/usr/sbin/{tool}"))]


def _free(count: int) -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def go_server(folder: Path) -> str:
    """The program; its arguments are two ports, of HTTP/1 and of HTTP/2."""
    (folder / "main.go").write_text(GO)
    subprocess.run(["go", "build", "-o", str(folder / "server"), str(folder / "main.go")], check=True, cwd=folder)
    return str(folder / "server")


@contextmanager
def running(folder: Path) -> Iterator[dict[str, int]]:
    """Ports by name; `node2`, `go2` and `nginx2` speak HTTP/2 only."""
    names = ["nginx", "nginx2", "node", "node2", "go", "go2", "uvicorn"]
    ports = dict(zip(names, _free(len(names)), strict=True))
    (folder / "app.py").write_text(UVICORN)
    (folder / "server.js").write_text(NODE)
    (folder / "file").write_text("a file\n" * 1000)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, one=ports["nginx"], two=ports["nginx2"], big="x" * 3000))
    go_server(folder)
    path = os.environ["PATH"] + ":/usr/sbin"
    commands = [
        [shutil.which("nginx", path=path) or "nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)],
        ["node", str(folder / "server.js"), str(ports["node"]), str(ports["node2"])],
        [str(folder / "server"), str(ports["go"]), str(ports["go2"])],
        [sys.executable, "-m", "uvicorn", "app:app", "--port", str(ports["uvicorn"]), "--log-level", "critical", "--http", "h11"],
    ]
    processes = [subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) for command in commands]
    try:
        for name, port in ports.items():
            _wait(name, port)
        yield ports
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _wait(name: str, port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{name} does not begin")
