"""The client against a real TLS server: who is trusted, who we are, what is tried again, and what is said when it fails."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.testkit.apiserver import Certificates, Request, Server, serving

from sidestage.cluster import dial
from sidestage.cluster.api import GUID, Api, ApiError, ClusterError, path_of
from sidestage.cluster.kubeconfig import Access, Cluster


def ok(request: Request) -> object:
    request.answer(200, {"path": request.target})
    return None


made: list[Api] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while made:
        made.pop().close()


def api(server: Server, certs: Certificates, user: dict[str, Any] | None = None, **cluster: Any) -> Api:
    if not cluster.keys() & {"ca_data", "insecure"}:
        cluster.setdefault("ca_file", certs["ca.crt"])
    made.append(Api(Access("dev", "ns", Cluster(cluster.pop("url", server.url), **cluster), user or {})))
    return made[-1]


def read(certs: Certificates, name: str) -> bytes:
    return Path(certs[name]).read_bytes()


# --- trust


@pytest.mark.parametrize("how", ["ca_file", "ca_data", "insecure", "name"])
def test_a_server_that_is_trusted(how: str, certs: Certificates) -> None:
    ways: dict[str, dict[str, Any]] = {
        "ca_file": {"ca_file": certs["ca.crt"]}, "ca_data": {"ca_data": read(certs, "ca.crt")},
        "insecure": {"insecure": True}, "name": {"tls_server_name": "api.example"},
    }  # fmt: skip
    with serving(ok, certs) as server:
        assert api(server, certs, **ways[how]).request("GET", "/x") == {"path": "/x"}


@pytest.mark.parametrize(
    "cluster, said",
    [
        ({"ca_file": ""}, "not to be trusted"), ({"tls_server_name": "other.example"}, "not to be trusted"),
        ({"ca_file": "/nowhere"}, "/nowhere"), ({"ca_data": b"x"}, "certificate-authority-data"),
    ],
)  # fmt: skip
def test_a_server_that_is_not_trusted(cluster: dict[str, Any], said: str, certs: Certificates) -> None:
    with serving(ok, certs) as server, pytest.raises(ClusterError) as caught:
        api(server, certs, **cluster).request("GET", "/x")
    assert said in caught.value.cause
    assert "kubeconfig" in caught.value.cure
    assert server.requests == []


@pytest.mark.parametrize("where", ["files", "data"])
def test_a_client_certificate_is_shown(where: str, certs: Certificates) -> None:
    user = {f"client-{kind}": certs[f"client.{end}"] for kind, end in (("certificate", "crt"), ("key", "key"))}
    if where == "data":
        user = {f"{key}-data": base64.b64encode(Path(path).read_bytes()).decode() for key, path in user.items()}
    with serving(ok, certs, client_ca=True) as server:
        open_before = len(os.listdir("/proc/self/fd"))
        with ExitStack() as stack:
            client = api(server, certs, user)
            stack.callback(client.close)
            client.request("GET", "/x")
            peer = server.requests[0].peer
    assert peer is not None
    assert peer["subject"] == ((("commonName", "client"),), (("organizationName", "devs"),))
    assert len(os.listdir("/proc/self/fd")) <= open_before, "the key's memory files are closed"


def test_a_client_certificate_without_its_key(certs: Certificates) -> None:
    user = {"client-certificate": certs["client.crt"], "client-key": certs["server.key"]}
    with serving(ok, certs) as server, pytest.raises(ClusterError, match="client certificate"):
        api(server, certs, user).request("GET", "/x")


# --- requests


def test_what_is_sent_and_answered(certs: Certificates) -> None:
    with serving(ok, certs) as server:
        client = api(server, certs, {"token": "t", "as": "jane", "as-groups": ["a", "b"]}, url=f"{server.url}/k8s/c-1/")
        path = path_of("api", "v1", "a b/c")
        assert client.request("POST", path, query={"dryRun": "All", "l": "a=b,c"}, body={"x": 1}) == {
            "path": "/k8s/c-1/api/v1/a%20b%2Fc?dryRun=All&l=a%3Db%2Cc"
        }
        (request,) = server.requests
        assert json.loads(request.body) == {"x": 1}
        assert request.headers["authorization"] == "Bearer t"
        assert request.headers["impersonate-group"] == "a, b"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["host"] == f"127.0.0.1:{server.port}"


def test_plain_http_and_text(certs: Certificates) -> None:
    with serving(lambda request: request.answer(200, b"ok", "Content-Type: text/plain"), None) as server:
        assert api(server, certs).request("GET", "/healthz") == "ok"


def test_one_connection_serves_many_requests_and_is_replaced_when_it_went_stale(certs: Certificates) -> None:
    with serving(ok, certs) as server:
        client = api(server, certs)
        for _ in range(3):
            client.request("GET", "/x")
        assert server.connections == 1
        server.requests[-1].sock.shutdown(socket.SHUT_RDWR)
        assert client.request("POST", "/x", body={}) == {"path": "/x"}
        assert server.connections == 2


def test_a_connection_that_dies_under_a_request_is_tried_again_where_that_is_harmless(certs: Certificates) -> None:
    def second_dies(request: Request) -> object:
        if len(server.requests) in (2, 5):
            return False
        return ok(request)

    with serving(second_dies, certs) as server:
        client = api(server, certs)
        client.request("GET", "/1")
        assert client.request("GET", "/2") == {"path": "/2"}
        client.request("GET", "/4")
        with pytest.raises(ClusterError, match="can't reach"):
            client.request("POST", "/5", body={})
        assert [request.target for request in server.requests] == ["/1", "/2", "/2", "/4", "/5"]


@pytest.mark.parametrize(
    "status, body, said, cure",
    [
        (403, {"kind": "Status", "reason": "Forbidden", "message": "no pods"}, "no pods", "Role"),
        (404, {"kind": "Status", "reason": "NotFound", "message": "gone"}, "gone", "sidestage ls"),
        (502, b"<html>Bad Gateway</html>", "502", "try again"),
        (418, b"teapot", "teapot", "--debug"),
        (401, None, "401", "log in"),
    ],
)
def test_refusals(status: int, body: Any, said: str, cure: str, certs: Certificates) -> None:
    with serving(lambda request: request.answer(status, body), certs) as server, pytest.raises(ApiError) as caught:
        api(server, certs, {"token": "t"}).request("GET", "/x")
    assert caught.value.status == status
    assert said in caught.value.message
    assert cure in caught.value.cure
    assert len(server.requests) == 1


def test_credentials_are_renewed_once_after_a_401(certs: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    def check(request: Request) -> None:
        if request.headers["authorization"] == "Bearer new":
            ok(request)
        else:
            file.write_text("new")
            request.refuse(401, "Unauthorized")

    with serving(check, certs) as server:
        client = api(server, certs, {"tokenFile": str(file)})
        assert client.request("GET", "/x") == {"path": "/x"}
        assert len(server.requests) == 2
        file.write_text("bad")
    with serving(lambda request: request.refuse(401, "no"), certs) as server, pytest.raises(ApiError, match="no"):
        api(server, certs, {"tokenFile": str(file)}).request("GET", "/x")
    assert len(server.requests) == 1, "the file still holds what was refused"


def test_overload_is_waited_out(certs: Certificates) -> None:
    def busy(request: Request) -> None:
        if len(server.requests) < 3:
            request.refuse(429, "too many", "Retry-After: 0")
        else:
            ok(request)

    with serving(busy, certs) as server:
        assert api(server, certs).request("GET", "/x") == {"path": "/x"}
    with serving(lambda request: request.refuse(503, "down", "Retry-After: 0"), certs) as server, pytest.raises(ApiError):
        api(server, certs).request("GET", "/x")
    assert len(server.requests) == 4


def test_warnings_are_kept(certs: Certificates) -> None:
    def warn(request: Request) -> None:
        request.answer(200, {}, 'Warning: 299 - "a \\"b\\""', 'Warning: 299 k8s "c, d"')

    with serving(warn, certs) as server:
        client = api(server, certs)
        client.request("GET", "/x")
    assert client.warnings == ['a "b"', "c, d"]


@pytest.mark.parametrize("server", ["https://127.0.0.1:1", "https://no-such-host.invalid", "https://[::1]:1"])
def test_a_server_that_is_not_there(server: str, certs: Certificates) -> None:
    with pytest.raises(ClusterError) as caught:
        api(Server(), certs, url=server).request("GET", "/x")
    assert server.removeprefix("https://") in caught.value.cause
    assert "'dev'" in caught.value.cause
    assert "VPN" in caught.value.cure


@pytest.mark.parametrize("server", ["ftp://x", "https://", "https://x:port"])
def test_a_server_that_is_no_url(server: str, certs: Certificates) -> None:
    with pytest.raises(ClusterError, match="URL"):
        api(Server(), certs, url=server)


def test_no_tls_where_tls_is_expected(certs: Certificates) -> None:
    with serving(ok, None) as server, pytest.raises(ClusterError, match="TLS"):
        api(server, certs, url=server.url.replace("http:", "https:")).request("GET", "/x")


def test_silence_times_out(certs: Certificates) -> None:
    done = threading.Event()
    with serving(lambda request: done.wait(30), certs) as server, pytest.raises(ClusterError, match="timed out"):
        api(server, certs).request("GET", "/x", timeout=0.3)
    done.set()


# --- watches


def test_a_watch(certs: Certificates) -> None:
    def events(request: Request) -> bool:
        lines = [json.dumps({"type": "ADDED", "object": {"n": n}}).encode() + b"\n" for n in range(3)]
        data = b"".join(lines)
        pieces = [data[:10], data[10:45], data[45:]]  # cut anywhere
        request.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            request.sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            time.sleep(0.02)
        request.sock.sendall(b"0\r\n\r\n")
        return True

    with serving(events, certs) as server:
        client = api(server, certs)
        got = list(client.watch("/api/v1/pods", query={"resourceVersion": "7"}, timeout=10))
        assert [event["object"]["n"] for event in got] == [0, 1, 2]
        assert server.requests[0].target == "/api/v1/pods?resourceVersion=7&watch=true&timeoutSeconds=11"


def test_a_watch_ends_at_its_time_out_and_closes_its_connection(certs: Certificates) -> None:
    closed = threading.Event()

    def first_only(request: Request) -> bool:
        request.sock.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{"type": "BOOKMARK"}\r\n2\r\n\n{\r\n')
        request.sock.settimeout(20)
        if request.sock.recv(1) == b"":
            closed.set()
        return False

    with serving(first_only, certs) as server:
        assert list(api(server, certs).watch("/x", timeout=1)) == [{"type": "BOOKMARK"}]
        assert closed.wait(20)


def test_a_watch_that_is_too_old_says_so(certs: Certificates) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    line = json.dumps(gone).encode() + b"\n"
    with serving(lambda request: request.answer(200, line), certs) as server, pytest.raises(ApiError) as caught:
        list(api(server, certs).watch("/x", timeout=5))
    assert caught.value.status == 410


# --- upgrades


def accept_key(request: Request) -> str:
    key = request.headers["sec-websocket-key"].encode()
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()


def test_an_upgrade(certs: Certificates) -> None:
    def echo(request: Request) -> bool:
        assert request.headers["sec-websocket-protocol"] == "v5.channel.k8s.io, v4.channel.k8s.io"
        assert request.headers["authorization"] == "Bearer t"
        head = [
            "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(request)}", "Sec-WebSocket-Protocol: v4.channel.k8s.io",
        ]  # fmt: skip
        request.sock.sendall("\r\n".join(head).encode() + b"\r\n\r\nearly")
        request.sock.sendall(request.sock.recv(100))
        return False

    with serving(echo, certs) as server:
        client = api(server, certs, {"token": "t"})
        found = client.upgrade(
            "/exec", [("command", "a"), ("command", "b c")], ("v5.channel.k8s.io", "v4.channel.k8s.io")
        )  # fmt: skip
        assert server.requests[0].target == "/exec?command=a&command=b+c"
        assert found.protocol == "v4.channel.k8s.io"
        assert found.sock.gettimeout() is None
        found.sock.sendall(b"late")
        got = found.leftover
        while len(got) < 9:
            got += found.sock.recv(100)
        assert got == b"earlylate"
        found.sock.close()


def test_an_upgrade_that_is_refused_has_the_status(certs: Certificates) -> None:
    with serving(lambda request: request.refuse(403, "no exec"), certs) as server, pytest.raises(ApiError) as caught:
        api(server, certs).upgrade("/exec", [], ("v5.channel.k8s.io",))
    assert (caught.value.status, caught.value.message) == (403, "no exec")


@pytest.mark.parametrize("wrong", ["200", "accept", "protocol"])
def test_an_upgrade_that_is_none(wrong: str, certs: Certificates) -> None:
    def answer(request: Request) -> None:
        accept = "x" if wrong == "accept" else accept_key(request)
        protocol = "v1" if wrong == "protocol" else "v5.channel.k8s.io"
        request.answer(
            200 if wrong == "200" else 101, None, f"Sec-WebSocket-Accept: {accept}", f"Sec-WebSocket-Protocol: {protocol}"
        )

    with serving(answer, certs) as server, pytest.raises(ClusterError, match="no WebSocket"):
        api(server, certs).upgrade("/exec", [], ("v5.channel.k8s.io",))


# --- proxies


@contextmanager
def proxy(handshake: Callable[[socket.socket], tuple[str, int] | None], certs: Certificates | None = None) -> Iterator[Server]:
    """A proxy that, after its handshake, passes bytes both ways."""
    import ssl

    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1], tls=certs is not None)
    context = None
    if certs:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certs["server.crt"], certs["server.key"])

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve() -> None:
        with listener:
            try:
                sock, _ = listener.accept()
                if context:
                    sock = context.wrap_socket(sock, server_side=True)
            except OSError:
                return
            with sock:
                to = handshake(sock)
                if to is None:
                    return
                server.connections += 1
                with socket.create_connection(to) as onward:
                    thread = threading.Thread(target=pump, args=(onward, sock))
                    thread.start()
                    pump(sock, onward)
                    thread.join(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        thread.join(20)


def http_connect(login: str = "") -> Callable[[socket.socket], tuple[str, int] | None]:
    def handshake(sock: socket.socket) -> tuple[str, int] | None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1000)
        if login and f"Proxy-Authorization: Basic {login}".encode() not in head:
            sock.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            return None
        verb, target, _ = head.split(b" ", 2)
        assert verb == b"CONNECT"
        host, _, port = target.decode().rpartition(":")
        sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        return host, int(port)

    return handshake


def socks(password: str = "", answer: int = 0) -> Callable[[socket.socket], tuple[str, int] | None]:
    def handshake(sock: socket.socket) -> tuple[str, int] | None:
        methods = sock.recv(2)[1]
        offered = sock.recv(methods)
        if password:
            assert 2 in offered
            sock.sendall(b"\x05\x02")
            got = sock.recv(100)
            right = got == b"\x01\x01u" + bytes([len(password)]) + password.encode()
            sock.sendall(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return None
        else:
            sock.sendall(b"\x05\x00")
        request = sock.recv(300)
        assert request[:4] == b"\x05\x01\x00\x03"
        size = request[4]
        host, port = request[5 : 5 + size].decode(), int.from_bytes(request[5 + size : 7 + size], "big")
        sock.sendall(bytes([5, answer, 0, 1]) + bytes(6))
        return None if answer else (host, port)

    return handshake


BASIC = base64.b64encode(b"u:p w").decode()


@pytest.mark.parametrize(
    "handshake, form",
    [
        (http_connect(), "http://127.0.0.1:{}"), (http_connect(BASIC), "http://u:p%20w@127.0.0.1:{}"),
        (socks(), "socks5://127.0.0.1:{}"), (socks("p w"), "socks5://u:p%20w@127.0.0.1:{}"), (socks(), "socks5h://127.0.0.1:{}"),
    ],
)  # fmt: skip
def test_through_a_proxy(handshake: Any, form: str, certs: Certificates) -> None:
    with serving(ok, certs) as server, proxy(handshake) as middle:
        client = api(server, certs, proxy_url=form.format(middle.port))
        assert client.request("GET", "/x") == {"path": "/x"}
        assert client.request("GET", "/y") == {"path": "/y"}
        assert middle.connections == 1
        client.close()


def test_through_a_proxy_that_speaks_tls_itself(certs: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways at once, more than any buffer holds."""
    monkeypatch.setenv("SSL_CERT_FILE", certs["ca.crt"])
    big = "x" * (4 << 20)

    def mirror(request: Request) -> None:
        request.answer(200, {"size": len(request.body), "data": big})

    with serving(mirror, certs) as server, proxy(http_connect(), certs) as middle:
        client = api(server, certs, proxy_url=f"https://127.0.0.1:{middle.port}")
        answer = client.request("POST", "/x", body={"data": big})
        assert answer == {"size": len(big) + 12, "data": big}
        assert middle.connections == 1
        client.close()


