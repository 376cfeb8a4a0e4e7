"""JSONPath (RFC 9535) for body filters: names, indices, slices, wildcards, descendants, filters, and its functions.

`typeof()` is an addition that mirrord's filters have. A query is compiled to closures over (root, node); the nodes that one
query looks at are counted, so that `$..*..*` of a large body ends.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, NoReturn, Tuple, cast

MAX_VISITS = 100_000  # nodes that one query may look at
MAX_QUERY = 2_000  # characters
MAX_DEPTH = 30  # of brackets within brackets

Nodes = List[Any]
Segment = Callable[[Any, Any], Nodes]  # (root, node) -> the nodes it selects
Value = Callable[[Any, Any], Any]
NOTHING = object()  # a query without a result, compared

_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_\x80-\U0010ffff][0-9A-Za-z_\x80-\U0010ffff]*")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.S)
_COMPARE = re.compile(r"==|!=|<=|>=|<|>")
_FUNCTION = re.compile(r"([a-z][a-z_0-9]*)\(")
_FUNCTIONS = {"length": 1, "count": 1, "value": 1, "typeof": 1, "match": 2, "search": 2}
_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null", int: "number", float: "number"}


class JSONPathError(ValueError):
    """The query can't be read; says where."""


class Path:
    """A compiled query. Raises JSONPathError."""

    def __init__(self, query: str, search: Callable[[str, str, bool], bool]) -> None:
        """`search(pattern, text, whole)` is the regular expressions' engine, with its bounds."""
        if len(query) > MAX_QUERY:
            raise JSONPathError(f"longer than {MAX_QUERY} characters")
        self._visits = [0]
        self._segments = _Parser(query, search, self._visits).query()

    def find(self, document: Any) -> Nodes:
        """The nodes it selects; none when it would look at too many."""
        self._visits[0] = 0
        try:
            return _walk(self._segments, document, document)
        except (OverflowError, RecursionError):
            return []


def _walk(segments: List[Segment], root: Any, node: Any) -> Nodes:
    nodes = [node]
    for segment in segments:
        nodes = [found for one in nodes for found in segment(root, one)]
    return nodes


def _children(node: Any) -> Nodes:
    return list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []


