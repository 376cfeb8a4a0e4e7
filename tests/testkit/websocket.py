"""The other side of a WebSocket, by the definitions of RFC 6455: what a server writes, and how it reads what a client wrote."""

from __future__ import annotations

import struct


def server_frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack(">H", len(payload)) + payload
    return head + b"\x7f" + struct.pack(">Q", len(payload)) + payload


def unmasked(frame: bytes) -> tuple[int, bytes]:
    """What a server reads: by the RFC's definition, a byte at a time."""
    size, at = frame[1] & 0x7F, 2
    assert frame[0] & 0x80 and frame[1] & 0x80, "final and masked"
    if size >= 126:
        form = ">H" if size == 126 else ">Q"
        (size,) = struct.unpack_from(form, frame, 2)
        at += struct.calcsize(form)
    key, body = frame[at : at + 4], frame[at + 4 :]
    assert len(body) == size
    return frame[0] & 15, bytes(byte ^ key[n % 4] for n, byte in enumerate(body))
