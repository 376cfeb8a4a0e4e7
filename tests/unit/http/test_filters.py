"""Filters: what they take, what depends on the body, and what can't be a filter."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from sidestage.http.filters import Facts, Filter, FilterError
from sidestage.http.patterns import MAX_INPUT, MAX_KNOWN, SHORT, Lines, Pattern

LINES = ["Host: shop.example", "X-User: Me", "Cookie: a=b; c=d", "User-Agent: curl/8"]


def facts(method: str = "GET", target: str = "/api/orders?id=7", lines: list[str] | None = None, body: bytes | None = b"") -> Facts:
    return Facts(method, target, lambda: LINES if lines is None else lines, body)


TAKEN: list[dict[str, Any]] = [
    {},
    {"header": "x-user: me"},
    {"header": "^X-USER: ME$"},
    {"header": "user"},
    {"header": r"^cookie:.*\bc=d\b"},
    {"header": "^x-user: (?!you)"},
    {"header": "(?<=x-user: )me"},
    {"path": "^/api/orders$"},
    {"path": r"\?id=7$"},
    {"path": "ORDERS"},
    {"method": "get"},
    {"all_of": [{"header": "x-user"}, {"path": "^/api"}]},
    {"any_of": [{"header": "nobody"}, {"method": "GET"}]},
    {"all_of": [{"any_of": [{"path": "/x"}, {"path": "/api"}]}, {"method": "GET"}]},
]
LEFT: list[dict[str, Any]] = [
    {"header": "^agent"},
    {"header": "x-user: me, too"},
    {"header": "shop.example.*curl"},
    {"path": "^orders"},
    {"path": "^/api$"},
    {"method": "GE"},
    {"all_of": [{"header": "x-user"}, {"path": "^/x"}]},
    {"any_of": [{"header": "nobody"}, {"method": "POST"}]},
]


@pytest.mark.parametrize("spec", TAKEN, ids=str)
def test_taken(spec: dict[str, Any]) -> None:
    assert Filter(spec).answer(facts()) is True


@pytest.mark.parametrize("spec", LEFT, ids=str)
def test_left(spec: dict[str, Any]) -> None:
    assert Filter(spec).answer(facts()) is False


@pytest.mark.parametrize(
    ("target", "path", "taken"),
    [("http://shop.example/api?x=1", "^/api$", True), ("http://shop.example", "^/$", True), ("*", r"^\*$", True),
     ("/a%2Fb", "^/a/b", False), ("a:1", "^a:1$", True)],
)  # fmt: skip
def test_targets(target: str, path: str, taken: bool) -> None:
    assert Filter({"path": path}).answer(facts(target=target)) is taken


@pytest.mark.parametrize("agent", ["User-Agent: kube-probe/1.33", "user-agent: kube-probe/1.9+", "User-Agent: Kube-Probe/1"])
def test_probes(agent: str) -> None:
    assert Filter({"path": "/"}).answer(facts(lines=[agent])) is False
    assert Filter({"path": "/", "probes": True}).answer(facts(lines=[agent])) is True
    assert Filter({"path": "/"}).answer(facts(lines=["X-User-Agent: kube-probe/1"])) is True


BODY = {"body": "json", "query": "$.user.name", "matches": "^me$"}


@pytest.mark.parametrize(
    ("body", "taken"),
    [(b'{"user": {"name": "me"}}', True), (b'{"user": {"name": "Me"}}', True), (b'{"user": {"name": "you"}}', False), (b"{", False),
     (b"", False), (b'{"user": []}', False), (b"null", False), (b"\xff\xfe", False), (b"[" * 100_000, False)],
)  # fmt: skip
def test_bodies(body: bytes, taken: bool) -> None:
    assert Filter({"body": BODY}).answer(facts(body=body)) is taken


def test_what_depends_on_the_body() -> None:
    def answer(spec: dict[str, Any]) -> bool | None:
        return Filter(spec).answer(facts(body=None))

    yes, no, body = {"method": "GET"}, {"method": "PUT"}, {"body": BODY}
    assert answer(body) is None
    assert answer({"all_of": [body, yes]}) is None
    assert answer({"all_of": [body, no]}) is False
    assert answer({"any_of": [body, yes]}) is True
    assert answer({"any_of": [no, body]}) is None
    assert Filter({"any_of": [no, body]}).answer(facts(body=b"")) is False


BROKEN: list[tuple[Any, str]] = [
    ([], "must be an object"),
    ({"header": "a", "path": "b"}, "exactly one of"),
    ({"header": ""}, "header: must be a text, and not empty"),
    ({"header": 5}, "header: must be a text"),
    ({"head": "a"}, "head: unknown"),
    ({"header": "("}, "header: not a regular expression"),
    ({"header": "a" * 3000}, "header: not a regular expression"),
    ({"all_of": []}, "all_of: must be a list of filters, and not empty"),
    ({"any_of": "x"}, "any_of: must be"),
    ({"all_of": [{"path": "a"}, {"path": "["}]}, "all_of[1].path: not a regular expression"),
    ({"all_of": [{"path": "a", "method": "b"}]}, "all_of[0]: must have exactly one of"),
    ({"any_of": [{"path": "a"}] * 200}, "more than 100"),
    ({"body": {"body": "xml", "query": "$", "matches": "a"}}, "body: must have"),
    ({"body": {"body": "json", "query": "$.", "matches": "a"}}, "body.query: not a JSONPath"),
    ({"body": {"body": "json", "query": "$", "matches": ""}}, "body.matches: must be"),
    ({"body": {"body": "json", "query": "$", "matches": "("}}, "body.matches: not a regular"),
    ({"path": "a", "max_body": -1}, "max_body: must be a whole number"),
    ({"path": "a", "body_time": "5"}, "body_time: must be a whole number"),
]


@pytest.mark.parametrize(("spec", "said"), BROKEN, ids=lambda x: str(x)[:30])
def test_what_is_no_filter(spec: Any, said: str) -> None:
    with pytest.raises(FilterError) as caught:
        Filter(spec)
    assert said in str(caught.value)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){20}b", r"(\w+\s?)*!", "a.*b"])
def test_no_pattern_runs_for_ever(pattern: str) -> None:
    filter_ = Filter({"header": pattern})
    lines = ["x: " + "a" * 8000 + "!!"] * 30
    begun = time.thread_time()
    answers = [filter_.answer(facts(lines=lines)) for _ in range(20)]
    assert time.thread_time() - begun < 10  # seconds; without the alarm not within a lifetime
    assert filter_.expired == [pattern] or answers == [True] * 20


def test_long_lines_match_nothing() -> None:
    assert Filter({"header": "a"}).answer(facts(lines=["x: " + "a" * MAX_INPUT])) is False


def test_what_is_remembered_of_lines_is_what_they_say() -> None:
    texts = ["^x-user: a", "a$", r"(a|b)+c", ".*b.*c", r"x-(\w)\1", "ab{2,3}.*?c", "^$"]  # with and without a guard
    rng, expired = random.Random(4), []  # type: tuple[random.Random, list[str]]
    lines, patterns = Lines(expired), [Pattern(text, expired) for text in texts]
    bits = [lines.add(pattern) for pattern in patterns]
    pool = ["".join(rng.choices("abcx- ", k=rng.choice([0, 3, 12, SHORT + 9]))) for _ in range(MAX_KNOWN + 200)]
    for _ in range(1_000):
        head = rng.choices(pool, k=rng.randrange(1, 9))
        wanted = sum(bit for bit, pattern in zip(bits, patterns, strict=True) if pattern.any(head))
        assert lines.said(head) == wanted, head
    assert not expired


def test_a_pattern_that_has_expired_matches_nothing_that_it_matched_before() -> None:
    pattern = "^((a+)+b|ok)$"
    filter_ = Filter({"header": pattern})
    assert filter_.answer(facts(lines=["ok"])) is True
    for length in range(18, 60):
        if filter_.expired:
            break
        filter_.answer(facts(lines=["a" * length]))
    assert filter_.expired == [pattern]
    assert filter_.answer(facts(lines=["ok"])) is False
