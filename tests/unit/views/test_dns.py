"""Who is asked for a name."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.views import dns
from sidestage.views.dns import NameFilter, NameFilterError, NameRules, from_hosts, reversed_address, rules
from sidestage.views.names import aliases, answers
from sidestage.views.resolve import AAAA, A, query

SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")


@pytest.mark.parametrize(
    ("text", "name", "want"),
    [
        ("db", "db", True), ("db", "DB.", True), ("DB.", "db", True), ("db", "db2", False), ("db", "x.db", False),
        ("db", "db.shop.svc.cluster.local", True), ("db", "db.svc.cluster.local", True), ("db", "db.corp.lan", False),
        ("db.shop", "db.shop.svc.cluster.local", True), ("db.shop", "db.other.svc.cluster.local", False),
        ("*.svc.cluster.local", "db.shop.svc.cluster.local", True), ("*.svc.cluster.local", "svc.cluster.local", False),
        ("*.svc.cluster.local:*", "git.corp.lan.svc.cluster.local", True), ("*.corp.lan", "git.corp.lan", True),
        ("*.corp.lan", "git.corp.lan.shop.svc.cluster.local", True), ("*.corp.lan", "gitcorp.lan", False),
        ("redis-*", "redis-0.redis.shop.svc.cluster.local", True), ("a*c", "abc", True), ("*", "anything.at.all", True),
        ("corp.lan", "_ldap._tcp.corp.lan", True), ("corp.lan", "_.corp.lan", False),
        ("db", "_pg._tcp.db.shop.svc.cluster.local", True),
        ("db:5432", "db", True), ("db:0", "db", True), ("*:*", "db", True), ("bücher.lan", "xn--bcher-kva.lan", True),
        ("10.1.0.0/16", "7.2.1.10.in-addr.arpa", True), ("10.1.2.7", "8.2.1.10.in-addr.arpa", False),
        ("[fd00::]/16:80", "1." + "0." * 27 + "0.0.d.f.ip6.arpa", True), ("10.1.2.7", "10.1.2.7", False),
        ("[fd01::1]", "1." + "0." * 27 + "0.0.d.f.ip6.arpa", False),
    ],
)  # fmt: skip
def test_both_sides(text: str, name: str, want: bool) -> None:
    one = (NameFilter.parse(text),)
    assert NameRules(local=one).here(name, SEARCH) is want
    assert NameRules(remote=one).here(name, SEARCH) is not want


def test_without_filters_all_names_are_the_targets() -> None:
    assert not NameRules() and not NameRules().here("db", SEARCH)


@pytest.mark.parametrize("text", ["", " ", ":80", ":0", "a b", "a:b", "a:70000", "10.0.0.0/40", "a/b", "[db]", "ü" * 70])
def test_what_can_not_be_read(text: str) -> None:
    with pytest.raises(NameFilterError):
        NameFilter.parse(text)


@pytest.mark.parametrize(
    ("sides", "remote", "local", "notes"),
    [
        (((), (), (), ()), [], [], 0),
        (((), (), ("there",), ("here",)), [], ["here"], 0),
        (((), ("a",), (), ("b",)), [], ["a", "b"], 0),
        ((("a",), (), ("b",), ()), ["a", "b"], [], 0),
        ((("a",), (), (), ("a",)), ["a"], [], 1),
        ((("a",), (), (), ("b",)), ["a"], [], 0),
        (((), ("a:1", "b:*"), (), ()), [], ["a:1", "b:*"], 1),
    ],
)
def test_names_of_outgoing_filters_are_dns_filters(
    sides: tuple[tuple[str, ...], ...], remote: list[str], local: list[str], notes: int
) -> None:
    found, said = rules(*sides)
    assert ([one.text for one in found.remote], [one.text for one in found.local], len(said)) == (remote, local, notes)


def test_one_side_only() -> None:
    with pytest.raises(NameFilterError, match="exclude each other"):
        rules(["a"], ["b"], [], [])


@pytest.mark.parametrize("address", ["10.1.2.3", "0.0.0.0", "fd00::1:2", "::1"])
def test_reverse_names(address: str) -> None:
    import ipaddress

    known = ipaddress.ip_address(address)
    assert reversed_address(known.reverse_pointer) == known
    assert reversed_address("1." + known.reverse_pointer) is None


@pytest.mark.parametrize("name", ["a.b.c.d.in-addr.arpa", "999.1.1.1.in-addr.arpa", "in-addr.arpa", "x.ip6.arpa", "db", ""])
def test_no_reverse_name(name: str) -> None:
    assert reversed_address(name) is None


def test_answers_from_a_hosts_file() -> None:
    known = ["10.0.0.7", "fd00::7", "10.0.0.8"]
    for kind, wanted in ((A, ["10.0.0.7", "10.0.0.8"]), (AAAA, ["fd00::7"])):
        found = from_hosts(query("db.lan", kind, 77), known)
        assert found and list(answers(found)) == [("db.lan", address) for address in wanted]
        assert struct.unpack_from("!2H", found) == (77, 0x8580)
    empty = from_hosts(query("db.lan", AAAA, 77), ["10.0.0.7"])
    assert empty and (empty[3] & 15, list(answers(empty))) == (0, [])
    assert from_hosts(query("db.lan", 33, 77), known) is None and from_hosts(query("db.lan", A, 77), []) is None


def test_a_chain_of_aliases_has_the_addresses() -> None:
    def named(*labels: str) -> bytes:
        return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"

    def record(owner: bytes, kind: int, data: bytes) -> bytes:
        return owner + struct.pack("!HHIH", kind, 1, 60, len(data)) + data

    records = [record(b"\xc0\x0c", 5, named("b", "x")), record(named("b", "x"), 5, named("c", "x")),
               record(named("c", "x"), 1, socket.inet_aton("10.0.0.1"))]  # fmt: skip
    asked = query("a.x", A, 7)
    message = asked[:2] + struct.pack("!5H", 0x8180, 1, 3, 0, 0) + asked[12:] + b"".join(records)
    assert (aliases(message), list(answers(message))) == (["b.x", "c.x"], [("a.x", "10.0.0.1")])
    assert aliases(asked) == []
    for cut in range(len(message)):
        assert len(aliases(message[:cut])) <= 2


@given(st.text(max_size=300))
def test_no_name_raises(name: str) -> None:
    dns.reversed_address(name)
    NameRules(local=(NameFilter.parse("*.a"), NameFilter.parse("10.0.0.0/8"))).here(name, SEARCH)


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    aliases(data)