@pytest.mark.parametrize(
    "handshake, form, said",
    [
        (http_connect(BASIC), "http://127.0.0.1:{}", "407"), (socks("right"), "socks5://u:wrong@127.0.0.1:{}", "password"),
        (socks(answer=5), "socks5://127.0.0.1:{}", "connection refused"), (socks(answer=99), "socks5://127.0.0.1:{}", "error 99"),
        (lambda sock: None, "socks5://127.0.0.1:{}", "closed|reset"), (lambda sock: None, "http://127.0.0.1:{}", "closed|reset"),
    ],
)  # fmt: skip
def test_a_proxy_that_refuses_is_named(handshake: Any, form: str, said: str, certs: Certificates) -> None:
    with serving(ok, certs) as server, proxy(handshake) as middle, pytest.raises(ClusterError) as caught:
        api(server, certs, proxy_url=form.format(middle.port)).request("GET", "/x")
    assert re.search(said, caught.value.cause) and f"127.0.0.1:{middle.port}" in caught.value.cause
    assert "proxy" in caught.value.cure.lower() or "CONNECT" in caught.value.cure
    assert server.requests == []


def test_a_proxy_that_is_not_there(certs: Certificates) -> None:
    with pytest.raises(ClusterError, match=r"proxy 127\.0\.0\.1:1"):
        api(Server(1), certs, proxy_url="http://127.0.0.1:1").request("GET", "/x")
    with pytest.raises(ClusterError, match="proxy-url"):
        api(Server(1), certs, proxy_url="ftp://127.0.0.1:1")


