"""Two ends of TLS that face each other, and the certificates they show."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.testkit.tls import Pair, make

from sidestage.tls import identity
from sidestage.tls.engine import Engine, bare, listen
from sidestage.tls.identity import Identity, IdentityError
from sidestage.tls.local import Delivery, DeliveryError, LocalTls

NAME = "a.corp.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certificates")
    for stem, name in (("own", NAME), ("star", "*.corp.example"), ("old", NAME), ("other", "b.test")):
        make(found, stem, name, expired=stem == "old")
    return found


def pair(folder: Path, stem: str) -> Pair:
    return Pair(folder / f"{stem}.crt", folder / f"{stem}.key")


def spec(folder: Path, stem: str = "own", **more: Any) -> dict[str, Any]:
    return {"certificate": {"path": str(folder / f"{stem}.crt")}, "key": {"path": str(folder / f"{stem}.key")}, **more}


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def meet(client: Engine, server: Engine) -> None:
    client.start()
    for _ in range(5):
        server.feed(client.take())
        client.feed(server.take())


def both(folder: Path, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[Engine, Engine]:
    context = bare(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = most
    client, server = Engine(context, server=False, name=NAME), Identity(spec(folder), read).engine("")
    meet(client, server)
    assert client.ready and server.ready and not (client.broken or server.broken)
    return client, server


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_direction_ends_by_itself(folder: Path, version: ssl.TLSVersion) -> None:
    client, server = both(folder, version)
    client.write(b"the last words")
    client.end()
    assert server.feed(client.take()) == b"the last words" and server.ended and not server.broken
    for part in (b"x" * 100_000, b"and more"):
        server.write(part)
        assert client.feed(server.take()) == part and not client.ended
    server.end()
    assert client.feed(server.take()) == b"" and client.ended and not client.broken


@pytest.mark.parametrize("step", [1, 7, 5000])
def test_bytes_may_come_in_any_pieces(folder: Path, step: int) -> None:
    client, server = both(folder)
    data = bytes(range(256)) * 100
    client.write(data)
    sealed, got = client.take(), b""
    for at in range(0, len(sealed), step):
        got += server.feed(sealed[at : at + step])
    assert got == data


def test_what_is_tampered_with_breaks_it(folder: Path) -> None:
    client, server = both(folder)
    client.write(b"words")
    sealed = bytearray(client.take())
    sealed[-1] ^= 1
    assert server.feed(bytes(sealed)) == b"" and "mac" in server.why and server.take()  # an alert
    client.feed(b"")
    assert not client.broken


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asks", [False, True])
def test_who_was_asked_for_a_certificate_knows(folder: Path, version: ssl.TLSVersion, *, asks: bool) -> None:
    context = bare(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    listen(context)
    server = identity.server(read(str(folder / "own.crt")), read(str(folder / "own.key")))
    if asks:
        server.verify_mode = ssl.CERT_OPTIONAL
        server.load_verify_locations(folder / "other.crt")
    client, other = Engine(context, server=False, name=NAME, quiet=bare(ssl.PROTOCOL_TLS_CLIENT)), Engine(server, server=True)
    meet(client, other)
    assert client.ready and client.asked is asks
    other.write(b"words")
    assert client.feed(other.take()) == b"words" and client.asked is asks


def test_names_that_a_certificate_is_for(folder: Path) -> None:
    own, star, old = (Identity(spec(folder, stem), read) for stem in ("own", "star", "old"))
    names = (NAME, "A.Corp.Example", "b.corp.example", "x.a.corp.example", "", "no..name", "10.0.0.1")
    assert [name for name in names if own.covers(name)] == [NAME, "A.Corp.Example"]
    assert [name for name in names if star.covers(name)] == [NAME, "A.Corp.Example", "b.corp.example"]
    assert old.covers(NAME) and not old.covers("b.corp.example")
    assert (own.note, old.note) == ("", "has expired")


def test_two_are_the_same_by_what_they_show(folder: Path) -> None:
    own = Identity(spec(folder), read)
    again = Identity(own.plain(), lambda _path: pytest.fail("all of it was given"))
    assert own.same(again)
    assert not own.same(Identity(spec(folder, "star"), read)) and not own.same(Identity(spec(folder, alpn=["h2"]), read))


def test_nothing_of_a_key_is_told(folder: Path) -> None:
    own = Identity(spec(folder), read)
    key = read(str(folder / "own.key")).decode().splitlines()[1]
    assert key in str(own.plain()) and key not in repr(own)
    with pytest.raises(IdentityError) as raised:
        Identity({**own.plain(), "certificate": {"pem": "none"}}, read)
    assert key not in str(raised.value)


# -- the local program --


def local(folder: Path, program: str, protocol: str = "", offered: str = "", **given: Any) -> tuple[Engine, str]:
    """The laptop's engine after it has met a program with that certificate, and what it holds against it."""
    tls = LocalTls(Delivery(**given))
    server = identity.server(read(str(folder / f"{program}.crt")), read(str(folder / f"{program}.key")))
    if offered:
        server.set_alpn_protocols([offered])
    client = tls.engine(NAME, protocol)
    meet(client, Engine(server, server=True))
    return client, client.why if client.broken else tls.refusal(client, protocol)


