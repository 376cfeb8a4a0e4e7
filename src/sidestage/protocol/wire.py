"""The bytes on the wire. docs/protocol.md is this file in prose.

Each side first sends the preamble: MAGIC and its version. Then frames: a header (payload length, type, channel) and the
payload. For calls and their answers the channel field is the number of the call. Structured payloads are JSON; those that
also carry raw bytes begin with the JSON's length (u32).
"""

from __future__ import annotations

import struct

MAGIC = b"SIDESTG\n"
VERSION = 1
PREAMBLE = struct.Struct("!8sH")
HEADER = struct.Struct("!IBI")
LENGTH = struct.Struct("!I")

CALL, REPLY, FAIL = 1, 2, 3  # request of either side and its one answer
OPEN, ACCEPT, REFUSE = 4, 5, 6  # a channel's start
DATA, EOF, RESET, CREDIT = 7, 8, 9, 10  # a channel's life; EOF is a half-close, RESET ends both directions at once
EVENT, PING, PONG, BYE = 11, 12, 13, 14
KINDS = range(CALL, BYE + 1)

WINDOW = 1 << 20  # bytes a side may send on a channel before it is granted any
MAX_DATA = 64 << 10  # bytes in a DATA frame that we send; a receiver takes any up to MAX_PAYLOAD
MAX_PAYLOAD = (1 << 20) + (64 << 10)  # a 1 MiB `read` answer with its JSON; more is a broken peer
MAX_RECORD = 64 << 10  # bytes of a datagram or record, which travels in one frame; longer frames are parts of a stream
MAX_CHANNELS = 16384  # open at once, both sides together
MAX_CALLS = 16384  # unanswered, each way
