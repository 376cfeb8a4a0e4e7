"""The registers of a stopped task as PTRACE_GETREGSET gives them, and how a system call is made of them; pure.

At the stop that ends an interrupted call the kernel of x86-64 has still to go back to the instruction, that of aarch64 has done so
already (arch/x86/kernel/signal.c, arch/arm64/kernel/signal.c).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_NONE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Places in the array of 64-bit registers (arch/*/include/uapi/asm/ptrace.h)."""

    number: int
    args: tuple[int, ...]
    result: int
    pc: int
    size: int  # bytes of the instruction
    back: int  # from the counter of an interrupted call to its instruction
    asked: int | None = None  # orig_rax: -1 where nothing is to be restarted

    def calling(self, saved: bytes, number: int, args: Sequence[int]) -> bytes:
        """The interrupted instruction again, for another call."""
        registers = _unpack(saved)
        registers[self.pc] -= self.back
        registers[self.number] = number
        if self.asked is not None:
            registers[self.asked] = _NONE
        for place, value in zip(self.args, args, strict=False):
            registers[place] = value & _NONE
        return _pack(registers)

    def returned(self, saved: bytes, result: int) -> bytes:
        """As after the interrupted call, which had this result."""
        registers = _unpack(saved)
        registers[self.pc] += self.size - self.back
        registers[self.result] = result & _NONE
        return _pack(registers)

    def result_of(self, registers: bytes) -> int:
        value = _unpack(registers)[self.result]
        return value - (value >> 63 << 64)


LAYOUTS = {
    "x86_64": Layout(number=10, args=(14, 13, 12, 7, 9, 8), result=10, pc=16, size=2, back=2, asked=15),
    "aarch64": Layout(number=8, args=(0, 1, 2, 3, 4, 5), result=0, pc=32, size=4, back=0),
}


def _unpack(registers: bytes) -> list[int]:
    return list(struct.unpack(f"={len(registers) // 8}Q", registers))


def _pack(registers: Sequence[int]) -> bytes:
    return struct.pack(f"={len(registers)}Q", *registers)
