"""First lines and ELF headers as the kernel reads them; the stub is run by the kernel itself, and its aarch64 form read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import Any

import pytest

from sidestage.trap import kernel, scripts
from sidestage.trap.scripts import Shebang

LONG = b"/" + b"x" * 300


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"#!/bin/sh\n", Shebang(b"/bin/sh")),
        (b"#! \t/bin/sh  -e  -u \t\nrest", Shebang(b"/bin/sh", b"-e  -u")),
        (b"#!/bin/sh", Shebang(b"/bin/sh")),
        (b"#!/bin/sh\t-x\0more", Shebang(b"/bin/sh", b"-x")),
        (b"#!sh -c x\r\n", Shebang(b"sh", b"-c x\r")),
        (b"#!/bin/sh " + LONG, Shebang(b"/bin/sh", LONG[:245])),
        (b"#!" + LONG, None),
        (b"#!" + LONG[:252] + b" \n", Shebang(LONG[:252])),
        (b"#!\n/bin/sh", None),
        (b"#!   \n", None),
        (b"#", None),
        (b"", None),
        (b"\x7fELF", None),
    ],
)
def test_first_lines(head: bytes, found: Shebang | None) -> None:
    assert scripts.shebang(head) == found


def test_the_kernel_reads_first_lines_so_too(tmp_path: object) -> None:
    """The interpreter is a program that prints its arguments; it sees what we would give it."""
    show = "import sys; print(sys.orig_argv[1:-1])"
    for number, (blanks, more) in enumerate(((" ", ""), ("\t", ""), (" \t ", ""), ("  ", "#" * 300))):
        script = f"{tmp_path}/{number}"
        line = f"#!{blanks}{sys.executable}{blanks}-Ic{show.replace(' ', chr(9))}{more}{blanks}\n".encode()
        with open(script, "wb") as out:
            out.write(line)
        os.chmod(script, 0o700)
        done = subprocess.run([script], capture_output=True, text=True, check=True)
        asked = scripts.shebang(line)
        assert asked
        assert done.stdout == f"{[asked.option.decode()]}\n"


def elf(interpreter: bytes, *, count: int = 2, offset: int = 64) -> bytes:
    header = struct.pack("=16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, offset, 0, 0, 64, 56, count, 0, 0, 0)
    segments = struct.pack("=IIQQQQQQ", 1, 5, 0, 0, 0, 9, 9, 1) + struct.pack("=IIQQQQQQ", 3, 4, 200, 0, 0, len(interpreter), 9, 1)
    return (header + segments).ljust(200, b"\0") + interpreter


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (elf(b"/lib/ld-musl-x86_64.so.1\0"), "/lib/ld-musl-x86_64.so.1"),
        (elf(b"/lib/x\0", count=1), ""),
        (elf(b"/lib/x\0", offset=1 << 40), ""),
        (elf(b"/lib/x\0", count=60000)[:100], ""),
        (b"\x7fELF\1" + bytes(100), ""),
        (b"\x7fELF\2", ""),
        (b"#!/bin/sh\n", ""),
    ],
)
def test_loaders(head: bytes, name: str) -> None:
    assert scripts.loader(head) == name


def test_a_real_program_has_a_loader_that_is_there() -> None:
    with open("/proc/self/exe", "rb") as file:
        assert os.path.exists(scripts.loader(file.read(scripts.HEAD)))


@pytest.mark.parametrize("option", [b"", b"-c", b"-c\tx y"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_stub(option: bytes, count: int) -> None:
    """Run by the kernel: arguments and environment as it would make them of a script."""
    show = b"import sys, os; print(sys.orig_argv[2:], dict(os.environ))"
    script = show if option == b"-c" else b"A=1"
    option = b"-Ic" + show if b"\t" in option else option
    asked = Shebang(os.fsencode(sys.executable) if option else b"/usr/bin/env", option)
    fd = kernel.in_memory(scripts.stub(os.uname().machine, script, asked, 1))
    argv = ["name", "B=2", "C=3", "D=4", "E=5"][:count]
    command: dict[str, Any] = {"args": argv, "executable": f"/proc/self/fd/{fd}", "pass_fds": [fd], "env": {"X": "y"}}
    try:
        done = subprocess.run(**command, capture_output=True, text=True, check=True)
    finally:
        os.close(fd)
    if option:
        assert done.stdout.startswith(f"{[script.decode(), *argv[1:]]} {{'X': 'y'")
    else:
        assert done.stdout.split() == ["X=y", "A=1", *argv[1:]]


def test_a_stub_that_finds_no_interpreter_says_so_by_its_status() -> None:
    fd = kernel.in_memory(scripts.stub(os.uname().machine, b"script", Shebang(b"/none"), 1))
    try:
        assert subprocess.run(["x"], executable=f"/proc/self/fd/{fd}", pass_fds=[fd], check=False).returncode == 126
    finally:
        os.close(fd)


def test_the_stub_of_aarch64() -> None:
    """Instruction by instruction, as a disassembler reads them; it was run in an emulator."""
    text = scripts.stub("aarch64", b"/app/run.sh", Shebang(b"/bin/sh", b"-e"), 2)
    assert struct.unpack_from("=HH", text, 16) == (2, 183)
    words = struct.unpack_from("=17I", text, 120)
    assert [f"{word:08x}" for word in words] == [
        "f94003e9", "8b296fe2", "91004042",  # ldr x9, [sp]; add x2, sp, x9, uxtx #3; add x2, x2, #0x10
        "1000020a", "f90007ea", "10000180", "1000020b",  # adr x10, script; str x10, [sp, #8]; adr x0, interpreter; adr x11, option
        "f90003eb", "f81f83e0", "d10023e1",  # str x11, [sp]; stur x0, [sp, #-8]; sub x1, sp, #8
        "d28af443", "f2aa3bc3", "d2801ba8", "d4000001",  # mov x3, #0x57a2; movk x3, #0x51de, lsl #16; mov x8, #221; svc #0
        "d2800fc0", "d2800bc8", "d4000001",  # mov x0, #126; mov x8, #94; svc #0
    ]  # fmt: skip
    assert text.endswith(b"/bin/sh\0/app/run.sh\0-e\0")


@pytest.mark.parametrize("depth", [1, scripts.MAX_DEPTH, scripts.MAX_DEPTH + 1])
def test_depths(depth: int) -> None:
    assert scripts.depth(0x1_0000_0000 | scripts._DEPTH_MARK + depth) == depth
    assert scripts.depth(depth) == scripts.depth(0) == scripts.depth(scripts._DEPTH_MARK) == 0
