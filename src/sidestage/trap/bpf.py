"""The seccomp filter: which system calls are told to us. The one table of numbers, and an assembler for the filter.

Only scalars can be tested here, so a filter decides by number and, for a few calls, by an argument: getsockopt only for
SO_ERROR, sendto and recvfrom only with an address, stat calls by descriptor not at all. What isn't listed runs at native speed.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Collection

# (x86-64, aarch64) from arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h; None: not there
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "stat": (4, None), "lstat": (6, None), "access": (21, None), "sendto": (44, 206),
    "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "connect": (42, 203), "accept": (43, 202),
    "bind": (49, 200), "listen": (50, 201), "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209),
    "uname": (63, 160), "truncate": (76, 45), "chdir": (80, 49), "rename": (82, None), "mkdir": (83, None),
    "rmdir": (84, None), "creat": (85, None), "link": (86, None), "unlink": (87, None), "symlink": (88, None),
    "readlink": (89, None), "chmod": (90, None), "chown": (92, None), "lchown": (94, None), "mknod": (133, None),
    "statfs": (137, 43), "setxattr": (188, 5), "lsetxattr": (189, 6), "getxattr": (191, 8), "lgetxattr": (192, 9),
    "listxattr": (194, 11), "llistxattr": (195, 12), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "utime": (132, None), "utimes": (235, None), "inotify_add_watch": (254, 27), "openat": (257, 56),
    "mkdirat": (258, 34), "mknodat": (259, 33), "fchownat": (260, 54), "futimesat": (261, None),
    "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38), "linkat": (265, 37), "symlinkat": (266, 36),
    "readlinkat": (267, 78), "fchmodat": (268, 53), "faccessat": (269, 48), "utimensat": (280, 88),
    "accept4": (288, 242), "recvmmsg": (299, 243), "name_to_handle_at": (303, 264), "sendmmsg": (307, 269),
    "renameat2": (316, 276), "execve": (59, 221), "execveat": (322, 281), "statx": (332, 291),
    "fchmodat2": (452, 452), "setxattrat": (463, 463), "getxattrat": (464, 464), "listxattrat": (465, 465),
    "removexattrat": (466, 466), "file_getattr": (468, 468), "file_setattr": (469, 469), "getcwd": (79, 17),
    "fchdir": (81, 50), "io_uring_setup": (425, 425), "openat2": (437, 437), "faccessat2": (439, 439),
}  # fmt: skip
ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH (linux/audit.h)

_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
ENOSYS, EOPNOTSUPP = 38, 95
_X32 = 0x40000000
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; low halves, both architectures are little-endian
_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
SOL_SOCKET, SO_ERROR, AT_EMPTY_PATH, MSG_FASTOPEN = 1, 4, 0x1000, 0x20000000

Instruction = tuple[int, int, int, int]


def _arg(n: int, high: bool = False) -> Instruction:
    return (_LD, 0, 0, _ARGS + 8 * n + (4 if high else 0))


def _ret(value: int) -> Instruction:
    return (_RET, 0, 0, value)


def _body(name: str) -> list[Instruction]:
    """What to do once the number matched; ends in a return on every way."""
    if name == "getsockopt":
        return [_arg(1), (_JEQ, 0, 3, SOL_SOCKET), _arg(2), (_JEQ, 0, 1, SO_ERROR), _ret(_NOTIFY), _ret(_ALLOW)]
    if name in ("sendto", "recvfrom"):
        asks = [_arg(4), (_JEQ, 0, 3, 0), _arg(4, high=True), (_JEQ, 0, 1, 0), _ret(_ALLOW), _ret(_NOTIFY)]
        if name == "sendto":  # TCP fast open connects behind our back: libraries fall back to connect
            return [_arg(3), (_JSET, 0, 1, MSG_FASTOPEN), _ret(_ERRNO | EOPNOTSUPP), *asks]
        return asks
    if name == "newfstatat":  # fstat(fd) of glibc 2.33 and later; a path with AT_EMPTY_PATH isn't seen in practice
        return [_arg(3), (_JEQ, 0, 1, AT_EMPTY_PATH), _ret(_ALLOW), _ret(_NOTIFY)]
    if name == "statx":
        return [_arg(2), (_JSET, 0, 1, AT_EMPTY_PATH), _ret(_ALLOW), _ret(_NOTIFY)]
    return [_ret(_NOTIFY)]


def number(name: str, machine: str | None = None) -> int | None:
    return NUMBERS[name][ARCHES[machine or platform.machine()][0]]


def program(names: Collection[str], machine: str | None = None) -> list[Instruction]:
    """The filter that tells us of `names` and refuses io_uring, which would do the same calls unseen."""
    machine = machine or platform.machine()
    code: list[Instruction] = [
        (_LD, 0, 0, _ARCH), (_JEQ, 1, 0, ARCHES[machine][1]), _ret(_ERRNO | ENOSYS), (_LD, 0, 0, _NR),
    ]  # fmt: skip
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32), _ret(_ERRNO | ENOSYS)]
    code += [(_JEQ, 0, 1, number("io_uring_setup", machine) or 0), _ret(_ERRNO | ENOSYS)]
    for name in sorted(names):
        nr = number(name, machine)
        if nr is not None:
            body = _body(name)
            code += [(_JEQ, 0, len(body), nr), *body]
    return [*code, _ret(_ALLOW)]


def assemble(code: list[Instruction]) -> bytes:
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
