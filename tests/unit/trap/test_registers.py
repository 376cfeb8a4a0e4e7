"""Calls made of registers: which of them change, by their places in the kernel's structures."""

from __future__ import annotations

import struct

import pytest

from sidestage.trap.registers import LAYOUTS

X86_64 = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs gs ds es fs_ gs_".split()
AARCH64 = [*(f"x{n}" for n in range(31)), "sp", "pc", "pstate"]
RESTARTS = (1 << 64) - 513


def registers(names: list[str], **known: int) -> bytes:
    return struct.pack(f"={len(names)}Q", *(known.get(name, 1000 + n) for n, name in enumerate(names)))


def changed(names: list[str], before: bytes, after: bytes) -> dict[str, int]:
    pairs = zip(names, struct.iter_unpack("=Q", before), struct.iter_unpack("=Q", after), strict=True)
    return {name: new for name, (old,), (new,) in pairs if old != new}


@pytest.mark.parametrize(
    ("machine", "names", "saved", "called", "back"),
    [
        (
            "x86_64", X86_64, {"rax": RESTARTS, "orig_rax": 59, "rip": 500},
            {"rax": 322, "orig_rax": (1 << 64) - 1, "rip": 498, "rdi": 7, "rsi": 8, "rdx": 9, "r10": 10, "r8": 11},
            {"rax": (1 << 64) - 2},
        ),
        (
            "aarch64", AARCH64, {"x8": 221, "pc": 500},
            {"x8": 281, "x0": 7, "x1": 8, "x2": 9, "x3": 10, "x4": 11}, {"x0": (1 << 64) - 2, "pc": 504},
        ),
    ],
)  # fmt: skip
def test_a_call_instead_of_another(
    machine: str, names: list[str], saved: dict[str, int], called: dict[str, int], back: dict[str, int]
) -> None:
    layout = LAYOUTS[machine]
    before = registers(names, **saved)
    calling = layout.calling(before, called["rax" if machine == "x86_64" else "x8"], (7, 8, 9, 10, 11))
    assert changed(names, before, calling) == called
    returned = layout.returned(before, -2)
    assert changed(names, before, returned) == back
    assert layout.result_of(returned) == -2
