"""Which requests are a session's: mirrord's http_filter, compiled from JSON; pure.

A filter is one of `header`, `path`, `method` (texts), `body` ({body: json, query, matches}), `all_of`, `any_of` (lists of
filters); beside it `probes` (take the kubelet's probes too), `max_body` (bytes) and `body_time` (ms). Answers have three
values: None is "that depends on the body".
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from sidestage.http.jsonpath import JSONPathError, Path
from sidestage.http.patterns import MAX_INPUT, Engine, Lines, Pattern, PatternError

MAX_BODY, BODY_TIME = 65_535, 1_000  # defaults of mirrord's agent
MAX_FILTERS = 100  # in all_of and any_of together
KINDS = ("header", "path", "method", "body", "all_of", "any_of")
OPTIONS = ("probes", "max_body", "body_time")
PROBE = r"\Auser-agent: kube-probe/"

Answer = Optional[bool]
Check = Callable[["Facts"], Answer]


class FilterError(ValueError):
    """`where` is the key below the filter, such as `all_of[1].path`."""

    def __init__(self, where: str, text: str) -> None:
        super().__init__(f"{where}: {text}" if where else text)
        self.where, self.text = where, text


class Facts:
    """A request as filters see it. `body` None: not known yet; b"" when there is none or it is out of bounds."""

    __slots__ = ("_fields", "_lines", "_paths", "body", "method", "target")

    def __init__(self, method: str, target: str, fields: Callable[[], List[str]], body: Optional[bytes]) -> None:
        """`fields()` gives each field as `name: value`."""
        self.method, self.target, self.body, self._fields = method, target, body, fields
        self._lines: List[str] = []
        self._paths: Tuple[str, ...] = ()

    def lines(self) -> List[str]:
        if not self._lines:
            self._lines = self._fields()
        return self._lines

    def paths(self) -> Tuple[str, ...]:
        """The path, and the path with its query."""
        if not self._paths:
            target = self.target
            if "://" in target[:12]:  # absolute-form, RFC 9112 3.2.2
                slash = target.find("/", target.index("://") + 3)
                target = target[slash:] if slash >= 0 else "/"
            self._paths = (target.partition("?")[0], target) if "?" in target else (target,)
        return self._paths


class Filter:
    """Raises FilterError."""

    def __init__(self, spec: Dict[str, Any]) -> None:
        if not isinstance(spec, dict):
            raise FilterError("", "must be an object")
        self.expired: List[str] = []  # patterns that took too long, and match nothing any more
        self._count = 0
        self._lines = Lines(self.expired)  # of all `header`s; what they said of the request at hand is in _said
        self._said: Optional[int] = None
        self._kubelet = self._lines.add(Pattern(PROBE, self.expired))
        options = {key: spec[key] for key in OPTIONS if key in spec}
        rest = {key: value for key, value in spec.items() if key not in OPTIONS}
        self._check = self._compile(rest, "") if rest else _always
        self.probes = options.get("probes", False) is True
        self.max_body, self.body_time = options.get("max_body", MAX_BODY), options.get("body_time", BODY_TIME)
        for key in ("max_body", "body_time"):
            if type(getattr(self, key)) is not int or getattr(self, key) < 0:
                raise FilterError(key, "must be a whole number")

    def answer(self, facts: Facts) -> Answer:
        self._said = None
        return False if not self.probes and self._says(facts, self._kubelet) else self._check(facts)

    def _says(self, facts: Facts, bit: int) -> bool:
        if self._said is None:
            self._said = self._lines.said(facts.lines())
        return bool(self._said & bit)

    def _compile(self, spec: Any, where: str) -> Check:
        self._count += 1
        if not isinstance(spec, dict) or len(spec) != 1:
            raise FilterError(where, f"must have exactly one of {', '.join(KINDS)}")
        if self._count > MAX_FILTERS:
            raise FilterError(where, f"more than {MAX_FILTERS} filters")
        ((kind, value),) = spec.items()
        below = f"{where}.{kind}" if where else kind
        if kind in ("all_of", "any_of"):
            if not isinstance(value, (list, tuple)) or not value:
                raise FilterError(below, "must be a list of filters, and not empty")
            checks = [self._compile(item, f"{below}[{number}]") for number, item in enumerate(value)]
            return (lambda facts: _all(checks, facts)) if kind == "all_of" else (lambda facts: _any(checks, facts))
        if kind == "body":
            return self._body(value, below)
        if kind not in KINDS:
            raise FilterError(below, f"unknown, must be one of {', '.join(KINDS)}")
        if not isinstance(value, str) or not value:
            raise FilterError(below, "must be a text, and not empty")
        if kind == "method":
            method = value.upper()
            return lambda facts: facts.method.upper() == method
        pattern = self._pattern(value, below)
        if kind == "path":
            return lambda facts: pattern.any(facts.paths())
        bit = self._lines.add(pattern)
        return lambda facts: self._says(facts, bit)

    def _pattern(self, text: str, where: str) -> Pattern:
        try:
            return Pattern(text, self.expired)
        except PatternError as error:
            raise FilterError(where, f"not a regular expression: {error}") from None

    def _body(self, spec: Any, where: str) -> Check:
        if not isinstance(spec, dict) or set(spec) - {"body", "query", "matches"} or spec.get("body") != "json":
            raise FilterError(where, 'must have `body: "json"`, `query` and `matches`')
        for key in ("query", "matches"):
            if not isinstance(spec.get(key), str) or not spec[key]:
                raise FilterError(f"{where}.{key}", "must be a text, and not empty")
        try:
            path = Path(spec["query"], Engine(self.expired).search)
        except JSONPathError as error:
            raise FilterError(f"{where}.query", f"not a JSONPath: {error}") from None
        find = self._pattern(spec["matches"], f"{where}.matches").any

        def check(facts: Facts) -> Answer:
            if facts.body is None:
                return None
            document = _parse(facts.body)
            return document is not None and find(map(_text, path.find(document[0])))

        return check


def _parse(body: bytes) -> Optional[List[Any]]:
    try:
        return [json.loads(body)] if body else None
    except (ValueError, RecursionError):
        return None


def _text(node: Any) -> str:
    text = node if isinstance(node, str) else json.dumps(node, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= MAX_INPUT else " " * (MAX_INPUT + 1)


def _always(_facts: Facts) -> Answer:
    return True


def _all(checks: List[Check], facts: Facts) -> Answer:
    unknown = False
    for check in checks:
        answer = check(facts)
        if answer is False:
            return False
        unknown = unknown or answer is None
    return None if unknown else True


def _any(checks: List[Check], facts: Facts) -> Answer:
    unknown = False
    for check in checks:
        answer = check(facts)
        if answer:
            return True
        unknown = unknown or answer is None
    return None if unknown else False
