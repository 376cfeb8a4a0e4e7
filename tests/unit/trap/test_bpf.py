"""The table of system calls against the system's headers, and the filter run on every number of both architectures."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from tests.testkit.bpf import check, decode, run

from sidestage.trap import bpf

ALLOW, NOTIFY, ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
ENOSYS, EOPNOTSUPP = ERRNO | 38, ERRNO | 95
MACHINES = ("x86_64", "aarch64")
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),  # which arch/arm64/include/uapi/asm/unistd.h includes
}
# Newer than the headers of Debian 12 (Linux 6.1) may be, or refused before its turn: no header need know them.
OWN_RULE = ("io_uring_setup",)
NEWER = frozenset("fchmodat2 setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr".split())
ARGUMENTS = ("getsockopt", "sendto", "recvfrom", "newfstatat", "statx")  # told to us only with some arguments

# Calls of the families' names that run without us, each with the reason.
UNSEEN = {
    **dict.fromkeys(
        "acct chroot mount umount umount2 pivot_root swapon swapoff move_mount open_tree open_tree_attr fspick fsmount fsopen "
        "mount_setattr statmount listmount quotactl fanotify_mark fanotify_init open_by_handle_at".split(),
        "for root; where an unprivileged namespace allows it, what it does is this machine's",
    ),
    **dict.fromkeys("mq_open mq_unlink".split(), "message queues are this machine's, as shared memory is"),
    **dict.fromkeys("socket socketpair setsockopt".split(), "takes no address"),
    **dict.fromkeys("fstatfs inotify_rm_watch perf_event_open pidfd_open".split(), "by descriptor or process"),
    **dict.fromkeys("mbind mremap shmat".split(), "about memory"),
    **dict.fromkeys("utimensat_time64 recvmmsg_time64".split(), "of 32-bit machines only"),
    "ustat": "takes a device number", "sysfs": "takes the name of a file system",
    "uselib": "not in kernels since Linux 6.1 unless asked for",
}  # fmt: skip
FAMILIES = re.compile(
    r"open|stat|access|link|mk|rmdir|rename|ch(own|mod|dir|root)|truncate|xattr|file_[gs]etattr|utime|mount|^exec|handle|[a-z]at2?$|acct|swap"
    r"|sock|connect|bind|listen|accept|peer|send(to|msg|mmsg)|recv|uname|uselib|fanotify|quotactl$"
)
BY_DESCRIPTOR = re.compile(r"f(stat|chown|chmod|chdir|truncate|(set|get|list|remove)xattr)$|pkey_|vmsplice|sendfile")


def header(machine: str) -> dict[str, int]:
    path = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"no {path} on this machine")
    lines = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.M)
    # asm-generic numbers the calls that have a 64-bit form as __NR3264_x; newfstatat is among them as fstatat
    found = {{"fstatat": "newfstatat"}.get(name, name): int(nr) for name, nr in lines}
    assert len(found) > 300
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_headers(machine: str) -> None:
    told = header(machine)
    newer = {name for name in NEWER if name not in told}
    assert {name: bpf.number(name, machine) for name in bpf.NUMBERS if name not in newer} == {
        name: told.get(name) for name in bpf.NUMBERS if name not in newer
    }


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_with_a_path_or_an_address_is_decided(machine: str) -> None:
    """A new member of a family must not slip in unseen: it is in the table, or here with its reason."""
    unknown = {
        name
        for name in header(machine)
        if FAMILIES.search(name) and not BY_DESCRIPTOR.match(name) and name not in {*bpf.NUMBERS, *UNSEEN}
    }
    assert unknown == set()


def verdict(machine: str, nr: int, *args: int, arch: str = "") -> int:
    data = struct.pack("<iIQ6Q", nr - (1 << 32) if nr >> 31 else nr, AUDIT[arch or machine], 0, *(*args, *[0] * 6)[:6])

    def load(offset: int, size: int) -> int:
        assert size == 4 and offset % 4 == 0 and offset < 64, "seccomp allows only aligned words (seccomp_check_filter)"
        return int.from_bytes(data[offset : offset + 4], "little")

    return run(PROGRAMS[machine], load)


PROGRAMS = {machine: bpf.program(bpf.NUMBERS, machine) for machine in MACHINES}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_sound(machine: str) -> None:
    assert decode(bpf.assemble(PROGRAMS[machine])) == PROGRAMS[machine]
    check(PROGRAMS[machine])


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number(machine: str) -> None:
    told = {bpf.number(name, machine): name for name in bpf.NUMBERS}
    for nr in range(600):
        name = told.get(nr)
        if name in OWN_RULE:
            expected = ENOSYS
        elif name in ("getsockopt", "sendto", "recvfrom"):
            expected = ALLOW  # with arguments of zero
        else:
            expected = ALLOW if name is None else NOTIFY
        assert verdict(machine, nr) == expected, (nr, name)


@pytest.mark.parametrize("machine", MACHINES)
def test_io_uring_is_as_if_the_kernel_had_none(machine: str) -> None:
    assert verdict(machine, 425, 8, 1 << 40) == ENOSYS
    few = bpf.program([], machine)
    check(few)
    assert any(k == ENOSYS for op, _, _, k in few if op == 0x06)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("arch", ["i386", "arm", "x86_64", "aarch64"])
def test_a_foreign_architecture_gets_enosys(machine: str, arch: str) -> None:
    """int 0x80 has other numbers: what would be trapped here must not pass there under another name."""
    if arch != machine:
        assert {verdict(machine, nr, arch=arch) for nr in range(450)} == {ENOSYS}


def test_x32_gets_enosys() -> None:
    assert {verdict("x86_64", nr | 0x40000000) for nr in range(600)} == {ENOSYS}
    assert verdict("x86_64", 0xFFFFFFFF) == ENOSYS  # the kernel says so too to number -1


CASES = [
    # level, option
    ("getsockopt", (3, 1, 4), NOTIFY), ("getsockopt", (3, 1, 3), ALLOW), ("getsockopt", (3, 6, 4), ALLOW),
    # fd, buffer, size, flags, address, its length
    ("sendto", (3, 99, 1, 0, 0, 0), ALLOW), ("sendto", (3, 99, 1, 0, 0x1000, 16), NOTIFY),
    ("sendto", (3, 99, 1, 0, 0x7F00_0000_0000, 16), NOTIFY),  # an address whose low half is zero
    ("sendto", (3, 99, 1, 0x20000000, 0x1000, 16), EOPNOTSUPP), ("sendto", (3, 99, 1, 0x20004000, 0x1000, 16), EOPNOTSUPP),
    ("sendto", (3, 99, 1, 0x4000, 0x1000, 16), NOTIFY), ("recvfrom", (3, 99, 1, 0, 0, 0), ALLOW),
    ("recvfrom", (3, 99, 1, 0, 0x7F00_0000_0000, 1), NOTIFY), ("recvfrom", (3, 99, 1, 0x20000000, 0x1000, 1), NOTIFY),
    # directory, path, buffer, flags
    ("newfstatat", (3, 99, 99, 0x1000), ALLOW), ("newfstatat", (3, 99, 99, 0x100), NOTIFY), ("newfstatat", (3, 99), NOTIFY),
    # directory, path, flags, mask, buffer
    ("statx", (3, 99, 0x1000, 0x7FF, 99), ALLOW), ("statx", (3, 99, 0x1800, 0x7FF, 99), ALLOW),
    ("statx", (3, 99, 0x100, 0x1000, 99), NOTIFY),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "args", "expected"), CASES)
def test_arguments(machine: str, name: str, args: tuple[int, ...], expected: int) -> None:
    assert name in ARGUMENTS
    nr = bpf.number(name, machine)
    assert nr is not None and verdict(machine, nr, *args) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_only_what_is_named_is_told(machine: str) -> None:
    code = bpf.program(["connect"], machine)
    check(code)
    numbers = {k for op, _, _, k in code if op == 0x15}
    assert numbers == {AUDIT[machine], bpf.number("connect", machine), 425}
