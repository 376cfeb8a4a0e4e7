"""Runs programs by every way that a program has: what they say, and what is said when they can't be run."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

PLACE = sys.argv[1]
TOOL = f"{PLACE}/tool"


def show(what: str, *args: object, **words: object) -> None:
    try:
        done = subprocess.run(*args, capture_output=True, text=True, **words)  # type: ignore[call-overload]
        print(what, done.returncode, done.stdout, done.stderr)
    except OSError as error:
        print(what, error.strerror)


def spawned(what: str, *args: str) -> None:
    try:
        pid = os.posix_spawn(args[0], list(args), os.environ)
        print(what, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    except OSError as error:
        print(what, error.strerror, flush=True)


def forked(what: str, run: object) -> None:
    """Also: descriptors are as before when it fails, as is all that the caller had in its registers."""
    sys.stdout.flush()
    if pid := os.fork():
        print(what, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        return
    before = os.listdir("/proc/self/fd")
    try:
        run()  # type: ignore[operator]
    except OSError as error:
        print(what, error.strerror, os.listdir("/proc/self/fd") == before, flush=True)
    os._exit(7)


def from_thread() -> None:
    thread = threading.Thread(target=lambda: os.execv(TOOL, [TOOL, "thread"]))
    thread.start()
    thread.join()


def by_descriptor() -> None:
    os.execve(os.open(TOOL, os.O_RDONLY), ["tool", "descriptor"], os.environ)


def below_a_descriptor() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    argv = (ctypes.c_char_p * 3)(b"name", b"below", None)
    envp = (ctypes.c_char_p * 1)(None)
    libc.syscall(322 if os.uname().machine == "x86_64" else 281, os.open(PLACE, os.O_DIRECTORY), b"tool", argv, envp, 0)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


for name in "tool", "script", "option", "remote", "plain", "lost", "broken", "data", "none", "folder", "looped":
    show(name, [f"{PLACE}/{name}", "one", "two words"], env={"A": "b"})
    show(f"{name}, forked", [f"{PLACE}/{name}", "x"], preexec_fn=os.getpid)
    spawned(f"{name}, spawned", f"{PLACE}/{name}", "y")
    print(name, os.access(f"{PLACE}/{name}", os.X_OK))
show("by PATH", ["tool", "z"], env={"PATH": f"/none:{PLACE}/folder:{PLACE}"})
show("another name", [TOOL, "one"], executable=TOOL)
show("shell", f"{TOOL} a | {PLACE}/script b; {TOOL} 'c d' & wait; {PLACE}/none; $(echo {TOOL}) e", shell=True)
for way in from_thread, by_descriptor, below_a_descriptor:
    forked(way.__name__, way)
forked("broken", lambda: os.execv(f"{PLACE}/broken", ["broken"]))
forked("lost", lambda: os.execv(f"{PLACE}/lost", ["lost"]))
signal.signal(signal.SIGWINCH, lambda *_: None)
signal.siginterrupt(signal.SIGWINCH, False)
for round_ in range(20):
    sys.stdout.flush()
    if not (child := os.fork()):
        os.execv(TOOL, [TOOL, f"signals {round_}"])
    while not os.waitpid(child, os.WNOHANG)[0]:
        os.kill(child, signal.SIGWINCH)
threads = [threading.Thread(target=subprocess.run, args=([TOOL, "at once"],), kwargs={"stdout": -3}) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
