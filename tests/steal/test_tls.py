"""TLS that ends in the agent: whose a request is, is decided inside, and clients and target notice nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.testkit.session import Laptop, laptop
from tests.testkit.target import Target
from tests.testkit.tls import HTTPS, NAME, Pair, Secure, secure

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