def test_any_certificate_will_do_unless_said_otherwise(folder: Path) -> None:
    for program in ("own", "old", "other"):
        assert local(folder, program)[1] == ""
    roots = tuple(str(folder / f"{stem}.crt") for stem in ("own", "other"))
    assert local(folder, "own", trust_roots=roots)[1] == ""
    assert local(folder, "other", trust_roots=roots, server_name="b.test")[1] == ""
    assert "mismatch" in local(folder, "other", trust_roots=roots)[1].lower()
    assert "self-signed" in local(folder, "star", trust_roots=roots)[1]
    assert local(folder, "other", trust_roots=(str(folder),), server_name="b.test")[1] == ""
    assert local(folder, "old", server_cert=str(folder / "old.crt"))[1] == ""
    assert "another certificate" in local(folder, "own", server_cert=str(folder / "old.crt"))[1]


@pytest.mark.parametrize("protocol, offered, refused", [
    ("h2", "h2", False), ("h2", "http/1.1", True), ("h2", "", True), ("http/1.1", "", False), ("http/1.1", "http/1.1", False),
    ("", "", False), ("", "h2", False), ("mqtt", "", False),
])  # fmt: skip
def test_a_program_must_speak_h2_where_clients_do(folder: Path, protocol: str, offered: str, *, refused: bool) -> None:
    assert bool(local(folder, "own", protocol, offered)[1]) is refused


@pytest.mark.parametrize("key, given", [
    ("trust_roots", {"trust_roots": ("/nowhere",)}),
    ("trust_roots", {"trust_roots": ("KEY",)}),
    ("server_cert", {"server_cert": "/nowhere"}),
    ("server_cert", {"server_cert": "KEY"}),
    ("client_cert", {"client_cert": "CRT"}),
    ("client_key", {"client_cert": "CRT", "client_key": "/nowhere"}),
])  # fmt: skip
def test_what_can_t_be_used_is_named(folder: Path, key: str, given: dict[str, Any]) -> None:
    words = {"KEY": str(folder / "own.key"), "CRT": str(folder / "own.crt")}
    given = {
        name: tuple(words.get(each, each) for each in value) if isinstance(value, tuple) else words.get(value, value)
        for name, value in given.items()
    }
    with pytest.raises(DeliveryError) as raised:
        LocalTls(Delivery(**given))
    assert raised.value.key == key


def test_a_program_that_asks_for_a_certificate_is_shown_ours(folder: Path) -> None:
    server = identity.server(read(str(folder / "own.crt")), read(str(folder / "own.key")))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(folder / "other.crt")
    ours = Delivery(client_cert=str(folder / "other.crt"), client_key=str(folder / "other.key"))
    for given, accepted in ((ours, True), (Delivery(), False)):
        client = LocalTls(given).engine(NAME, "")
        other = Engine(server, server=True)
        meet(client, other)
        assert (other.ready, bool(client.broken)) == (accepted, not accepted)


def test_where_the_agent_s_python_has_no_ssl_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from sidestage.agent import holder

    for name in [name for name in sys.modules if name.startswith("sidestage.tls") or name == "sidestage.agent.terminated"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ssl", None)
    links: Any = None
    assert holder.wish_of(links, 0, {"port": 1}, read).tls is None
    with pytest.raises(ValueError, match=r"no module ssl; name an image whose Python has it in agent\.image"):
        holder.wish_of(links, 0, {"port": 1, "tls": {"certificate": {"path": "/x"}}}, read)
