"""All that ctypes and raw ioctls are needed for: seccomp(2), seccomp_unotify(2), pidfd_getfd(2), process_vm_readv(2), ptrace(2)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import resource
import struct
from collections.abc import Collection

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.process_vm_readv.restype = _libc.process_vm_writev.restype = ctypes.c_ssize_t

# include/uapi/linux/seccomp.h
SET_MODE_FILTER, GET_NOTIF_SIZES = 1, 3
FILTER_NEW_LISTENER, FILTER_WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
_RECV, _SEND, _ID_VALID, _ADDFD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
_CONTINUE, _SYNC_WAKE_UP, _ADDFD_SEND = 1, 1, 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 38, 36
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}[platform.machine()]
_NR_PIDFD_OPEN, _NR_PIDFD_GETFD = 434, 438  # the same on every architecture since Linux 5.1
_PIDFD_THREAD = os.O_EXCL  # Linux 6.9

# include/uapi/linux/ptrace.h, elf.h
_PTRACE_DETACH, _PTRACE_SYSCALL, _PTRACE_GETEVENTMSG = 17, 24, 0x4201
_PTRACE_GETREGSET, _PTRACE_SETREGSET, _PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
_TRACE_EXEC_AND_MARK_CALLS = 1 << 4 | 1
_NT_PRSTATUS = 1
_MFD_EXEC = 0x10
_MAX_REGISTERS = 512
EVENT_EXEC, EVENT_STOP, SYSCALL_STOP = 4, 128, 0x85

NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, tid, flags, nr, arch, ip, args
_AT_FDCWD, _STATX_DEVICE = -100, struct.Struct("=II")
_RESPONSE = struct.Struct("=QqiI")
_ADD = struct.Struct("=QIIII")
_buffer = bytearray(NOTIFICATION.size)
_zero = bytes(NOTIFICATION.size)


class Protected(PermissionError):
    """The task's memory or descriptors are closed to us: it is set-uid, not dumpable, another user's, or gone (ptrace(2))."""


def _failure(what: str) -> OSError:
    error = ctypes.get_errno()
    kind = Protected if error in (errno.EPERM, errno.EACCES, errno.ESRCH) else OSError
    return kind(error, what)


def check_sizes() -> None:
    """Raises OSError where the kernel's structures are not those of this file."""
    sizes = (ctypes.c_uint16 * 3)()
    if _libc.syscall(_NR_SECCOMP, GET_NOTIF_SIZES, 0, sizes) < 0:
        raise OSError(ctypes.get_errno(), "no seccomp user notification in this kernel")
    if sizes[0] != NOTIFICATION.size or sizes[1] != _RESPONSE.size:
        raise OSError(errno.ENOTSUP, "this kernel's seccomp notifications have another size")


def knows_filter(flags: int) -> bool:
    """Would seccomp(2) take these flags? Without a program it answers EFAULT before anything is done, else EINVAL or ENOSYS."""
    failed = _libc.syscall(_NR_SECCOMP, SET_MODE_FILTER, FILTER_NEW_LISTENER | flags, None) < 0
    return bool(failed and ctypes.get_errno() == errno.EFAULT)


def knows_getfd() -> bool:
    """Is pidfd_getfd(2) there, and allowed? It answers EBADF for a descriptor that is none."""
    return bool(_libc.syscall(_NR_PIDFD_GETFD, -1, 0, 0) < 0 and ctypes.get_errno() == errno.EBADF)


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def install(program: bytes) -> int:
    """Install a BPF program (struct sock_filter[]) for this thread and its children; returns the listener."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    flags = FILTER_NEW_LISTENER | FILTER_WAIT_KILLABLE_RECV
    fd: int = _libc.syscall(_NR_SECCOMP, SET_MODE_FILTER, flags, fprog)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


def synchronous(listener: int) -> None:
    """Let a waking task run at once on the supervisor's processor (Linux 6.6); slower without, so not needed."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
    except OSError:
        return


def receive(listener: int) -> tuple[int, ...] | None:
    """(id, tid, flags, nr, arch, ip, six arguments), or None when the caller is gone or we were interrupted."""
    _buffer[:] = _zero
    try:
        fcntl.ioctl(listener, _RECV, _buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    return NOTIFICATION.unpack(_buffer)


def respond(listener: int, ident: int, value: int, error: int, go_on: bool = False) -> bool:
    """Answer; False when the caller is gone."""
    try:
        fcntl.ioctl(listener, _SEND, _RESPONSE.pack(ident, value, -error, _CONTINUE if go_on else 0))
    except OSError as caught:
        if caught.errno != errno.ENOENT:
            raise
        return False
    return True


def add_fd(listener: int, ident: int, fd: int, cloexec: bool) -> None:
    """Give the caller a duplicate of `fd` as the call's result, in one step."""
    fcntl.ioctl(listener, _ADDFD, _ADD.pack(ident, _ADDFD_SEND, fd, 0, os.O_CLOEXEC if cloexec else 0))


def put_fd(listener: int, ident: int, fd: int) -> int:
    """Give the caller a duplicate of `fd`, closed on exec, while its call goes on; returns the caller's number."""
    return int(fcntl.ioctl(listener, _ADDFD, bytearray(_ADD.pack(ident, 0, fd, 0, os.O_CLOEXEC))))


def valid(listener: int, ident: int) -> bool:
    try:
        fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", ident))
    except OSError:
        return False
    return True


def device(path: str) -> int:
    """st_dev of what `path` leads to; of a FUSE mount it is told to everybody who asks for nothing else (fuse_getattr, 5.13)."""
    found = ctypes.create_string_buffer(256)  # struct statx
    if _libc.statx(_AT_FDCWD, os.fsencode(path), 0, 0, found) < 0:
        raise OSError(ctypes.get_errno(), "statx")
    return os.makedev(*_STATX_DEVICE.unpack_from(found, 136))


def close_all_but(keep: Collection[int]) -> None:
    """In a child that must keep nothing alive."""
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 16)
    ordered = sorted(keep)
    for low, high in zip([-1, *ordered], [*ordered, limit], strict=True):
        if low + 1 < high:  # closerange(0, 0) closes everything (CPython passes -1 on as the last)
            os.closerange(low + 1, high)


