"""A container of docker in a bridged network: beside its neighbours, with published ports, and plugged into the target."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exec.test_boxed import PYTHON, TERMINABLE, line, running
from tests.exec.test_steal import HTTP
from tests.testkit import build
from tests.testkit.box import Boxed, docked
from tests.testkit.dockerd import Daemon, daemon
from tests.testkit.mirror import mirrored
from tests.testkit.target import CLIENT, DEPENDENCY, SERVICE, Target, wait_for

pytestmark = build.first_engines
BOTH = f"""
import socket, urllib.request
print(urllib.request.urlopen("http://neighbour/name", timeout=10).read().decode())
tcp = socket.create_connection(("db.staging.internal", 7000), 10)
peer = tcp.getpeername()[0]; tcp.sendall(b"over tcp"); tcp.shutdown(1)
print(tcp.recv(100).decode(), peer == "{DEPENDENCY}", open("/srv/config.txt").read().strip())
try: socket.getaddrinfo("nobody-here", 80); print("found")
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
"""
PUBLISHED = TERMINABLE + """
import http.server, threading
server = http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever).start(); print("up", flush=True)
"""


@pytest.fixture(scope="module")
def docker() -> Iterator[Daemon]:
    with daemon(bridged=True) as found:
        yield found


@pytest.fixture
def box(staging: Target, docker: Daemon) -> Boxed:
    return docked(staging, docker)


@pytest.fixture
def network(docker: Daemon) -> Iterator[str]:
    """With a neighbour in it, who says what it is asked for."""
    name = f"sidestage{os.getpid()}"
    docker.run(["network", "create", name])
    script = "import os, http.server; os.makedirs('/pages'); open('/pages/name', 'w').write('neighbour'); os.chdir('/pages')\n"
    script += "http.server.test(http.server.SimpleHTTPRequestHandler, port=80)"
    options = ["--network", name, "--network-alias", "neighbour", *docker.here, docker.image]
    neighbour = docker.run(["run", "-d", "--rm", *options, PYTHON, "-c", script]).strip()
    with contextlib.ExitStack() as stack:
        stack.callback(docker.run, ["network", "rm", name])
        stack.callback(docker.run, ["kill", neighbour])
        ask = ["exec", neighbour, PYTHON, "-c", "import socket; socket.create_connection(('localhost', 80))"]
        wait_for("the neighbour", lambda: not subprocess.run([*docker.docker, *ask], capture_output=True, check=False).returncode)
        yield name


def test_neighbours_by_name(box: Boxed, network: str, tmp_path: Path) -> None:
    """Whose names and connections stay local as the filters say; docker's own nameserver knows them."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"feature": {"network": {"outgoing": {"filter": {"local": ["neighbour"]}}}}}))
    done = dataclasses.replace(box, options=("--network", network)).plugged([PYTHON, "-c", BOTH], 60, ["-f", str(settings)])
    assert done.out.splitlines() == ["neighbour", "over tcp True remote data", "True"], done.err


def test_published_ports_and_what_comes_to_the_target(box: Boxed, docker: Daemon, network: str, tmp_path: Path) -> None:
    bridged = dataclasses.replace(box, options=("--network", network, "-p", "9000:8000"))
    with running(bridged, [PYTHON, "-c", PUBLISHED]) as process:
        assert line(process) == "up"
        asked = subprocess.run(
            [*docker.before, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://10.213.0.1:9000/"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert asked.stdout == "200"
    server = build.go("server.go", cgo=False)
    mirrored(bridged, ["/bin/sh", "-c", f"trap 'exit 0' TERM; {server} tcp4 :8080 & wait"], tmp_path / "out")
    with running(bridged, [PYTHON, "-c", TERMINABLE + HTTP], ["--steal"]):
        wait_for("the steal", lambda: box.client(f"http://{SERVICE}:8080/x").out.startswith("local"))
        assert box.client(f"http://{SERVICE}:8080/y").out == f"local /y ::ffff:{CLIENT} ::ffff:{CLIENT}\n"
