"""resolv.conf(5) and hosts(5), as a resolver reads them."""

from __future__ import annotations

import struct

import pytest

from sidestage.views.names import question
from sidestage.views.resolve import A, Settings, candidates, hosts, query, settings

CONF = """
# of a pod
nameserver 10.96.0.10
nameserver fe80::1%eth0
nameserver not-an-address
search shop.svc.cluster.local svc.cluster.local  cluster.local.
options ndots:5 timeout:99 attempts:0 edns0
"""


def test_settings() -> None:
    search = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert settings(CONF) == Settings(("10.96.0.10", "fe80::1"), search, 5, 30, 1)
    assert settings("", ["10.0.0.1"]) == Settings(("10.0.0.1",))
    assert settings("search a\nsearch b\nnameserver 1.1.1.1", ["10.0.0.1"]) == Settings(("1.1.1.1",), ("b",))


@pytest.mark.parametrize("name, asked", [
    ("db", ["db.a", "db.b", "db"]), ("db.a.b", ["db.a.b", "db.a.b.a", "db.a.b.b"]), ("db.", ["db"]),
    ("db.x", ["db.x.a", "db.x.b", "db.x"]),
])  # fmt: skip
def test_candidates(name: str, asked: list[str]) -> None:
    assert candidates(name, Settings(search=("a", "b"), ndots=2)) == asked


def test_hosts() -> None:
    text = "127.0.0.1 localhost\n10.0.0.7\tDB db.local # the database\n::1 localhost\n#10.0.0.8 db\nbroken db\n"
    assert [hosts(text, name) for name in ("localhost", "db", "DB.local.", "none")] == [
        ["127.0.0.1", "::1"], ["10.0.0.7"], ["10.0.0.7"], [],
    ]  # fmt: skip


def test_query() -> None:
    made = query("db.staging.internal", A, 7)
    assert (question(made), struct.unpack_from("!2H", made)) == (("db.staging.internal", A), (7, 0x0100))
    assert question(query("bücher.example", A, 7)) == ("xn--bcher-kva.example", A)


@pytest.mark.parametrize("name", ["a..b", "", "x" * 64, ".".join(["abcdefg"] * 32)])
def test_what_can_not_be_a_name(name: str) -> None:
    with pytest.raises(ValueError):
        query(name, A, 1)