@pytest.mark.parametrize(
    "server, environ, proxied",
    [
        ("https://a.example", {"HTTPS_PROXY": "p:3128"}, True),
        ("https://a.example", {"https_proxy": "http://p:3128"}, True),
        ("http://a.example", {"HTTPS_PROXY": "p:3128"}, False),
        ("https://a.example", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "b.example, .example"}, False),
        ("https://a.example", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "a.example:444"}, True),
        ("https://a.example", {"HTTPS_PROXY": "p:3128", "no_proxy": "a.example:443"}, False),
        ("https://a.example", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "*.a.example"}, True),
        ("https://a.example", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "*"}, False),
        ("https://ba.example", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "a.example"}, True),
        ("https://10.1.2.3:6443", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "10.0.0.0/8"}, False),
        ("https://10.1.2.3:6443", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "10.1.2.4"}, True),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": "p:3128", "NO_PROXY": "fd00::/8"}, False),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "p:3128"}, False),
        ("https://localhost:6443", {"HTTPS_PROXY": "p:3128"}, False),
    ],
)
def test_proxies_of_the_environment(server: str, environ: dict[str, str], proxied: bool) -> None:
    found = dial.proxy_for(dial.url(server, ("https", "http"), "server"), "", environ)
    assert (found is not None) is proxied
    assert found is None or (found.host, found.port) == ("p", 3128)
