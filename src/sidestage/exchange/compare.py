"""The difference of two answers to one request: status, headers, and the body, which is compared as JSON where it is JSON.

What changes from one answer to the next of the same service is no difference. Some of it is known (VOLATILE); the rest is what
the user ignores: `header:NAME`, `body:PATH` with `*` for any key or index (`body:items.*.id`), `status`, each with an optional
`METHOD PATH ` before it in which `*` stands for anything. `Learner` proposes such rules from the target's own answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from sidestage.exchange.model import LOCAL, TARGET, Answer, Exchange, as_json, plain

# How a message travelled, when, and by whose hands: not what it says.
VOLATILE = frozenset(
    "date age server connection keep-alive transfer-encoding content-length content-encoding vary trailer via alt-svc etag "
    "x-request-id x-correlation-id x-amzn-trace-id x-b3-traceid x-b3-spanid traceparent tracestate request-id "
    "x-envoy-upstream-service-time x-runtime x-response-time server-timing report-to nel cf-ray".split()
)
MAX_DIFFERENCES = 50  # of one exchange
MAX_LEARNT = 512  # requests whose last answer is kept to learn from
_RULE = re.compile(r"(?:(\S+) (\S+) )?(status|header:\S+|body(?::\S+)?)")


class RuleError(ValueError):
    """A rule that can't be read."""


class Difference(NamedTuple):
    where: str  # `status`, `header:NAME`, `body:PATH` or `body`
    target: str
    local: str


@dataclass(frozen=True, slots=True)
class Rule:
    what: str
    method: str = "*"
    path: str = "*"

    @classmethod
    def parse(cls, text: str) -> Rule:
        match = _RULE.fullmatch(text.strip())
        if not match:
            raise RuleError(f"{text!r} is no rule: write status, header:NAME or body:PATH, maybe behind METHOD and PATH")
        return cls(match[3].lower() if match[3].startswith("header:") else match[3], match[1] or "*", match[2] or "*")

    def covers(self, exchange: Exchange, where: str) -> bool:
        path = exchange.path.partition("?")[0]
        if not (fnmatchcase(exchange.method, self.method) and fnmatchcase(path, self.path)):
            return False
        return where == self.what or _below(where, self.what)

    def __str__(self) -> str:
        return self.what if (self.method, self.path) == ("*", "*") else f"{self.method} {self.path} {self.what}"


def _below(where: str, rule: str) -> bool:
    """`body:items.0.id` is below `body:items`, `body:items.*.id` and `body`."""
    if not (rule.startswith("body") and where.startswith("body")):
        return False
    wanted = rule.partition(":")[2].split(".") if ":" in rule else []
    found = where.partition(":")[2].split(".") if ":" in where else []
    return len(wanted) <= len(found) and all(w in ("*", f) for w, f in zip(wanted, found, strict=False))


def compare(exchange: Exchange, rules: Sequence[Rule] = ()) -> list[Difference]:
    """What differs between the target's and the local program's answer, the ignored left out."""
    target, local = exchange.answers[TARGET], exchange.answers[LOCAL]
    found = []
    for difference in differences(target, local):
        if not any(rule.covers(exchange, difference.where) for rule in rules):
            found.append(difference)
            if len(found) == MAX_DIFFERENCES:
                break
    return found


def differences(target: Answer, local: Answer) -> Iterator[Difference]:
    """All of them, in the order of a reader's interest."""
    if target.status != local.status:
        yield Difference("status", str(target.status), str(local.status))
    yield from _bodies(target, local)
    theirs, ours = _by_name(target), _by_name(local)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            yield Difference(f"header:{name}", theirs.get(name, ""), ours.get(name, ""))


def _by_name(answer: Answer) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in [*answer.headers, *answer.trailers]:
        name = name.lower()
        if name not in VOLATILE:
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _bodies(target: Answer, local: Answer) -> Iterator[Difference]:
    is_json, theirs = as_json(target.headers, target.body)
    both, ours = as_json(local.headers, local.body)
    if is_json and both:
        yield from _values("", theirs, ours)
        return
    a, b = plain(target.headers, target.body), plain(local.headers, local.body)
    if a != b or target.body.cut != local.body.cut:
        at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        yield Difference("body", _around(a, at), _around(b, at))


def _values(path: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            below = f"{path}.{key}" if path else str(key)
            if key not in theirs or key not in ours:
                yield Difference(f"body:{below}", _said(theirs, key), _said(ours, key))
            else:
                yield from _values(below, theirs[key], ours[key])
    elif isinstance(theirs, list) and isinstance(ours, list):
        for n in range(max(len(theirs), len(ours))):
            below = f"{path}.{n}" if path else str(n)
            if n >= len(theirs) or n >= len(ours):
                yield Difference(f"body:{below}", _item(theirs, n), _item(ours, n))
            else:
                yield from _values(below, theirs[n], ours[n])
    elif theirs != ours or type(theirs) is not type(ours):
        yield Difference(f"body:{path}" if path else "body", _json(theirs), _json(ours))


def _said(of: dict[str, Any], key: str) -> str:
    return _json(of[key]) if key in of else ""


def _item(of: list[Any], n: int) -> str:
    return _json(of[n]) if n < len(of) else ""


def _json(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "…"


def _around(data: bytes, at: int) -> str:
    """The bytes around the first difference."""
    start = max(0, at - 20)
    return ("…" if start else "") + data[start : at + 60].decode(errors="replace") + ("…" if at + 60 < len(data) else "")


class Learner:
    """What the target answers differently when it is asked the same thing again; gives rules that ignore it."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str, bytes], Answer] = {}
        self._seen: dict[Rule, int] = {}

    def see(self, exchange: Exchange) -> None:
        """An exchange that the target has answered."""
        answer = exchange.answers[TARGET]
        key = (exchange.method, exchange.path, bytes(exchange.body.data))
        before = self._last.pop(key, None)
        self._last[key] = answer
        if len(self._last) > MAX_LEARNT:
            del self._last[next(iter(self._last))]
        if before is None or before.status != answer.status:
            return  # another state of things, not noise
        path = exchange.path.partition("?")[0]
        for difference in differences(before, answer):
            what = re.sub(r"(?<=[.:])\d+(?=\.|\Z)", "*", difference.where)
            rule = Rule(what, exchange.method, path)
            self._seen[rule] = self._seen.get(rule, 0) + 1

    def proposals(self, among: Iterable[Rule] | None = None) -> list[Rule]:
        """The most often seen first; one without method and path where several requests agree."""
        by_what: dict[str, list[Rule]] = {}
        for rule in sorted(self._seen, key=lambda rule: -self._seen[rule]):
            by_what.setdefault(rule.what, []).append(rule)
        known = set(among or ())
        found = [Rule(what) if len(rules) > 1 else rules[0] for what, rules in by_what.items()]
        return [rule for rule in found if rule not in known]
