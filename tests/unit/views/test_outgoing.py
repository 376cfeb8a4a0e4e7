"""Where an outgoing connection goes."""

from __future__ import annotations

import pytest

from sidestage.views.dns import NameFilter
from sidestage.views.names import Names
from sidestage.views.outgoing import AddressFilter, FilterError, OutgoingPolicy, OutgoingRules


def policy(rules: OutgoingRules | None = None, names: Names | None = None) -> OutgoingPolicy:
    return OutgoingPolicy(rules or OutgoingRules(), names or Names(), ["10.96.0.10"], ["192.168.1.1", "127.0.0.53"])


@pytest.mark.parametrize(
    ("family", "host", "port", "kind", "want"),
    [
        (4, "10.1.2.3", 80, "tcp", ("10.1.2.3", 80)),
        (6, "fd00::5", 80, "tcp", ("fd00::5", 80)),
        (6, "::ffff:10.1.2.3", 80, "tcp", ("10.1.2.3", 80)),
        (4, "127.0.0.1", 6379, "tcp", ("127.0.0.1", 6379)),
        (4, "0.0.0.0", 6379, "tcp", ("127.0.0.1", 6379)),
        (6, "::", 6379, "tcp", ("::1", 6379)),
        (4, "10.1.2.3", 0, "udp", None),
        (4, "224.0.0.251", 5353, "udp", None),
        (4, "255.255.255.255", 67, "udp", None),
        (4, "127.0.0.53", 53, "udp", ("10.96.0.10", 53)),
        (4, "192.168.1.1", 53, "tcp", ("10.96.0.10", 53)),
        (4, "10.96.0.10", 53, "udp", ("10.96.0.10", 53)),
        (4, "9.9.9.9", 53, "udp", ("9.9.9.9", 53)),
    ],
)
def test_defaults(family: int, host: str, port: int, kind: str, want: tuple[str, int] | None) -> None:
    assert policy().connect(family, host, port, kind) == want


def test_switches() -> None:
    assert policy(OutgoingRules(tcp=False)).connect(4, "10.1.2.3", 80, "tcp") is None
    assert policy(OutgoingRules(udp=False)).connect(4, "10.1.2.3", 80, "udp") is None
    assert policy(OutgoingRules(udp=False)).connect(4, "10.96.0.10", 53, "udp") == ("10.96.0.10", 53)
    assert policy(OutgoingRules(udp=False, dns=False)).connect(4, "10.96.0.10", 53, "udp") is None
    assert policy(OutgoingRules(ignore_localhost=True)).connect(6, "::ffff:127.0.0.1", 80, "tcp") is None
    assert policy(OutgoingRules(debugger_ports=frozenset({5678}))).connect(4, "127.0.0.1", 5678, "tcp") is None


@pytest.mark.parametrize(
    ("text", "host", "port", "kind", "want"),
    [
        ("10.0.0.0/8", "10.1.2.3", 80, "tcp", True),
        ("10.0.0.0/8:5432", "10.1.2.3", 80, "tcp", False),
        ("tcp://10.1.2.3:80", "10.1.2.3", 80, "udp", False),
        ("0.0.0.0:80", "10.1.2.3", 80, "tcp", True),
        (":80", "fd00::1", 80, "tcp", True),
        ("[fd00::]/16:80", "fd00::1", 80, "tcp", True),
        ("[fd00::2]", "fd00::1", 80, "tcp", False),
        ("db.staging", "10.9.9.9", 5432, "tcp", True),
        ("DB.staging.:5433", "10.9.9.9", 5432, "tcp", False),
        ("udp://*.staging:54", "10.9.9.9", 54, "tcp", False),
        ("tcp://*.staging:5432", "10.9.9.9", 5432, "tcp", True),
        ("*.staging", "10.9.9.8", 5432, "tcp", False),
        ("tcp://*:80", "fd00::1", 80, "tcp", True),
        ("[::ffff:10.1.0.0]/112:80", "10.1.2.3", 80, "tcp", True),
        ("[::ffff:10.1.2.4]", "10.1.2.3", 80, "tcp", False),
        ("10.1.2.3", "::ffff:10.1.2.3", 80, "tcp", True),
        ("0.0.0.0/0", "fd00::1", 80, "tcp", False),
        ("[::]/0", "fd00::1", 80, "udp", True),
        ("[::]:80", "10.1.2.3", 80, "udp", True),
        ("bücher.lan", "10.9.9.9", 80, "tcp", True),
    ],
)
def test_filters_on_both_sides(text: str, host: str, port: int, kind: str, want: bool) -> None:
    names = Names()
    names.learn("db.staging.", "10.9.9.9")
    names.learn("xn--bcher-kva.lan", "10.9.9.9")
    only = policy(OutgoingRules(remote=(AddressFilter.parse(text),)), names)
    but = policy(OutgoingRules(local=(AddressFilter.parse(text),)), names)
    assert (only.connect(4, host, port, kind) is not None) is want
    assert (but.connect(4, host, port, kind) is None) is want


@pytest.mark.parametrize("text", ["", "10.0.0.0/99", "sctp://x", "x:99999", "a:b:c", "[db]"])
def test_bad_filters_are_refused(text: str) -> None:
    with pytest.raises(FilterError):
        AddressFilter.parse(text)


@pytest.mark.parametrize("text, hint", [("::1", True), ("tcp://fd00::1:80", True), ("fd00::/8", True), ("x:y:z", False)])
def test_an_address_without_its_brackets_is_understood_and_refused(text: str, hint: bool) -> None:
    for kind in (AddressFilter, NameFilter):
        with pytest.raises(FilterError) as error:
            kind.parse(text)
        assert ("in brackets" in str(error.value)) is hint


def test_unix_streams() -> None:
    rules = OutgoingRules(unix_streams=("^/var/run/.*docker.sock$", "^@abstract"))
    assert policy(rules).unix("/var/run/docker.sock") and policy(rules).unix("@abstract/x")
    assert not policy(rules).unix("/tmp/docker.sock")
