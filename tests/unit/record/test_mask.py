"""What becomes x's in a recording, and what stays; a stream may be cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestage.record import mask

STREAM = (
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\ncookie:a=b; c\r\nX-Other: Cookie: no\r\n\r\nbody\r\n"
    b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nContent-Length: 3\r\n\r\nabc"
)
MASKED = (
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization:xxxxxxxxxxx\r\ncookie:xxxxxx\r\nX-Other: Cookie: no\r\n\r\nbody\r\n"
    b"HTTP/1.1 200 OK\r\nSet-Cookie:xxxx\r\nContent-Length: 3\r\n\r\nabc"
)


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_headers(step: int) -> None:
    masker = mask.Headers()
    assert b"".join(masker.feed(STREAM[at : at + step]) for at in range(0, len(STREAM), step)) == MASKED


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_cuts_make_no_difference_and_lengths_stay(parts: list[bytes]) -> None:
    whole, cut = mask.Headers(), mask.Headers()
    data = b"".join(parts)
    masked = whole.feed(data)
    assert b"".join(map(cut.feed, parts)) == masked
    assert len(masked) == len(data)


@pytest.mark.parametrize(
    "item, masked",
    [
        (b"DB_PASSWORD=abc", b"DB_PASSWORD=xxx"),
        (b"API_KEY=abc", b"API_KEY=xxx"),
        (b"GITHUB_TOKEN=abc", b"GITHUB_TOKEN=xxx"),
        (b"DATABASE_URL=postgres://me:abc@db:5432/x", b"DATABASE_URL=postgres://me:xxx@db:5432/x"),
        (b"REDIS_URL=redis://:abc@db", b"REDIS_URL=redis://:xxx@db"),
        (b"GREETING=hello", b"GREETING=hello"),
        (b"AUTHOR=me", b"AUTHOR=me"),
        (b"KEYBOARD=de", b"KEYBOARD=de"),
        (b"odd", b"odd"),
    ],
)
def test_environment(item: bytes, masked: bytes) -> None:
    assert mask.environment(b"A=1\0" + item + b"\0") == b"A=1\0" + masked + b"\0"


@pytest.mark.parametrize(
    "path", ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/etc/tls/key.pem", "/app/.env", "/etc/secret/x", "/x/id_rsa"]
)
def test_secret_files(path: str) -> None:
    assert mask.is_secret_file(path)


@pytest.mark.parametrize("path", ["/etc/hosts", "/app/tokenizer/config.json", "/srv/data.json", "/app/secretary.txt/x"])
def test_other_files(path: str) -> None:
    assert not mask.is_secret_file(path)
