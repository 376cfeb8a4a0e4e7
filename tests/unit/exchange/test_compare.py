"""Two answers to one request: what is a difference, what is noise, and what is proposed to be ignored."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from sidestage.exchange.compare import Learner, Rule, RuleError, compare
from sidestage.exchange.model import LOCAL, MAX_BODY, TARGET, Answer, Body, Exchange, Headers

JSON = ("Content-Type", "application/json; charset=utf-8")


def answer(status: int = 200, headers: Headers | None = None, body: bytes | Any = b"") -> Answer:
    headers = list(headers or [])
    if not isinstance(body, bytes):
        headers.append(JSON)
        body = json.dumps(body).encode()
    made = Answer(status, headers, 0.0, Body(), done=True)
    made.body.add(body)
    return made


def exchange(target: Answer, local: Answer | None = None, method: str = "GET", path: str = "/orders/7?x=1") -> Exchange:
    made = Exchange(1, method, path, [])
    made.answers[TARGET] = target
    if local:
        made.answers[LOCAL] = local
    return made


SAME: dict[str, tuple[Answer, Answer]] = {
    "equal": (answer(body=b"x"), answer(body=b"x")),
    "how it travelled": (
        answer(headers=[("Date", "1"), ("Server", "a"), ("Transfer-Encoding", "chunked")], body=b"x"),
        answer(headers=[("date", "2"), ("Content-Length", "1")], body=b"x"),
    ),
    "JSON in another spelling": (
        answer(headers=[JSON], body=b'{"a":1,"b":[1]}'), answer(headers=[JSON], body=b'{"b": [1], "a": 1}')
    ),
    "compressed": (answer(headers=[("Content-Encoding", "gzip")], body=gzip.compress(b"hello")), answer(body=b"hello")),
    "names of headers in capitals": (answer(headers=[("X-A", "1")]), answer(headers=[("x-a", "1")])),
}
DIFFERENT: dict[str, tuple[Answer, Answer, list[str]]] = {
    "status": (answer(200), answer(500), ["status"]),
    "header": (answer(headers=[("X-A", "1")]), answer(headers=[("X-A", "2"), ("X-B", "")]), ["header:x-a", "header:x-b"]),
    "header twice": (answer(headers=[("X", "1"), ("X", "2")]), answer(headers=[("X", "1")]), ["header:x"]),
    "text": (answer(body=b"abc"), answer(body=b"abd"), ["body"]),
    "JSON value": (answer(body={"a": {"b": 1}}), answer(body={"a": {"b": 2}}), ["body:a.b"]),
    "JSON type": (answer(body={"a": 1}), answer(body={"a": True}), ["body:a"]),
    "JSON key": (answer(body={"a": 1}), answer(body={"b": 1}), ["body:a", "body:b"]),
    "JSON list": (answer(body=[1, 2]), answer(body=[1, 3, 4]), ["body:1", "body:2"]),
    "JSON whole": (answer(body=[]), answer(body={}), ["body"]),
    "beyond what is kept": (answer(body=b"x" * MAX_BODY), answer(body=b"x" * (MAX_BODY + 1)), ["body"]),
}


@pytest.mark.parametrize("name", SAME)
def test_no_difference(name: str) -> None:
    assert compare(exchange(*SAME[name])) == []


@pytest.mark.parametrize("name", DIFFERENT)
def test_differences(name: str) -> None:
    target, local, where = DIFFERENT[name]
    assert [found.where for found in compare(exchange(target, local))] == where


def test_both_values_are_told() -> None:
    (found,) = compare(exchange(answer(body={"total": 10}), answer(body={"total": 12})))
    assert (found.target, found.local) == ("10", "12")
    (found,) = compare(exchange(answer(body=b"a" * 50 + b"X" + b"c" * 99), answer(body=b"a" * 50 + b"Y" + b"c" * 99)))
    assert found.target.startswith("…" + "a" * 20 + "X")


@pytest.mark.parametrize(
    "rule, covered",
    [
        ("status", "status"),
        ("header:X-A", "header:x-a"),
        ("body", "body"),
        ("body", "body:a.b"),
        ("body:items", "body:items.3.id"),
        ("body:items.*.id", "body:items.3.id"),
        ("GET /orders/* body:id", "body:id"),
        ("* * status", "status"),
    ],
)
def test_rules_that_cover(rule: str, covered: str) -> None:
    assert Rule.parse(rule).covers(exchange(answer()), covered)


@pytest.mark.parametrize(
    "rule, other",
    [
        ("status", "body"),
        ("header:x-a", "header:x-b"),
        ("body:items.*.id", "body:items.3.name"),
        ("body:items.*.id", "body:items"),
        ("POST * status", "status"),
        ("GET /other status", "status"),
    ],
)
def test_rules_that_do_not(rule: str, other: str) -> None:
    assert not Rule.parse(rule).covers(exchange(answer()), other)


@pytest.mark.parametrize("text", ["", "stauts", "header:", "GET status", "a b c d"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(RuleError):
        Rule.parse(text)


def test_rules_read_back() -> None:
    for text in ("status", "header:x-a", "GET /a/* body:b.*.c"):
        assert str(Rule.parse(text)) == text


def test_what_the_target_itself_changes_is_proposed() -> None:
    learner = Learner()
    for n in range(3):
        body = {"at": n, "items": [{"id": n, "name": "x"}]}
        learner.see(exchange(answer(headers=[("X-Trace", str(n))], body=body)))
    assert [str(rule) for rule in learner.proposals()] == [
        "GET /orders/7 body:at", "GET /orders/7 body:items.*.id", "GET /orders/7 header:x-trace",
    ]  # fmt: skip
    ignored = learner.proposals()
    different = exchange(answer(headers=[("X-Trace", "8")], body={"at": 8, "items": []}), answer(body={"at": 9, "items": []}))
    assert [found.where for found in compare(different)] == ["body:at", "header:x-trace"]
    assert compare(different, ignored) == []


def test_what_several_requests_agree_on_is_proposed_for_all() -> None:
    learner = Learner()
    for n in range(4):
        learner.see(exchange(answer(headers=[("X-Trace", str(n))]), path=f"/{n % 2}"))
    assert [str(rule) for rule in learner.proposals()] == ["header:x-trace"]


def test_another_status_teaches_nothing() -> None:
    learner = Learner()
    for status in (200, 500, 200):
        learner.see(exchange(answer(status, body=str(status).encode())))
    assert learner.proposals() == []
