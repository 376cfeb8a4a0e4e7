"""Certificates, and real servers of TLS in a target's network: nginx for HTTP, and one in Python that speaks as it is asked."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.testkit.target import DEPENDENCY, SERVICE, Target, wait_for

NAME = "orders.staging.internal"
HTTPS, HTTPS1, MUTUAL, OPTIONAL, OTHERS, TALK = 8443, 8444, 8445, 8446, 8447, 8448

NGINX = """
daemon off; master_process off; worker_processes 1; error_log /dev/null crit; pid {folder}/pid;
events {{ worker_connections 1000; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; default_type text/plain; keepalive_timeout 30s; keepalive_requests 1000000;
  ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {folder}/own.crt; ssl_certificate_key {folder}/own.key;
  ssl_client_certificate {folder}/client.crt;
  server {{ listen {address}:8443 ssl http2; {answers} }}
  server {{ listen {address}:8444 ssl; {answers} }}
  server {{ listen {address}:8445 ssl http2; ssl_verify_client on; {answers} }}
  server {{ listen {address}:8446 ssl; ssl_verify_client optional; ssl_protocols TLSv1.2; {answers} }}
  server {{ listen {address}:8447 ssl; ssl_certificate {folder}/other.crt; ssl_certificate_key {folder}/other.key; {answers} }}
}}
"""
ANSWERS = (
    'location / { return 200 "staging $request_uri $server_protocol $ssl_protocol $ssl_server_name $ssl_client_s_dn\\n"; } '
    "location /big { root FOLDER; }"
)

# Greets first; then upper case. After the client's end it says goodbye. R: ends without the word of TLS. X: resets.
TALKER = """
import socket, ssl, struct, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1], sys.argv[2])
s = socket.create_server((sys.argv[3], int(sys.argv[4])), backlog=99); print("ready", flush=True)
def talk(c):
    try: t = context.wrap_socket(c, server_side=True, suppress_ragged_eofs=False)
    except OSError: return
    t.sendall(b"220 hello\\n")
    try:
        while d := t.recv(1 << 16):
            if d[:1] == b"R": t.sendall(b"cut"); t.shutdown(socket.SHUT_RDWR); t.close(); return
            if d[:1] == b"X": t.setsockopt(1, 13, struct.pack("ii", 1, 0)); t.close(); return
            t.sendall(d.upper())
        t.sendall(b"bye\\n")
        t.unwrap()
    except ssl.SSLError as error: t.sendall(b"cut: " + str(error.reason).encode())
    t.close()
while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
"""


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: Path
    key: Path


def make(folder: Path, stem: str, name: str = NAME, *, expired: bool = False, algorithm: str = "ec") -> Pair:
    """A certificate that signs itself."""
    pair = Pair(folder / f"{stem}.crt", folder / f"{stem}.key")
    kind = "rsa:2048" if algorithm == "rsa" else "ec -pkeyopt ec_paramgen_curve:prime256v1"
    command = f"openssl req -x509 -newkey {kind} -nodes -keyout {pair.key} -out {pair.certificate} -days 30 -subj /CN={stem}"
    subprocess.run([*command.split(), "-addext", f"subjectAltName=DNS:{name}"], check=True, capture_output=True)
    if expired:
        again = f"openssl x509 -in {pair.certificate} -signkey {pair.key} -days -1 -out {pair.certificate}"
        subprocess.run(again.split(), check=True, capture_output=True)
    return pair


@contextlib.contextmanager
def running(staging: Target, argv: list[str], port: int, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the target's network, until it listens and to the end."""
    process = subprocess.Popen(["nsenter", "-t", str(staging.pid), "--net", "--", *argv], stdout=subprocess.DEVNULL)
    try:
        wait_for("the server's start", lambda: process.poll() is not None or _listens(staging, (address, port)))
        assert process.poll() is None, f"{argv[0]} has ended with {process.returncode}"
        yield process
    finally:
        process.kill()
        process.wait()


def _listens(staging: Target, at: tuple[str, int]) -> bool:
    try:
        staging.connect(at).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Secure:
    """A target with servers of TLS: `own` is their certificate, `other` of one more, `client` what some want to see of clients."""

    staging: Target
    folder: Path
    own: Pair
    other: Pair
    client: Pair

    def curl(self, url: str, *args: str) -> str:
        """As a client that trusts the target's own certificate."""
        at = [f"{NAME}:{port}:{SERVICE}" for port in (HTTPS, HTTPS1, MUTUAL, OPTIONAL, OTHERS)]
        resolve = [word for each in at for word in ("--resolve", each)]
        done = self.staging.native(["curl", "-sS", "-m", "10", "--cacert", str(self.own.certificate), *resolve, *args, url])
        return done.out if done.code == 0 else f"{done.code}: {done.err}"


@contextlib.contextmanager
def secure(staging: Target, folder: Path) -> Iterator[Secure]:
    own, other, client = make(folder, "own"), make(folder, "other", "elsewhere.internal"), make(folder, "client")
    (folder / "big").write_bytes(bytes(range(256)) * 4096)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, address=SERVICE, answers=ANSWERS.replace("FOLDER", str(folder))))
    nginx = shutil.which("nginx", path="/usr/sbin:/sbin:/usr/bin:/usr/local/bin")
    assert nginx, "nginx is not installed"
    talker = [sys.executable, "-c", TALKER, str(own.certificate), str(own.key), DEPENDENCY, str(TALK)]
    with (
        running(staging, [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)], HTTPS, SERVICE),
        running(staging, talker, TALK, DEPENDENCY),
    ):
        yield Secure(staging, folder, own, other, client)