def signalfd(numbers: Collection[int]) -> int:
    """A descriptor that tells of these signals, which must be blocked (signalfd(2))."""
    mask = sum(1 << (number - 1) for number in numbers).to_bytes(128, "little")  # sigset_t
    fd: int = _libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return fd


def tgid(tid: int) -> int:
    with open(f"/proc/{tid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    raise ProcessLookupError(errno.ESRCH, "no such task")


def pidfd_open(tid: int) -> int:
    """A pidfd of the thread where the kernel can, else of its process (threads that unshared files are then missed)."""
    fd: int = _libc.syscall(_NR_PIDFD_OPEN, tid, _PIDFD_THREAD)
    if fd < 0 and ctypes.get_errno() == errno.EINVAL:
        fd = _libc.syscall(_NR_PIDFD_OPEN, tgid(tid), 0)
    if fd < 0:
        raise _failure("pidfd_open")
    return fd


def pidfd_getfd(pidfd: int, number: int) -> int:
    fd: int = _libc.syscall(_NR_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise _failure("pidfd_getfd")
    return fd


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


_scratch = ctypes.create_string_buffer(1 << 16)
_ours = _Iovec(ctypes.addressof(_scratch), 0)
_theirs = _Iovec(0, 0)


def read_memory(tid: int, address: int, size: int) -> bytes:
    """Up to `size` bytes (at most 64 KiB) at `address` of the task; fewer where its memory ends. OSError: EFAULT, EPERM."""
    _ours.size = _theirs.size = min(size, len(_scratch))
    _theirs.base = address
    got = _libc.process_vm_readv(tid, ctypes.byref(_ours), 1, ctypes.byref(_theirs), 1, 0)
    if got < 0:
        raise _failure("process_vm_readv")
    return bytes(memoryview(_scratch)[:got])


def write_memory(tid: int, address: int, data: bytes) -> None:
    ctypes.memmove(_scratch, data, len(data))
    _ours.size = _theirs.size = len(data)
    _theirs.base = address
    if _libc.process_vm_writev(tid, ctypes.byref(_ours), 1, ctypes.byref(_theirs), 1, 0) != len(data):
        raise OSError(errno.EFAULT, "process_vm_writev")


def in_memory(program: bytes) -> int:
    """A file that can be executed and is in no directory."""
    try:
        fd = os.memfd_create("sidestage", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.3 all of them can
            raise
        fd = os.memfd_create("sidestage", os.MFD_CLOEXEC)
    os.write(fd, program)
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # what is open for writing isn't executed: ETXTBSY
    finally:
        os.close(fd)


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, tid, address, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def seize(tid: int) -> None:
    """Trace a task without stopping it; its exec and the ends of its calls will stop it."""
    _ptrace(_PTRACE_SEIZE, tid, 0, _TRACE_EXEC_AND_MARK_CALLS)


def interrupt(tid: int) -> None:
    _ptrace(_PTRACE_INTERRUPT, tid)


def to_next_call(tid: int) -> None:
    """Let a stopped task go on up to where a system call begins or ends."""
    _ptrace(_PTRACE_SYSCALL, tid)


def detach(tid: int, signal: int = 0) -> None:
    _ptrace(_PTRACE_DETACH, tid, 0, signal)


def former_thread(tid: int) -> int:
    """After EVENT_EXEC: the number that the task had before, as one thread of several."""
    value = ctypes.c_ulong()
    _ptrace(_PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


def get_registers(tid: int) -> bytes:
    room = ctypes.create_string_buffer(_MAX_REGISTERS)
    part = _Iovec(ctypes.addressof(room), _MAX_REGISTERS)
    _ptrace(_PTRACE_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(part))
    return room.raw[: part.size]


def set_registers(tid: int, registers: bytes) -> None:
    room = ctypes.create_string_buffer(registers, len(registers))
    part = _Iovec(ctypes.addressof(room), len(registers))
    _ptrace(_PTRACE_SETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(part))
