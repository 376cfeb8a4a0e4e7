"""TLS that ends in the agent: whose a request is, is decided inside, and clients and target notice nothing."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.testkit.session import Laptop, laptop
from tests.testkit.target import DEPENDENCY, SERVICE, Target, wait_for
from tests.testkit.tls import HTTPS, HTTPS1, MUTUAL, NAME, OPTIONAL, OTHERS, TALK, Pair, Secure, make, running, secure

MINE = {"header": "^x-me: alice$"}
ME = ("-H", "X-Me: alice")


@pytest.fixture(scope="module")
def tls(made: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with secure(made, tmp_path_factory.mktemp("tls")) as there:
        yield there


def given(pair: Pair, **more: Any) -> dict[str, Any]:
    """As a laptop gives it."""
    return {"certificate": {"pem": pair.certificate.read_text()}, "key": {"pem": pair.key.read_text()}, **more}


def heard(there: Laptop) -> list[str]:
    """What the agent has told its user."""
    found = []
    while not there.events.empty():
        found.append(str(there.events.get()[1].get("text")))
    return found


URL = f"https://{NAME}:{HTTPS}"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_filter_decides_inside(staging: Target, tls: Secure, program: tuple[str, int], version: str) -> None:
    spoken = {"--http1.1": "HTTP/1.1", "--http2": "HTTP/2.0"}[version]
    native = tls.curl(f"{URL}/1", version)
    assert native == f"staging /1 {spoken} TLSv1.3 {NAME} \n"
    with laptop(staging, program) as there:
        assert there.steal(HTTPS, MINE, tls=given(tls.own)) == (0, {})
        assert tls.curl(f"{URL}/1", version) == native
        if version == "--http1.1":
            assert tls.curl(f"{URL}/2", version, *ME) == "local /2\n"
            assert there.taken[-1]["tls"] == {"name": NAME, "protocol": "http/1.1"}
        assert not heard(there)


@pytest.mark.parametrize("port", [MUTUAL, OPTIONAL])
def test_who_asks_for_clients_certificates_gets_them(
    staging: Target, tls: Secure, program: tuple[str, int], port: int
) -> None:
    """With TLS 1.3 and 1.2. Nobody but the client has its key, so the connection is the target's, matching or not."""
    mine = ["--cert", str(tls.client.certificate), "--key", str(tls.client.key), *ME]
    native = tls.curl(f"https://{NAME}:{port}/1", *mine)
    assert native.endswith("CN=client\n")
    with laptop(staging, program) as there:
        assert there.steal(port, MINE, tls=given(tls.own)) == (0, {})
        assert tls.curl(f"https://{NAME}:{port}/1", *mine) == native
        assert not there.taken
        assert "asks for a certificate of the client" in heard(there)[0]


def test_for_other_names_the_target_s_certificate_is_shown(staging: Target, tls: Secure, program: tuple[str, int]) -> None:
    trusted = ["--cacert", str(tls.other.certificate), "--resolve", f"elsewhere.internal:{OTHERS}:{SERVICE}", *ME]
    with laptop(staging, program) as there:
        assert there.steal(OTHERS, MINE, tls=given(tls.own)) == (0, {})
        assert tls.curl(f"https://elsewhere.internal:{OTHERS}/1", *trusted).startswith("staging /1")
        (told,) = heard(there)
        assert "the certificate isn't the one that the target shows for the name elsewhere.internal: such" in told
        # The name that ours is for, though the target shows another: as with one that was renewed, or one for developers.
        assert tls.curl(f"https://{NAME}:{OTHERS}/2", *ME) == "local /2\n"
        # By an address nobody names a server; the target shows the other one.
        assert tls.curl(f"https://{SERVICE}:{OTHERS}/3", "-k", *ME).startswith("staging /3")


