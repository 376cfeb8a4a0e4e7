"""JSONPath, by examples of RFC 9535 and some of our own."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sidestage.http.jsonpath import JSONPathError, Path
from sidestage.http.patterns import Engine

STORE: dict[str, Any] = {  # RFC 9535 1.5
    "store": {
        "book": [
            {"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95},
            {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99},
            {"category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553-21311-3", "price": 8.99},
            {"category": "fiction", "author": "J. Tolkien", "title": "The Lord of the Rings", "isbn": "0-395-8", "price": 22.99},
        ],
        "bicycle": {"color": "red", "price": 399},
    }
}  # fmt: skip
BOOKS: list[Any] = STORE["store"]["book"]
LIST: list[Any] = [3, 5, 1, 2, 4, 6, {"b": "j"}, {"b": "k"}, {"b": {}}, {"b": "kilo"}]
ODD: dict[str, Any] = {"o": {"j j": {"k.k": 3}}, "'": {"@": 2}, "a": LIST,
                       "t": True, "n": None, "e": [], "f": 1.5, "s": "text", "\u263a": 1}  # fmt: skip


def find(query: str, document: Any) -> Any:
    return Path(query, Engine([]).search).find(document)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("$.store.book[*].author", [book["author"] for book in BOOKS]),
        ("$..author", [book["author"] for book in BOOKS]),
        ("$.store.*", [BOOKS, STORE["store"]["bicycle"]]),
        ("$.store..price", [399, 8.95, 12.99, 8.99, 22.99]),
        ("$..book[2].author", ["Herman Melville"]),
        ("$..book[2].publisher", []),
        ("$..book[-1].title", ["The Lord of the Rings"]),
        ("$..book[0,1].price", [8.95, 12.99]),
        ("$..book[:2].price", [8.95, 12.99]),
        ("$..book[::-2].price", [22.99, 12.99]),
        ("$..book[?@.isbn].price", [8.99, 22.99]),
        ("$..book[?@.price<10].title", ["Sayings of the Century", "Moby Dick"]),
        ("$..book[?@.price < $.store.bicycle.price && @.category=='fiction'].price", [12.99, 8.99, 22.99]),
        ("$..book[?!(@.isbn || @.price > 10)].price", [8.95]),
        ("$..book[?search(@.author, 'M.*e$')].price", [8.99]),
        ("$..book[?match(@.author, 'Evelyn|Nigel Rees')].price", [8.95]),
        ("$..book[?length(@.title) == 9].price", [8.99]),
        ("$.store[?count(@.*) == 2].color", ["red"]),
        ("$.store[?typeof(@.color) == 'string'].price", [399]),
        ("$", [STORE]),
        ("$[ 'store' ] ['bicycle'].color", ["red"]),
    ],
)
def test_the_store(query: str, found: Any) -> None:
    assert sorted(map(str, find(query, STORE))) == sorted(map(str, found))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("$.o['j j']['k.k']", [3]),
        ("$.o[\"j j\"][\"k.k\"]", [3]),
        ("$[\"'\"][\"@\"]", [2]),
        ("$['\\'']['@']", [2]),
        ("$.a[?@.b == 'kilo']", [{"b": "kilo"}]),
        ("$.a[?@>3.5]", [5, 4, 6]),
        ("$.a[?(@.b)].b", ["j", "k", {}, "kilo"]),
        ("$[?@ == true]", [True]),
        ("$[?@ == null]", [None]),
        ("$[?@ == 1]", [1]),
        ("$[?@.missing == $.none].x", []),
        ("$.a[9].b", ["kilo"]),
        ("$.a[10]", []),
        ("$.a[1:3]", [5, 1]),
        ("$.a[5:1:-2]", [6, 2]),
        ("$.a[::0]", []),
        ("$.s[0]", []),
        ("$.e[*]", []),
        ("$.\u263a", [1]),
        ("$.a[?@ >= 5 || @ <= 1]", [5, 1, 6]),
        ("$[?typeof(@) == 'boolean']", [True]),
        ("$[?value(@..nothing) == 1]", []),
    ],
)
def test_odd_ones(query: str, found: Any) -> None:
    assert find(query, ODD) == found


@pytest.mark.parametrize(
    "query",
    ["", "store", "$.", "$..", "$[", "$[]", "$['a]", "$[1", "$[?]", "$[?@.a ==]", "$[?'a']", "$[?@.a == 1", "$.a b", "$[?foo(@)]",
     "$[01]", "$[?length(@.a]", "$[" + "?(" * 100, "$" + ".a" * 2000, "$['\\x']", "$[1:2:3:4]", "$ .a "],
)  # fmt: skip
def test_what_is_none(query: str) -> None:
    with pytest.raises(JSONPathError):
        find(query, {})


def test_a_query_that_would_look_at_too_much_finds_nothing() -> None:
    document: Any = 1
    for _ in range(300):
        document = [document, 0, 0]
    begun = time.thread_time()
    assert find("$..*..*..*..*", document) == []
    assert time.thread_time() - begun < 10
