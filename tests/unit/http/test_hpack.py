"""Header compression: the vectors of RFC 7541 appendix C, the hpack library as an oracle, and what must be refused."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as s

from sidestage.http.hpack import MAX_LIST, Decoder, Field, HpackError, encode

Pairs = list[tuple[bytes, bytes]]
FIRST: Pairs = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
SECOND: Pairs = [*FIRST, (b"cache-control", b"no-cache")]
THIRD: Pairs = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), (b":authority", b"www.example.com")]
THIRD += [(b"custom-key", b"custom-value")]
DATE, LATER = b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT"
R1: Pairs = [(b":status", b"302"), (b"cache-control", b"private"), (b"date", DATE), (b"location", b"https://www.example.com")]
R2: Pairs = [(b":status", b"307"), *R1[1:]]
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
R3: Pairs = [(b":status", b"200"), (b"cache-control", b"private"), (b"date", LATER), (b"location", b"https://www.example.com")]
R3 += [(b"content-encoding", b"gzip"), (b"set-cookie", COOKIE)]

# Appendix, the blocks of one connection, what they mean, and whether the table has 256 bytes only
VECTORS: dict[str, tuple[list[str], list[Pairs], bool]] = {
    "C.2.1": (["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [[(b"custom-key", b"custom-header")]], False),
    "C.2.2": (["040c2f73616d706c652f70617468"], [[(b":path", b"/sample/path")]], False),
    "C.2.3": (["100870617373776f726406736563726574"], [[(b"password", b"secret")]], False),
    "C.2.4": (["82"], [[(b":method", b"GET")]], False),
    "C.3": (
        ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
         "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"],
        [FIRST, SECOND, THIRD], False,
    ),
    "C.4": (
        ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"],
        [FIRST, SECOND, THIRD], False,
    ),
    "C.5": (
        [("4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
         "6e1768747470733a2f2f7777772e6578616d706c652e636f6d"),
         "4803333037c1c0bf",
         ("88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41"
         "53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31")],
        [R1, R2, R3], True,
    ),
    "C.6": (
        ["488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
         "4883640effc1c0bf",
         ("88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
         "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007")],
        [R1, R2, R3], True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("blocks", "meaning", "small"), VECTORS.values(), ids=VECTORS.keys())
def test_the_vectors_of_the_rfc(blocks: list[str], meaning: list[Pairs], small: bool) -> None:
    decoder = Decoder()
    if small:
        assert decoder.decode(encode([], [256])) == ([], [256])
    for block, pairs in zip(blocks, meaning, strict=True):
        fields, _ = decoder.decode(bytes.fromhex(block))
        assert [field[:2] for field in fields] == pairs
    assert [field.sensitive for field in Decoder().decode(bytes.fromhex(VECTORS["C.2.3"][0][0]))[0]] == [True]


names = s.sampled_from([b":path", b"cookie", b"x-a", b"x-b", b"accept-encoding"]) | s.binary(min_size=1, max_size=8)
pairs = s.lists(s.tuples(names, s.binary(max_size=40) | s.sampled_from([b"", b"gzip, deflate", b"/", b"x" * 300])), max_size=12)


@given(s.lists(s.tuples(pairs, s.booleans(), s.none() | s.integers(0, 5000)), max_size=8))
def test_what_another_encoder_writes(blocks: list[tuple[Pairs, bool, int | None]]) -> None:
    encoder, decoder = hpack.Encoder(), Decoder(5000)
    for block, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        fields, _ = decoder.decode(encoder.encode(block, huffman=huffman))
        assert [field[:2] for field in fields] == block


@given(s.lists(s.tuples(pairs, s.booleans()), max_size=6))
def test_what_another_decoder_reads(blocks: list[tuple[Pairs, bool]]) -> None:
    """Ours go between the blocks of another encoder, and touch nothing."""
    encoder, decoder = hpack.Encoder(), hpack.Decoder()
    for block, ours in blocks:
        raw = encode(Field(*pair, sensitive=len(pair[1]) == 3) for pair in block) if ours else encoder.encode(block)
        assert [(bytes(name), bytes(value)) for name, value in decoder.decode(raw, raw=True)] == block


@pytest.mark.parametrize(
    "block",
    ["80", "be", "ff00", "ffffffffff7f", "40", "4001", "0001", "000161", "00016105", "008100", "00016181ff", "00016184ffffffff",
     "828720", "3fe21f", "0001618100", "7f", "1f"],
)  # fmt: skip
def test_blocks_that_must_be_refused(block: str) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(bytes.fromhex(block))


def test_a_small_block_can_not_become_a_large_list() -> None:
    """An entry of 4 KiB, named again and again by one byte."""
    decoder = Decoder()
    block = encode([Field(b"x", b"y" * 4000)])
    block = b"\x40" + block[1:]
    decoder.decode(block)
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe" * (MAX_LIST // 4000))


@given(s.binary(max_size=200))
def test_whatever_comes(block: bytes) -> None:
    try:
        fields, _ = Decoder().decode(block)
    except HpackError:
        return
    assert Decoder().decode(encode(fields))[0] == fields