def test_a_client_that_does_not_trust_it(staging: Target, tls: Secure, program: tuple[str, int]) -> None:
    with laptop(staging, program) as there:
        assert there.steal(HTTPS, MINE, tls=given(tls.own)) == (0, {})
        assert tls.curl(f"{URL}/", "--cacert", str(tls.other.certificate)).startswith("60: ")
        assert tls.curl(f"{URL}/2", "--http1.1", *ME) == "local /2\n"
        assert "a client's TLS handshake failed: " in heard(there)[0]


def raw(staging: Target, data: bytes, step: int = 0, port: int = HTTPS1) -> bytes:
    """What the target answers to these bytes, sent in such pieces."""
    with staging.connect((SERVICE, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step or len(data)):
            sock.sendall(data[at : at + (step or len(data))])
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_what_is_no_tls_is_the_target_s(staging: Target, tls: Secure, program: tuple[str, int]) -> None:
    hello = Client(tls, "", 0).first
    old = hello[:9] + b"\3\1" + hello[11:43] + b"\0\0\2\0\x2f\1\0"  # of TLS 1.0, with one cipher and no extensions
    old = old[:3] + (len(old) - 5).to_bytes(2, "big") + b"\1" + (len(old) - 9).to_bytes(3, "big") + old[9:]
    awkward = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\3\1\xff\xff\1", b"\x16\3\1\0\0", b"\x80\x2e\1\0\2", hello[:80], old]
    native = [raw(staging, data) for data in awkward]
    assert b"400 The plain HTTP request" in native[0] and native[5][:2] == b"\x15\3"
    with laptop(staging, program) as there:
        assert there.steal(HTTPS1, MINE, tls=given(tls.own)) == (0, {})
        for step in (0, 1):
            answers = [raw(staging, data, step) for data in awkward]
            assert [answer.partition(b"Date")[0] for answer in answers] == [answer.partition(b"Date")[0] for answer in native]
        assert not there.taken
        told = heard(there)
        assert any("aren't TLS" in text for text in told) and any("know no TLS 1.2" in text for text in told)


class Client:
    """One of TLS whose bytes may be cut as one likes."""

    def __init__(self, tls: Secure, name: str = NAME, port: int = HTTPS1, alpn: str = "", address: str = SERVICE) -> None:
        context = ssl.create_default_context(cafile=str(tls.own.certificate))
        context.check_hostname = bool(name)
        if alpn:
            context.set_alpn_protocols([alpn])
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name or None)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.first = self._out.read()
        self.sock = tls.staging.connect((address, port)) if port else None

    def go(self, what: Any) -> Any:
        """`what()`, with all that must be sent and received for it."""
        assert self.sock
        while True:
            try:
                done = what()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                data = self.sock.recv(65536)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
            else:
                self.sock.sendall(self._out.read())
                return done

    def hands(self) -> Client:
        assert self.sock
        self.sock.sendall(self.first)
        self.go(self.tls.do_handshake)
        return self

    def say(self, data: bytes) -> Client:
        self.go(lambda: self.tls.write(data))
        return self

    def hear(self, count: int = 65536) -> bytes:
        """b"" at an end that was said; raises ssl.SSLEOFError at one that wasn't."""
        try:
            found: bytes = self.go(lambda: self.tls.read(count))
        except ssl.SSLZeroReturnError:  # we had said ours before
            return b""
        return found

    def end(self) -> Client:
        """Nothing more from us; the other may go on."""
        assert self.sock
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.sock.sendall(self._out.read())
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        assert self.sock
        self.sock.close()


@pytest.mark.parametrize("size", [1, 40, 300])
def test_a_first_message_may_be_in_pieces(staging: Target, tls: Secure, program: tuple[str, int], size: int) -> None:
    """In small segments, and in several records."""
    with laptop(staging, program) as there:
        assert there.steal(HTTPS1, MINE, tls=given(tls.own)) == (0, {})
        with Client(tls) as client:
            assert client.sock
            message = client.first[5:]
            for at in range(0, len(message), size):
                part = message[at : at + size]
                client.sock.sendall(b"\x16\3\1" + len(part).to_bytes(2, "big") + part)
            client.go(client.tls.do_handshake)
            client.say(b"GET /1 HTTP/1.1\r\nHost: x\r\nX-Me: alice\r\n\r\n")
            assert client.hear().endswith(b"local /1\n") or client.hear() == b"local /1\n"


