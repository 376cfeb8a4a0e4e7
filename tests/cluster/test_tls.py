"""A service that ends TLS with the certificate of its Secret: the agents read it in the pods, and clients notice nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cluster.plug import session
from tests.cluster.test_traces import agents
from tests.testkit.cluster import Cluster, eventually
from tests.testkit.tls import make

# Tells the path and the client's address; knows nothing of TLS.
PROGRAM = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        print(self.path, self.client_address[0], flush=True)
        self.send_response(200); self.send_header("Content-Length", "6"); self.end_headers(); self.wfile.write(b"local\\n")
    def log_message(self, *a): pass
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
server = http.server.ThreadingHTTPServer(("", 8443), H)
print("listening", flush=True)
server.serve_forever()
"""
FLAGS = ["--steal", "--tls-certificate", "target:/etc/tls", "--tls-delivery", "plain"]


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    pair = make(tmp_path_factory.mktemp("tls"), "tls", "secure")
    cluster.kubectl("create", "secret", "tls", "secure-tls", "-n", namespace, f"--cert={pair.certificate}", f"--key={pair.key}")
    cluster.apply(namespace, "secure")
    eventually("the Service", lambda: set(ask(cluster, namespace)) == {"pod"})
    return namespace


def ask(cluster: Cluster, shop: str, header: str = "") -> list[str]:
    """Who answers six requests through the Service, each on a connection of its own, to a client that verifies the certificate."""
    words = "curl -sS -m 9 --cacert /etc/tls/tls.crt" + (f" -H '{header}'" if header else "") + " https://secure/x || echo failed"
    answers = cluster.kubectl("exec", "-n", shop, "client", "--", "sh", "-c", f"for n in 1 2 3 4 5 6; do {words}; done")
    return [line.split()[0] for line in answers.splitlines()]


def restarts(cluster: Cluster, shop: str) -> list[int]:
    return [pod["status"]["containerStatuses"][0]["restartCount"] for pod in cluster.pods(shop, "app=secure")]


def test_only_what_matches_inside_is_the_program_s(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    argv = ["python3", "-c", PROGRAM]
    with session(cluster, tmp_path, shop, "deployment/secure", argv, *FLAGS, "--http-header-filter", "^x-me: alice$") as one:
        one.prints("listening")
        eventually(f"the local program's answers ({one.said()})", lambda: set(ask(cluster, shop, "X-Me: alice")) == {"local"}, 60)
        assert set(ask(cluster, shop)) == {"pod"}
        (client,) = cluster.pods(shop, "app=client")
        assert f"/x {client['status']['podIP']}" in one.out.read_text()
        assert one.stop() == 128 + signal.SIGTERM
    assert set(ask(cluster, shop, "X-Me: alice")) == {"pod"}
    eventually("the end of the agents", lambda: not agents(cluster, shop), 35)


def test_of_a_port_that_is_taken_whole_the_kubelet_s_probes_are_the_pod_s(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    begun = restarts(cluster, shop)
    with session(cluster, tmp_path, shop, "deployment/secure", ["python3", "-c", PROGRAM], *FLAGS) as one:
        one.prints("listening")
        eventually(f"the local program's answers ({one.said()})", lambda: set(ask(cluster, shop)) == {"local"}, 60)
        for _ in range(8):  # the kubelet has asked meanwhile, each second
            assert set(ask(cluster, shop)) == {"local"}
        assert "/ready" not in one.out.read_text() and "/alive" not in one.out.read_text()
        assert one.stop() == 128 + signal.SIGTERM
    assert restarts(cluster, shop) == begun