class _Parser:
    def __init__(self, text: str, search: Callable[[str, str, bool], bool], visits: List[int]) -> None:
        self._text, self._at, self._search, self._visits, self._depth = text, 0, search, visits, 0

    # -- reading --

    def _fail(self, what: str) -> NoReturn:
        raise JSONPathError(f"{what} at character {self._at + 1} of {self._text!r}")

    def _space(self) -> None:
        self._at = cast("re.Match[str]", _SPACE.match(self._text, self._at)).end()

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            self._fail(f"{text!r} is missing")

    def _match(self, pattern: "re.Pattern[str]") -> str:
        match = pattern.match(self._text, self._at)
        if not match:
            return ""
        self._at = match.end()
        return match[0]

    def _string(self, quoted: str) -> str:
        inner = quoted[1:-1]
        if quoted[0] == "'":
            inner = re.sub(r"\\.|\"", lambda m: {"\\'": "'", '"': '\\"'}.get(m[0], m[0]), inner, flags=re.S)
        try:
            return cast("str", json.loads(f'"{inner}"'))
        except ValueError:
            self._fail("a broken text")

    # -- queries --

    def query(self) -> List[Segment]:
        self._expect("$")
        segments = self._segments()
        if self._at != len(self._text):
            self._fail("something unexpected")
        return segments

    def _segments(self) -> List[Segment]:
        found: List[Segment] = []
        while True:
            before = self._at
            self._space()
            if self._take(".."):
                found.append(self._descend(self._bracket() if self._take("[") else self._dotted()))
            elif self._take("."):
                found.append(self._dotted())
            elif self._take("["):
                found.append(self._bracket())
            else:
                self._at = before
                return found

    def _dotted(self) -> Segment:
        if self._take("*"):
            return self._wildcard()
        name = self._match(_NAME)
        if not name:
            self._fail("a name or * is missing")
        return _member(name)

    def _bracket(self) -> Segment:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("too deeply nested")
        selectors = [self._selector()]
        while self._take(","):
            selectors.append(self._selector())
        self._expect("]")
        self._depth -= 1
        if len(selectors) == 1:
            return selectors[0]
        return lambda root, node: [found for selector in selectors for found in selector(root, node)]

    def _selector(self) -> Segment:
        self._space()
        quoted = self._match(_STRING)
        if quoted:
            selector = _member(self._string(quoted))
        elif self._take("*"):
            selector = self._wildcard()
        elif self._take("?"):
            selector = self._filter()
        else:
            selector = self._index()
        self._space()
        return selector

    def _index(self) -> Segment:
        parts = [self._match(_INTEGER)]
        self._space()
        while len(parts) < 3 and self._take(":"):
            self._space()
            parts.append(self._match(_INTEGER))
            self._space()
        if parts == [""]:
            self._fail("a selector is missing")
        numbers = [int(part) if part else None for part in parts]
        if len(parts) == 1:
            index = cast("int", numbers[0])
            return lambda _root, node: [node[index]] if isinstance(node, list) and -len(node) <= index < len(node) else []
        if len(numbers) == 3 and numbers[2] == 0:
            return lambda _root, _node: []
        return lambda _root, node: node[slice(*numbers)] if isinstance(node, list) else []

    def _count(self, nodes: Nodes) -> Nodes:
        self._visits[0] += len(nodes)
        if self._visits[0] > MAX_VISITS:
            raise OverflowError
        return nodes

    def _wildcard(self) -> Segment:
        return lambda _root, node: self._count(_children(node))

    def _descend(self, segment: Segment) -> Segment:
        def every(node: Any) -> Nodes:
            nodes = [node]
            for one in nodes:
                nodes += self._count(_children(one))
            return nodes

        return lambda root, node: [found for one in every(node) for found in segment(root, one)]

    def _filter(self) -> Segment:
        self._space()
        test = self._or()
        return lambda root, node: [child for child in self._count(_children(node)) if test(root, child)]

    # -- filters' expressions --

    def _or(self) -> Value:
        tests = [self._and()]
        while self._spaced("||"):
            tests.append(self._and())
        return tests[0] if len(tests) == 1 else lambda root, node: any(test(root, node) for test in tests)

    def _and(self) -> Value:
        tests = [self._basic()]
        while self._spaced("&&"):
            tests.append(self._basic())
        return tests[0] if len(tests) == 1 else lambda root, node: all(test(root, node) for test in tests)

    def _spaced(self, text: str) -> bool:
        self._space()
        return self._take(text)

    def _basic(self) -> Value:
        self._space()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("too deeply nested")
        try:
            if self._take("!"):
                inner = self._basic()
                return lambda root, node: not inner(root, node)
            if self._take("("):
                inner = self._or()
                self._space()
                self._expect(")")
                return inner
            left, exists = self._operand()
            self._space()
            operator = self._match(_COMPARE)
            if not operator:
                if exists is None:
                    self._fail("a comparison is missing")
                return cast("Value", exists)
            self._space()
            right, _ = self._operand()
            return lambda root, node: _compare(operator, left(root, node), right(root, node))
        finally:
            self._depth -= 1

    def _operand(self) -> Tuple[Value, Any]:
        """Its value for comparisons, and its test of existence (None: a literal has none)."""
        quoted = self._match(_STRING)
        if quoted:
            return _constant(self._string(quoted)), None
        function = _FUNCTION.match(self._text, self._at)
        if function:
            self._at = function.end()
            return self._call(function[1])
        for text, constant in (("true", True), ("false", False), ("null", None)):
            if self._take(text):
                return _constant(constant), None
        if self._text.startswith(("$", "@"), self._at):
            nodes = self._nodes()
            return (lambda root, node: _single(nodes(root, node))), (lambda root, node: bool(nodes(root, node)))
        number = self._match(_NUMBER)
        if not number:
            self._fail("a value is missing")
        return _constant(json.loads(number)), None

    def _nodes(self) -> Segment:
        relative = self._take("@")
        if not relative:
            self._expect("$")
        segments = self._segments()
        return lambda root, node: _walk(segments, root, node if relative else root)

    def _call(self, name: str) -> Tuple[Value, Any]:
        if name not in _FUNCTIONS:
            self._fail(f"there is no function {name}()")
        arguments: List[Value] = []
        for number in range(_FUNCTIONS[name]):
            if number:
                self._space()
                self._expect(",")
            self._space()
            if name in ("count", "value", "typeof") and self._text.startswith(("$", "@"), self._at):
                arguments.append(self._nodes())
            else:
                arguments.append(self._operand()[0])
        self._space()
        self._expect(")")
        first = arguments[0]
        if name in ("match", "search"):
            whole, second, search = name == "match", arguments[1], self._search

            def test(root: Any, node: Any) -> bool:
                text, pattern = first(root, node), second(root, node)
                return isinstance(text, str) and isinstance(pattern, str) and search(pattern, text, whole)

            return test, test
        functions: Dict[str, Value] = {
            "length": lambda root, node: _length(first(root, node)),
            "count": lambda root, node: len(first(root, node)),
            "value": lambda root, node: _single(first(root, node)),
            "typeof": lambda root, node: _TYPES.get(type(_single(first(root, node))), "nothing"),
        }
        return functions[name], None


def _member(name: str) -> Segment:
    return lambda _root, node: [node[name]] if isinstance(node, dict) and name in node else []


def _constant(value: Any) -> Value:
    return lambda _root, _node: value


def _single(nodes: Nodes) -> Any:
    return nodes[0] if len(nodes) == 1 else NOTHING


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, (str, list, dict)) else NOTHING


def _compare(operator: str, left: Any, right: Any) -> bool:
    """RFC 9535 2.3.5.2.2: numbers with numbers, texts with texts; true is no number."""
    kinds = {_TYPES.get(type(left)), _TYPES.get(type(right))}
    equal = len(kinds) == 1 and left == right
    if operator in ("==", "!="):
        return equal == (operator == "==")
    if len(kinds) != 1 or not kinds <= {"number", "string"}:
        return equal and operator in ("<=", ">=")
    return cast("bool", {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator])
