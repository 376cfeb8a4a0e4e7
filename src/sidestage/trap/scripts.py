"""Programs as files: what a script asks for, which loader an ELF file wants, and a program that runs the first. Pure.

The kernel would give an interpreter the name /dev/fd/N of a script that is run by its descriptor (fs/binfmt_script.c). So a
*stub* is run in its place, a few instructions that exec the interpreter with the arguments that the kernel makes of a path.
"""

from __future__ import annotations

import os
import re
import struct
from typing import NamedTuple

HEAD = 4096  # bytes of a file that are looked at
_BUFFER = 256  # BINPRM_BUF_SIZE: what the kernel reads of a first line
MAX_DEPTH = 4  # scripts that are interpreters of scripts (bprm->depth in fs/exec.c)
_DEPTH_MARK = 0x51DE57A0  # in a register that execve(2) doesn't use; the depth is added
_BASE = 0x400000
_FAILED = 126  # exit status, should the interpreter have gone since we looked
_EHDR, _PHDR = struct.Struct("=16sHHIQQQIHHHHHH"), struct.Struct("=IIQQQQQQ")
_MACHINES = {"x86_64": 62, "aarch64": 183}
_PT_LOAD, _PT_INTERP = 1, 3


class Shebang(NamedTuple):
    interpreter: bytes
    option: bytes = b""


def shebang(head: bytes) -> Shebang | None:
    """As the kernel reads it (load_script in fs/binfmt_script.c); None: it is no script that it would run."""
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head[2 : _BUFFER - 1].partition(b"\n")
    line, end, _ = line.partition(b"\0")
    words = re.split(rb"[ \t]+", line.strip(b" \t"), maxsplit=1)
    cut = not newline and not end and len(head) >= _BUFFER
    if not words[0] or (cut and len(words) == 1 and not line.endswith((b" ", b"\t"))):
        return None
    return Shebang(*words)


def loader(head: bytes) -> str:
    """The PT_INTERP of a 64-bit ELF file; empty: it needs none, or isn't one."""
    try:
        magic, _kind, _machine, _version, _entry, offset, _shoff, _flags, _size, each, count, *_ = _EHDR.unpack_from(head)
        if magic[:5] != b"\x7fELF\2":
            return ""
        for number in range(count):
            kind, _flags, start, _va, _pa, size, *_ = _PHDR.unpack_from(head, offset + number * each)
            if kind == _PT_INTERP:
                return os.fsdecode(head[start : start + size].rstrip(b"\0"))
    except struct.error:
        return ""
    return ""


def depth(register: int) -> int:
    """How many stubs have led to this execve(2), by its fourth argument."""
    value = (register & 0xFFFFFFFF) - _DEPTH_MARK
    return value if 0 < value <= MAX_DEPTH + 1 else 0


def stub(machine: str, script: bytes, asked: Shebang, depth: int) -> bytes:
    """An ELF file. On its stack are argc, the arguments, the environment: argc and the first argument become interpreter and
    script, or option and script with the interpreter below them; so nothing is moved."""
    words = (asked.interpreter, script, asked.option)
    start = _EHDR.size + _PHDR.size
    code = _CODE[machine]
    size = len(code(start, (0, 0, 0), bool(asked.option), depth))
    places, at = [], start + size
    for word in words:
        places.append(at)
        at += len(word) + 1
    text = code(start, (places[0], places[1], places[2]), bool(asked.option), depth)
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = _EHDR.pack(ident, 2, _MACHINES[machine], 1, _BASE + start, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, 1, 0, 0, 0)
    segment = _PHDR.pack(_PT_LOAD, 5, 0, _BASE, _BASE, at, at, 0x10000)
    return header + segment + text + b"".join(word + b"\0" for word in words)


def _x86_64(_start: int, places: tuple[int, int, int], option: bool, depth: int) -> bytes:
    interpreter, script, extra = (struct.pack("=I", _BASE + place) for place in places)
    code = b"\x48\x8b\x04\x24\x48\x8d\x54\xc4\x10"  # mov rax, [rsp]; lea rdx, [rsp+8*rax+16]
    code += b"\x48\xc7\x44\x24\x08" + script  # mov qword [rsp+8], script
    if option:
        code += b"\x48\xc7\x04\x24" + extra + b"\x48\xc7\x44\x24\xf8" + interpreter  # mov qword [rsp], ...; mov qword [rsp-8], ...
        code += b"\x48\x8d\x74\x24\xf8"  # lea rsi, [rsp-8]
    else:
        code += b"\x48\xc7\x04\x24" + interpreter + b"\x48\x89\xe6"  # mov qword [rsp], ...; mov rsi, rsp
    code += b"\xbf" + interpreter + b"\x41\xba" + struct.pack("=I", _DEPTH_MARK + depth)  # mov edi, ...; mov r10d, ...
    code += b"\xb8\x3b\0\0\0\x0f\x05"  # mov eax, 59; syscall
    return code + b"\xbf" + struct.pack("=I", _FAILED) + b"\xb8\xe7\0\0\0\x0f\x05"  # mov edi, ...; mov eax, 231; syscall


def _aarch64(start: int, places: tuple[int, int, int], option: bool, depth: int) -> bytes:
    code: list[int] = []

    def address(register: int, place: int) -> None:  # adr
        distance = place - (start + 4 * len(code))
        code.append(0x10000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | register)

    def move(register: int, value: int) -> None:  # movz, movk
        code.append(0xD2800000 | (value & 0xFFFF) << 5 | register)
        if value >> 16:
            code.append(0xF2A00000 | value >> 16 << 5 | register)

    interpreter, script, extra = places
    code += [0xF94003E9, 0x8B296FE2, 0x91004042]  # ldr x9, [sp]; add x2, sp, x9, uxtx #3; add x2, x2, #16
    address(10, script)
    code.append(0xF90007EA)  # str x10, [sp, #8]
    address(0, interpreter)
    if option:
        address(11, extra)
        code += [0xF90003EB, 0xF81F83E0, 0xD10023E1]  # str x11, [sp]; stur x0, [sp, #-8]; sub x1, sp, #8
    else:
        code += [0xF90003E0, 0x910003E1]  # str x0, [sp]; mov x1, sp
    move(3, _DEPTH_MARK + depth)
    move(8, 221)
    code.append(0xD4000001)  # svc #0
    move(0, _FAILED)
    move(8, 94)
    code.append(0xD4000001)
    return struct.pack(f"={len(code)}I", *code)


_CODE = {"x86_64": _x86_64, "aarch64": _aarch64}
