"""Classic BPF, interpreted as Documentation/networking/filter.rst tells it: only the instructions that our filters use.

The reader of packets and that of seccomp_data differ, so loads are the caller's: `load(offset, size)` raises IndexError
outside the data, where the kernel's filter returns 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

LIMIT = 4096  # BPF_MAXINSNS


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("HBBI", program))


def check(code: list[tuple[int, int, int, int]]) -> None:
    """What the kernel's checker demands: bounds, jumps within the program, a return at the end."""
    assert 0 < len(code) <= LIMIT
    for at, (op, jt, jf, _) in enumerate(code):
        if op & 7 == 5:
            assert at + 1 + max(jt, jf) < len(code), f"instruction {at} jumps out of the program"
    assert code[-1][0] & 7 == 6, "runs off its end"


def run(code: list[tuple[int, int, int, int]], load: Callable[[int, int], int]) -> int:
    """The filter's verdict."""
    a = x = at = 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        try:
            if op in (0x20, 0x28, 0x30):  # ld, ldh, ldb [k]
                a = load(k, {0x20: 4, 0x28: 2, 0x30: 1}[op])
            elif op == 0x48:  # ldh [x + k]
                a = load(x + k, 2)
            elif op == 0x01:  # ldx #k
                x = k
            elif op == 0xB1:  # ldx 4 * ([k] & 15)
                x = 4 * (load(k, 1) & 15)
            elif op == 0x15:  # jeq
                at += jt if a == k else jf
            elif op == 0x35:  # jge
                at += jt if a >= k else jf
            elif op == 0x45:  # jset
                at += jt if a & k else jf
            elif op == 0x06:  # ret #k
                return k
            else:
                raise AssertionError(f"unknown instruction {op:#x}")
        except IndexError:
            return 0
