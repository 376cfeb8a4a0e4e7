"""The first message of clients of TLS, real ones and made up ones, in whatever pieces it comes."""

from __future__ import annotations

import ssl
import struct

import pytest

from sidestage.tls.hello import MAX_FIRST, MAX_HELLO, Hello, NotTls, Reader


def real(name: str = "a.example", *alpn: str, most: ssl.TLSVersion | None = None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if most:
        context.maximum_version = most
    if alpn:
        context.set_alpn_protocols(list(alpn))
    back, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, out, server_hostname=name or None)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def message(*extensions: tuple[int, bytes], version: int = 0x0303, body: bytes = b"") -> bytes:
    """A message of one record, made by hand."""
    listed = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
    body = body or struct.pack("!H32sBH2sBB", version, b"r" * 32, 0, 2, b"\x13\x01", 1, 0)
    body += struct.pack("!H", len(listed)) + listed if extensions else b""
    return records(b"\1" + len(body).to_bytes(3, "big") + body)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\3\1" + struct.pack("!H", len(part)) + part for part in parts)


def sni(*names: tuple[int, bytes]) -> tuple[int, bytes]:
    listed = b"".join(struct.pack("!BH", kind, len(name)) + name for kind, name in names)
    return 0, struct.pack("!H", len(listed)) + listed


def alpn(*names: bytes) -> tuple[int, bytes]:
    listed = b"".join(bytes([len(name)]) + name for name in names)
    return 16, struct.pack("!H", len(listed)) + listed


READ = {
    "of OpenSSL": (real(), Hello("a.example", (), True)),
    "with protocols": (real("a.example", "h2", "http/1.1"), Hello("a.example", ("h2", "http/1.1"), True)),
    "of no server": (real(""), Hello("", (), True)),
    "of TLS 1.2": (real(most=ssl.TLSVersion.TLSv1_2), Hello("a.example", (), True)),
    "without extensions": (message(), Hello("", (), True)),
    "of TLS 1.1": (message(version=0x0302), Hello("", (), False)),
    "of TLS 1.3 and GREASE": (message((43, b"\x06\xfa\xfa\3\4\3\3"), version=0x0303), Hello("", (), True)),
    "of TLS 1.0 in the extension": (message((43, b"\x04\x2a\x2a\3\1")), Hello("", (), False)),
    "GREASE among the protocols": (message(alpn(b"\xfa\xfa", b"h2")), Hello("", ("h2",), True)),
    "of an unknown kind of name": (message(sni((7, b"x"), (0, b"b.example"))), Hello("b.example", (), True)),
    "in many records": (records(real("a.example", "h2")[5:], 7), Hello("a.example", ("h2",), True)),
    "with more behind it": (real() + b"\x14\3\3\0\1\1", Hello("a.example", (), True)),
}  # fmt: skip


@pytest.mark.parametrize("step", [0, 1, 3, 100])
@pytest.mark.parametrize("which", READ)
def test_it_is_read(which: str, step: int) -> None:
    data, want = READ[which]
    reader, found = Reader(), None
    for at in range(0, len(data), step or len(data)):
        assert found is None or which == "with more behind it"
        found = found or reader.feed(data[at : at + (step or len(data))])
    assert found == want


NO_TLS = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n",
    "SSL 2": b"\x80\x2e\1\0\2",
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + real(),
    "another version": b"\x16\4\1\0\5\1\0\0\1x",
    "an empty record": b"\x16\3\1\0\0",
    "a record too long": b"\x16\3\1\x40\1\1",
    "another handshake message": b"\x16\3\1\0\4\2\0\0\0",
    "an alert": b"\x15\3\1\0\2\2\x28",
    "too long a message": records(b"\1" + (MAX_HELLO + 1).to_bytes(3, "big") + b"x" * 100),
    "too many records": records(b"\1" + MAX_HELLO.to_bytes(3, "big") + b"x" * MAX_HELLO, 4)[: MAX_FIRST + 20],
    "no body": message(body=b"\3\3"),
    "a session beyond the end": message(body=struct.pack("!H32sB", 0x0303, b"r" * 32, 200)),
    "extensions beyond the end": message(body=struct.pack("!H32sBH2sBBH", 0x0303, b"r" * 32, 0, 2, b"\x13\x01", 1, 0, 99)),
    "a name that is no text": message(sni((0, b"\xff\xfe"))),
    "a name beyond its list": message((0, b"\0\4\0\0\x09x")),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("which", NO_TLS)
def test_what_it_is_not_is_known_at_once(which: str, step: int) -> None:
    data = NO_TLS[which]
    reader = Reader()
    with pytest.raises(NotTls):
        for at in range(0, len(data), step or len(data)):
            assert reader.feed(data[at : at + (step or len(data))]) is None


def test_no_beginning_of_it_is_taken_for_anything_else() -> None:
    data = real("a.example", "h2")
    for end in range(len(data)):
        assert Reader().feed(data[:end]) is None
