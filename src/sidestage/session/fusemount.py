"""A FUSE mount that is nowhere: no mount point, no fusermount, no root, and nothing to undo after kill -9.

A short-lived child makes the mount *detached* (fsmount(2) without move_mount) and sends both descriptors back. The mount lives as
long as one of them, or an open file, does. Without CAP_SYS_ADMIN the child first enters a user namespace of its own, where it may
mount FUSE (Linux 4.18); the caller never changes namespaces.
"""

from __future__ import annotations

import ctypes
import errno as e
import os
import socket
from contextlib import closing

from sidestage.trap import kernel, opener

# include/uapi/linux/mount.h, asm-generic/unistd.h (the numbers are the same on x86-64 and aarch64)
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLOEXEC = 1
_NOSUID_NODEV, _NOEXEC = 2 | 4, 8  # MOUNT_ATTR_*
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000

TMPFS_INODES = 1 << 20  # of some 700 bytes each, when so many names are in the directories that are watched

_libc = ctypes.CDLL(None, use_errno=True)


def mount(device: str = "/dev/fuse", *, writable: bool = False, executable: bool = False) -> tuple[int, int]:
    """(the server's descriptor, non-blocking; the root directory). Raises OSError whose strerror is the cause in words."""
    return _mounted(device, writable, executable, 0)[:2]


def mount_inside(pid: int, *, writable: bool = False, executable: bool = False) -> tuple[int, int, int]:
    """The same for all users of the user namespace of `pid`, and the socket of an opener: we ourselves have no access then."""
    return _mounted("/dev/fuse", writable, executable, pid)


def _mounted(device: str, writable: bool, executable: bool, inside: int) -> tuple[int, int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours):
        pid = os.fork()
        if pid == 0:
            os._exit(_child(theirs, device, writable, executable, inside))
        theirs.close()
        message, fds, _flags, _address = socket.recv_fds(ours, 4096, 2)
        if len(fds) == 2 and inside:
            return fds[0], fds[1], ours.detach()
        os.waitpid(pid, 0)
    if len(fds) == 2:
        return fds[0], fds[1], -1
    errno, _, cause = message.decode().partition(" ")
    raise OSError(int(errno or 5), cause or "the process that mounts has died")


def _child(sock: socket.socket, device: str, writable: bool, executable: bool, inside: int) -> int:
    try:
        server, root = _mount(device, writable, executable, inside)
        socket.send_fds(sock, [b"ok"], [server, root])
    except OSError as error:
        sock.send(f"{error.errno} {error.filename or ''}: {os.strerror(error.errno or 5).lower()}".encode())
        return 1
    if inside:
        kernel.close_all_but((sock.fileno(), root))
        opener.serve(sock, root)
    return 0


def _mount(device: str, writable: bool, executable: bool, inside: int) -> tuple[int, int]:
    try:
        context = _call("fsopen", _FSOPEN, b"fuse", _CLOEXEC)
        everyone = True
    except PermissionError:
        _join_user_namespace(inside) if inside else _enter_user_namespace(os.getuid(), os.getgid())
        context = _call("fsopen", _FSOPEN, b"fuse", _CLOEXEC)
        everyone = bool(inside)  # allow_other lets in only processes of this user namespace and below (fs/fuse/dir.c)
    server = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # in the namespace that mounts: fs/fuse/inode.c
    options = {"source": "sidestage", "fd": str(server), "rootmode": "40555"}
    options |= {"user_id": str(os.getuid()), "group_id": str(os.getgid())}  # as the namespace that mounts has them
    for key, value in options.items():
        _call("fsconfig", _FSCONFIG, context, _SET_STRING, key.encode(), value.encode(), 0)
    for flag in [flag for flag, wanted in ((b"ro", not writable), (b"allow_other", everyone)) if wanted]:
        _call("fsconfig", _FSCONFIG, context, _SET_FLAG, flag, None, 0)
    _call("fsconfig", _FSCONFIG, context, _CREATE, None, None, 0)
    return server, _call("fsmount", _FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV | (0 if executable else _NOEXEC))


def tmpfs() -> int:
    """The root directory of an empty file system in memory, which is nowhere too. Raises OSError."""
    ours, theirs = socket.socketpair()
    with closing(ours):
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(_tmpfs(theirs))
            finally:
                os._exit(1)
        theirs.close()
        _message, fds, _flags, _address = socket.recv_fds(ours, 1, 1)
        os.waitpid(pid, 0)
    if not fds:
        raise OSError(e.EOPNOTSUPP, "no file system can be mounted in memory")
    return fds[0]


def _tmpfs(sock: socket.socket) -> int:
    try:
        context = _call("fsopen", _FSOPEN, b"tmpfs", _CLOEXEC)
    except PermissionError:
        _enter_user_namespace(os.getuid(), os.getgid())
        context = _call("fsopen", _FSOPEN, b"tmpfs", _CLOEXEC)
    for key, value in ("nr_inodes", str(TMPFS_INODES)), ("mode", "700"):
        _call("fsconfig", _FSCONFIG, context, _SET_STRING, key.encode(), value.encode(), 0)
    _call("fsconfig", _FSCONFIG, context, _CREATE, None, None, 0)
    socket.send_fds(sock, [b"+"], [_call("fsmount", _FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV | _NOEXEC)])
    return 0


def _enter_user_namespace(uid: int, gid: int) -> None:
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), "unshare of a user namespace")
    for file, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(text)


def _join_user_namespace(pid: int) -> None:
    with open(f"/proc/{pid}/ns/user") as there:
        if _libc.setns(there.fileno(), _CLONE_NEWUSER) or _libc.unshare(_CLONE_NEWNS):
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), "entering the containers' user namespace")


def _call(what: str, number: int, *args: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in args))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), f"{what} of FUSE")
    return result
