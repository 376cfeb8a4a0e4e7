"""Header compression of HTTP/2 (RFC 7541): a decoder with its dynamic table, and an encoder that keeps no state.

What we encode uses literals without indexing and the static table only, so it can be put between the blocks of another
encoder without touching the table that it shares with its decoder.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Deque, Dict, FrozenSet, Iterable, List, NamedTuple, Tuple

TABLE = 4096  # bytes of a dynamic table unless SETTINGS say otherwise
MAX_LIST = 256 << 10  # bytes of a decoded header list; Go's server takes 1 MiB, Node's 64 KiB
_CACHED = 256  # bytes of a value that is worth remembering
_OVERHEAD = 32  # bytes that an entry counts beside name and value, RFC 7541 4.1

_STATIC = (
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206|"
    ":status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|"
    "accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding|"
    "content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|"
    "if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-transport-security|"
    "transfer-encoding|user-agent|vary|via|www-authenticate"
)
# Lengths of the Huffman codes of RFC 7541 appendix B, of the bytes 0 to 255 and EOS, in base 36. The code is canonical (codes of
# one length follow each other in the order of symbols), so it follows from them.
_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f56565666577666567655677777fbeds"
    "kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)


class HpackError(Exception):
    """The block can't be decoded: the connection's table is lost."""


class Field(NamedTuple):
    name: bytes
    value: bytes
    sensitive: bool = False  # never to be indexed, RFC 7541 7.1.3


STATIC: List[Field] = [Field(b"", b"")]
STATIC += [Field(name, value) for name, _, value in (entry.encode().partition(b" ") for entry in _STATIC.split("|"))]
_EXACT: Dict[Tuple[bytes, bytes], int] = {field[:2]: number for number, field in reversed(list(enumerate(STATIC))) if number}
_NAMES: Dict[bytes, int] = {field.name: number for number, field in reversed(list(enumerate(STATIC))) if number}


class Decoder:
    def __init__(self, limit: int = TABLE) -> None:
        self.limit = limit  # what our side's SETTINGS_HEADER_TABLE_SIZE allows
        self._capacity = TABLE
        self._table: Deque[Field] = deque()
        self._size = 0

    def decode(self, block: bytes) -> Tuple[List[Field], List[int]]:
        """The fields, and the sizes that the encoder gave its table before them. Raises HpackError."""
        fields: List[Field] = []
        updates: List[int] = []
        at, end, total = 0, len(block), 0
        try:
            while at < end:
                first = block[at]
                if first & 0x80:
                    index, at = _integer(block, at, 0x7F)
                    field = self._entry(index)
                elif first & 0xE0 == 0x20:
                    size, at = _integer(block, at, 0x1F)
                    if fields or size > self.limit:
                        raise HpackError("a table size out of place or bounds")
                    updates.append(size)
                    self._capacity = size
                    self._evict()
                    continue
                else:
                    index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
                    if index:
                        name = self._entry(index).name
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    field = Field(name, value, first & 0xF0 == 0x10)
                    if first & 0x40:
                        self._table.appendleft(field)
                        self._size += len(name) + len(value) + _OVERHEAD
                        self._evict()
                total += len(field.name) + len(field.value) + _OVERHEAD
                if total > MAX_LIST:
                    raise HpackError("too long a header list")
                fields.append(field)
        except IndexError:
            raise HpackError("cut, or an index that is not there") from None
        return fields, updates

    def _entry(self, index: int) -> Field:
        if index < 62:
            if not index:
                raise HpackError("index 0")
            return STATIC[index]
        return self._table[index - 62]

    def _evict(self) -> None:
        while self._size > self._capacity:
            field = self._table.pop()
            self._size -= len(field.name) + len(field.value) + _OVERHEAD


def encode(fields: Iterable[Field], updates: Iterable[int] = ()) -> bytes:
    """A block that any decoder takes in any state; `updates` announces sizes of its table."""
    sizes = [_prefixed(0x20, 0x1F, size) for size in updates]
    return b"".join(sizes + [_encoded(field) if len(field.value) < _CACHED else _encode(field) for field in fields])


def _encode(field: Field) -> bytes:
    name, value, sensitive = field
    index = 0 if sensitive else _EXACT.get((name, value), 0)
    if index:
        return bytes((0x80 | index,))
    index = _NAMES.get(name, 0)
    head = _prefixed(0x10 if sensitive else 0, 0x0F, index)
    return b"".join((head, b"" if index else _written(name), _written(value)))


def _written(text: bytes) -> bytes:
    """In the shorter of its two forms, as servers count the bytes that come."""
    codes = _codes()
    bits = "".join([codes[byte] for byte in text])
    size = (len(bits) + 7) // 8
    if size >= len(text):
        return _prefixed(0, 0x7F, len(text)) + text
    return _prefixed(0x80, 0x7F, size) + int(bits.ljust(size * 8, "1"), 2).to_bytes(size, "big")


_encoded = lru_cache(1024)(_encode)


def _prefixed(bits: int, mask: int, value: int) -> bytes:
    """RFC 7541 5.1."""
    if value < mask:
        return bytes((bits | value,))
    out = [bits | mask]
    value -= mask
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*out, value])


def _integer(data: bytes, at: int, mask: int) -> Tuple[int, int]:
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 28, 7):
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("too large a number")


def _string(data: bytes, at: int) -> Tuple[bytes, int]:
    huffman = data[at] & 0x80
    length, at = _integer(data, at, 0x7F)
    raw = data[at : at + length]
    if len(raw) != length:
        raise HpackError("cut")
    if huffman:
        raw = _plain(raw) if length < _CACHED else _unhuffman(raw)
    return raw, at + length


def _unhuffman(data: bytes) -> bytes:
    """RFC 7541 5.2, four bits a step."""
    steps, accepting = _machine()
    out = bytearray()
    state = 0
    for byte in data:
        state, symbol = steps[state << 4 | byte >> 4]
        if symbol >= 0:
            out.append(symbol)
        state, symbol = steps[state << 4 | byte & 15]
        if symbol >= 0:
            out.append(symbol)
    if state not in accepting:
        raise HpackError("padding that is none")
    return bytes(out)


_plain = lru_cache(1024)(_unhuffman)


@lru_cache(1)
def _codes() -> List[str]:
    """The code of each byte, and of EOS, in ones and zeros."""
    found = [""] * len(_LENGTHS)
    code = previous = 0
    for length, symbol in sorted((int(length, 36), symbol) for symbol, length in enumerate(_LENGTHS)):
        code <<= length - previous
        previous = length
        found[symbol] = f"{code:0{length}b}"
        code += 1
    return found


@lru_cache(1)
def _machine() -> Tuple[List[Tuple[int, int]], FrozenSet[int]]:
    """(state << 4 | four bits) -> (next state, byte or -1), and the states in which a text may end. No code is shorter than
    5 bits, so four of them end no more than one. A state is a node of the tree; the last one is the failure."""
    tree: List[List[int]] = [[0, 0]]  # a node's two ways: > 0 a node, < 0 the symbol ~way
    for symbol, code in enumerate(_codes()):
        node = 0
        for digit in code[:-1]:
            way = int(digit)
            if not tree[node][way]:
                tree.append([0, 0])
                tree[node][way] = len(tree) - 1
            node = tree[node][way]
        tree[node][int(code[-1])] = ~symbol
    failure = len(tree)
    steps: List[Tuple[int, int]] = []
    for start in range(failure):
        for bits in range(16):
            node, found = start, -1
            for bit in (3, 2, 1, 0):
                way = tree[node][bits >> bit & 1]
                if way < 0:
                    found, way = ~way, 0
                node = way
                if found == 256:  # EOS within a text
                    node, found = failure, -1
                    break
            steps.append((node, found))
    steps += [(failure, -1)] * 16
    accepting, node = [0], 0
    for _ in range(7):  # padding: up to seven bits of EOS, which is all ones
        node = tree[node][1]
        accepting.append(node)
    return steps, frozenset(accepting)