def talk(tls: Secure, port: int = TALK) -> list[object]:
    """What a client is told by one who speaks first, and how it ends, in several ways."""
    found: list[object] = []
    for end in (b"", b"R", b"X"):
        with Client(tls, port=port, address=DEPENDENCY).hands() as client:
            found.append(client.hear())
            client.say(b"some words")
            found.append(client.hear())
            try:
                if end:
                    client.say(end)
                else:
                    client.end()
                while data := client.hear():
                    found.append(data)
                found.append("end")
            except (OSError, ssl.SSLError) as error:
                found.append(type(error).__name__)
    return found


def test_what_is_said_first_and_how_it_ends(staging: Target, tls: Secure, program: tuple[str, int]) -> None:
    """Half-close, an end without the word of TLS, and a reset, of the target's program: all as if nobody stood between."""
    native = talk(tls)
    assert native[:4] == [b"220 hello\n", b"SOME WORDS", b"bye\n", "end"]
    assert native[6:8] == [b"cut", "SSLEOFError"] and native[-1] == "ConnectionResetError"
    with laptop(staging, program) as there:
        assert there.steal(TALK, MINE, tls=given(tls.own)) == (0, {})
        assert talk(tls) == native
        assert not there.taken and not heard(there)


@contextlib.contextmanager
def talker() -> Iterator[tuple[str, int]]:
    """A local program that speaks first, in plain."""
    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"220 local\n")
            while data := sock.recv(65536):
                sock.sendall(data.upper())
            sock.sendall(b"bye\n")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield ("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("port", [TALK, 9999])
def test_a_port_that_is_taken_whole(staging: Target, tls: Secure, port: int) -> None:
    """Whether the target's own program is there or not."""
    with talker() as at, laptop(staging, at) as there:
        assert there.steal(port, tls=given(tls.own)) == (0, {})
        with Client(tls, port=port, address=DEPENDENCY).hands() as client:
            assert client.hear() == b"220 local\n"
            data = bytes(range(97, 123)) * 20_000
            client.say(data)
            got = b""
            while len(got) < len(data):
                got += client.hear()
            assert got == data.upper()
            client.end()
            assert client.hear() == b"bye\n" and client.hear() == b""


@pytest.mark.parametrize("spec", [MINE, None], ids=["filtered", "whole"])
def test_a_target_that_stands_still_holds_up_only_its_own(
    staging: Target, tls: Secure, program: tuple[str, int], spec: dict[str, str] | None
) -> None:
    """As one that is stopped, or at a breakpoint: its kernel goes on to accept."""
    port = 8460
    argv = f"openssl s_server -accept {SERVICE}:{port} -cert {tls.own.certificate} -key {tls.own.key} -www".split()
    url = f"https://{NAME}:{port}/1"
    resolve = ["--resolve", f"{NAME}:{port}:{SERVICE}"]
    with running(staging, argv, port, SERVICE) as server, laptop(staging, program) as there:
        assert there.steal(port, spec, tls=given(tls.own)) == (0, {})
        server.send_signal(signal.SIGSTOP)
        try:
            assert tls.curl(url, *resolve, *ME) == "local /1\n"
            assert any("doesn't answer a TLS handshake" in told for told in heard(there))
        finally:
            server.send_signal(signal.SIGCONT)


def test_while_the_program_is_down_an_error_comes_within_tls(staging: Target, tls: Secure) -> None:
    with laptop(staging, None) as there:
        assert there.steal(HTTPS1, tls=given(tls.own), down="502") == (0, {})
        assert "the local program that took this port is down" in tls.curl(f"https://{NAME}:{HTTPS1}/")
        assert there.call("unsteal", port=HTTPS1)[0] == 0
        assert there.steal(HTTPS1, tls=given(tls.own)) == (0, {})
        assert tls.curl(f"https://{NAME}:{HTTPS1}/1").startswith("staging /1 HTTP/1.1")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_own_client(staging: Target, tls: Secure, program: tuple[str, int], version: str) -> None:
    argv = f"openssl s_client -quiet -verify_return_error -CAfile {tls.own.certificate} -servername {NAME} {version}"
    asked = "GET /1 HTTP/1.1\\r\\nHost: x\\r\\nX-Me: alice\\r\\n\\r\\n"
    asked += "GET /2 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n"
    code = f"(printf '{asked}'; sleep 2) | {argv} -connect {SERVICE}:{HTTPS1} 2>/dev/null"
    with laptop(staging, program) as there:
        assert there.steal(HTTPS1, MINE, tls=given(tls.own)) == (0, {})
        answer = staging.native(["sh", "-c", code]).out
        assert "local /1\n" in answer and f"staging /2 HTTP/1.1 TLSv1.3 {NAME}" in answer


def test_a_large_file(staging: Target, tls: Secure, program: tuple[str, int], tmp_path: Path) -> None:
    with laptop(staging, program) as there:
        assert there.steal(HTTPS, MINE, tls=given(tls.own)) == (0, {})
        for version in ("--http1.1", "--http2"):
            assert tls.curl(f"{URL}/big", version, "-o", str(tmp_path / "big")) == ""
            assert (tmp_path / "big").read_bytes() == (tls.folder / "big").read_bytes()


# -- certificates --

WRONG = {
    "mismatch": "the key is not the certificate's",
    "encrypted": "the key is encrypted; write a plain one",
    "no key": "holds no private key in PEM",
    "no certificate": "holds no certificate in PEM",
    "nowhere": "can't be read in the target: no such file or directory; name another",
    "a folder": "can't be read in the target: is a directory",
    "too long": "can't be read in the target: file too large",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_certificate_that_can_t_be_used_is_refused(staging: Target, tls: Secure, tmp_path: Path, wrong: str) -> None:
    spec = given(tls.own)
    empty, long = tmp_path / "empty", tmp_path / "long"
    empty.mkdir()
    long.write_bytes(b"-" * 200_000)
    locked = tls.staging.native(["openssl", "pkey", "-in", str(tls.own.key), "-aes256", "-passout", "pass:x"]).out
    spec |= {
        "mismatch": {"key": {"pem": tls.other.key.read_text()}},
        "encrypted": {"key": {"pem": locked}},
        "no key": {"key": {"pem": ""}},
        "no certificate": {"certificate": {"pem": "-----BEGIN CERTIFICATE-----\nx"}},
        "nowhere": {"certificate": {"path": "/nowhere/tls.crt"}},
        "a folder": {"certificate": {"path": str(empty)}, "key": {"path": str(empty)}},
        "too long": {"certificate": {"path": str(long)}},
    }[wrong]
    with laptop(staging, None) as there:
        code, answer = there.steal(HTTPS, tls=spec)
        assert code == 22 and WRONG[wrong] in answer["text"]
        assert "sidestage" not in staging.rules()


def test_one_that_has_expired_is_used_and_told(staging: Target, tls: Secure, program: tuple[str, int], tmp_path: Path) -> None:
    old = make(tmp_path, "old", expired=True)
    with laptop(staging, program) as there:
        assert there.steal(HTTPS, MINE, tls=given(old)) == (0, {})
        assert heard(there) == [f"the certificate of port {HTTPS} has expired"]
        assert tls.curl(f"{URL}/1", "-k", "--http1.1", *ME) == "local /1\n"


def shown(tls: Secure) -> bytes:
    with Client(tls).hands() as client:
        found = client.tls.getpeercert(True)
        assert found
        return found


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def test_files_of_the_target_are_read_again_when_they_change(
    staging: Target, tls: Secure, program: tuple[str, int], tmp_path: Path
) -> None:
    """As the kubelet renews a Secret: a folder of links, of which one is turned at once."""
    for number, pair in enumerate((tls.own, make(tmp_path, "new"))):
        (tmp_path / f"..{number}").mkdir()
        shutil.copy(pair.certificate, tmp_path / f"..{number}" / "tls.crt")
        shutil.copy(pair.key, tmp_path / f"..{number}" / "tls.key")
    (tmp_path / "..data").symlink_to("..0")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    both = tmp_path / "both.crt"
    both.write_text(tls.own.certificate.read_text() + (tmp_path / "new.crt").read_text())
    trusting = Secure(tls.staging, tls.folder, Pair(both, tls.own.key), tls.other, tls.client)
    with laptop(staging, program) as there:
        assert there.steal(HTTPS1, MINE, tls={"certificate": {"path": str(tmp_path)}}) == (0, {})
        assert shown(trusting) == der(tls.own)
        (tmp_path / "..1" / "tls.key").write_text("half")
        (tmp_path / "..new").symlink_to("..1")
        (tmp_path / "..new").rename(tmp_path / "..data")
        wait_for("the word that it can't be used", lambda: shown(trusting) == der(tls.own) and not there.events.empty())
        assert "holds no private key" in (told := heard(there)[0]) and told.endswith("the one that was there before is used on")
        shutil.copy(tmp_path / "new.key", tmp_path / "..1" / "tls.key")
        wait_for("the new certificate", lambda: shown(trusting) == der(Pair(tmp_path / "new.crt", tmp_path / "new.key")))
        assert trusting.curl(f"https://{NAME}:{HTTPS1}/1", *ME) == "local /1\n"


# -- several sessions --

YOURS = {"header": "^x-me: bob$"}


def test_all_sessions_of_a_port_agree_on_tls(staging: Target, tls: Secure, program: tuple[str, int]) -> None:
    path = {"certificate": {"path": str(tls.own.certificate)}, "key": {"path": str(tls.own.key)}}
    with laptop(staging, program) as alice, laptop(staging, program, "b" * 16) as bob:
        assert alice.steal(HTTPS, MINE, tls=given(tls.own)) == (0, {})
        for other in ({"tls": given(tls.other)}, {"tls": given(tls.own, alpn=["http/1.1"])}, {}):
            code, answer = bob.steal(HTTPS, YOURS, **other)
            assert code == 16 and answer["text"].startswith("taken by alice@laptop since 20")
            assert answer["text"].endswith("on one port all must name the same certificate and protocols, or none")
        assert bob.steal(HTTPS, YOURS, tls=path) == (0, {})
        for who, there in (("alice", alice), ("bob", bob)):
            assert tls.curl(f"{URL}/1", "--http1.1", "-H", f"X-Me: {who}") == "local /1\n"
            assert len(there.taken) == 1
        alice.end()
        wait_for("the target's answer", lambda: tls.curl(f"{URL}/1", "--http1.1", *ME).startswith("staging"))
        wait_for("bob's", lambda: tls.curl(f"{URL}/1", "--http1.1", "-H", "X-Me: bob") == "local /1\n")


def test_who_waits_for_a_port_shows_its_own_certificate_then(
    staging: Target, tls: Secure, program: tuple[str, int], tmp_path: Path
) -> None:
    mine = make(tmp_path, "mine")
    with laptop(staging, program) as alice, laptop(staging, program, "b" * 16) as bob:
        assert alice.steal(HTTPS1, tls=given(tls.own)) == (0, {})
        bob.do(lambda: bob.link.call("steal", {"port": HTTPS1, "owner": "bob", "on_conflict": "wait", "tls": given(mine)}, ignore))
        assert bob.events.get(timeout=10)[0] == "steal.waiting"
        assert tls.curl(f"https://{NAME}:{HTTPS1}/1") == "local /1\n"
        assert alice.call("unsteal", port=HTTPS1)[0] == 0
        mine_too = ["--cacert", str(mine.certificate)]
        wait_for("bob's certificate", lambda: tls.curl(f"https://{NAME}:{HTTPS1}/1", *mine_too) == "local /1\n")
        assert len(bob.taken)


def ignore(_result: object, _raw: bytes, _code: int) -> None:
    return
