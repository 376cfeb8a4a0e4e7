"""Exchanges as HAR 1.2, and what is left out of them."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from sidestage.exchange import har, secrets
from sidestage.exchange.model import Answer, Body, Exchange

# http://www.softwareishard.com/blog/har-12-spec/: what each object must have
REQUIRED: dict[str, set[str]] = {
    "entry": {"startedDateTime", "time", "request", "response", "cache", "timings"},
    "request": {"method", "url", "httpVersion", "cookies", "headers", "queryString", "headersSize", "bodySize"},
    "response": {
        "status", "statusText", "httpVersion", "cookies", "headers", "content", "redirectURL", "headersSize", "bodySize",
    },
    "content": {"size", "mimeType"}, "timings": {"send", "wait", "receive"},
}  # fmt: skip


def body(data: bytes, size: int | None = None) -> Body:
    return Body(bytearray(data), len(data) if size is None else size)


def made(keep: bool = False, **changes: Any) -> dict[str, Any]:
    now = time.monotonic()
    given: dict[str, Any] = {
        "headers": [("Host", "orders"), ("Authorization", "Bearer hush"), ("Cookie", "id=hush; theme=dark")], "body": body(b""),
        "path": "/a?x=1&token=hush&empty", "answer_headers": [("Content-Type", "text/plain"), ("Set-Cookie", "id=hush; Path=/")],
        "answer_body": body(b"hello"),
    } | changes  # fmt: skip
    exchange = Exchange(1, "POST", given["path"], given["headers"], given["body"], began=now - 0.5)
    answer = Answer(201, given["answer_headers"], 0.3, given["answer_body"], done=True)
    return har.entry(exchange, answer, peer=("10.0.0.5", 4000), local=("10.0.0.7", 80), ended=now, keep=keep)


def test_it_has_what_the_specification_demands() -> None:
    entry = made()
    for name, found in (
        ("entry", entry), ("request", entry["request"]), ("response", entry["response"]),
        ("content", entry["response"]["content"]), ("timings", entry["timings"]),
    ):  # fmt: skip
        assert found.keys() >= REQUIRED[name], name
    assert entry["request"]["url"] == "http://orders/a?x=1&token=%5Bredacted%5D&empty"
    assert (entry["response"]["status"], entry["response"]["statusText"]) == (201, "Created")
    assert (entry["time"], entry["timings"]) == (500.0, {"send": 0, "wait": 300.0, "receive": 200.0})
    assert entry["serverIPAddress"] == "10.0.0.7"
    assert entry["response"]["content"]["text"] == "hello"


def test_secrets_are_left_out_unless_asked_for() -> None:
    assert "hush" not in json.dumps(made())
    kept = made(keep=True)
    assert {"name": "Authorization", "value": "Bearer hush"} in kept["request"]["headers"]
    assert {"name": "id", "value": "hush"} in kept["request"]["cookies"] + kept["response"]["cookies"]
    assert kept["request"]["url"].endswith("token=hush&empty")


@pytest.mark.parametrize("headers, data, size, content", [
    ([], b"\xff\xfe", None, {"size": 2, "text": "//4=", "encoding": "base64"}),
    ([("content-encoding", "gzip")], gzip.compress(b"squeezed"), None, {"size": 8, "text": "squeezed"}),
    ([], b"begin", 9000, {"size": 5, "text": "begin", "comment": "only the beginning of 9000 bytes"}),
])  # fmt: skip
def test_bodies(headers: list[tuple[str, str]], data: bytes, size: int | None, content: dict[str, Any]) -> None:
    found = made(answer_headers=headers, answer_body=body(data, size))["response"]["content"]
    assert found == {"mimeType": "x-unknown", **content}


def test_a_request_with_a_body() -> None:
    headers = [("content-type", "application/json")]
    found = made(headers=headers, body=body(b'{"a": 1}'))["request"]
    assert (found["postData"], found["bodySize"]) == ({"mimeType": "application/json", "text": '{"a": 1}'}, 8)
    assert found["url"].startswith("http://10.0.0.7:80/a?")


def test_the_file_is_whole_after_each_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.har"
    with path.open("wb") as file:
        _three(har.Writer(file.fileno(), "1"), path)


def _three(writer: har.Writer, path: Path) -> None:
    for count in range(3):
        log = json.loads(path.read_text())["log"]
        assert (log["version"], log["creator"], len(log["entries"])) == ("1.2", {"name": "sidestage", "version": "1"}, count)
        writer.add(made())


@pytest.mark.parametrize("name, is_secret", [
    ("Authorization", True), ("set-cookie", True), ("X-Api-Key", True), ("x-csrf-token", True), ("password", True),
    ("x-amz-security-token", True), ("X-Auth-User", True), ("code", True), ("content-type", False), ("author", False),
    ("keyboard", False), ("accept-encoding", False), ("etag", False), ("www-authenticate", False),
    ("AWS_ACCESS_KEY_ID", True), ("PGPASSFILE", True), ("DB_PASS", True),
    ("x-bypass-cache", False), ("PASSPORT_URL", False), ("PRIVATE_KEY", True), ("PROXY-AUTHORIZATION", True),
])  # fmt: skip
def test_which_names_are_secret(name: str, is_secret: bool) -> None:
    assert secrets.secret(name) is is_secret
