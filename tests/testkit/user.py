"""Target and laptop of a user without any privilege: the target is in a user namespace of the user's own, of the same number."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testkit.target import ENV, ROOT, SIDESTAGE, Result, Target, run

USER = 65534
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
_STAGING = """\
ip link set lo up; mount -t tmpfs srv /srv; echo "remote data" >/srv/config.txt; mkdir /srv/folder; cd /srv/folder
for n in a b c; do echo $n >$n; done; head -c 300000 /dev/zero >/srv/big; chmod 755 /srv
exec setpriv --ambient-caps=-all --inh-caps=-all sleep infinity
"""


def uncover(*folders: Path) -> str:
    """Shell lines that make `folders` reachable for every user, in a mount namespace: a home is often closed to others."""
    hidden = {}  # folder -> its topmost parent that is closed
    for folder in folders:
        closed = [parent for parent in reversed(folder.parents) if not parent.stat().st_mode & 0o001]
        if closed:
            hidden[folder] = closed[0]
    aside = [f"mkdir /mnt/{n}; mount --rbind {folder} /mnt/{n}" for n, folder in enumerate(hidden)]
    cover = [f"mount -t tmpfs -o mode=755 x {parent}" for parent in sorted(set(hidden.values()))]
    back = [f"mkdir -p {folder}; mount --rbind /mnt/{n} {folder}" for n, folder in enumerate(hidden)]
    return "\n".join([*aside, *cover, *back])


def laptop(*folders: Path) -> str:
    """Shell lines for the mount namespace in which the user runs: /dev/fuse and our files can be used."""
    fuse = "mount -t tmpfs x /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse"
    return f"{fuse}\n{uncover(ROOT, Path(sys.prefix), Path(sys.base_prefix), *folders)}"


@dataclass(frozen=True, slots=True)
class UserTarget(Target):
    laptop: int  # a process in the laptop's mount namespace

    def native(self, argv: Sequence[str], timeout: float = 30, env: Mapping[str, str] | None = None) -> Result:
        enter = ["nsenter", "-t", str(self.pid), "--user", "--preserve-credentials", "--net", "--mount", "--uts", "--wd=/"]
        return run([*AS_USER, *enter, "--", *argv], timeout, {**os.environ, **ENV, "HOME": "/tmp", **(env or {})})

    def plugged(
        self, argv: Sequence[str], timeout: float = 30, flags: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Result:
        more = {"HOME": "/tmp", **(env or {}), "PYTHONPATH": str(ROOT / "src")}
        return run(self.command(argv, flags), timeout, {**os.environ, **more})

    def command(self, argv: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        enter = ["nsenter", "-t", str(self.laptop), "--mount", "--wd=/", "--"]
        return [*enter, *AS_USER, *SIDESTAGE, "exec", "-t", f"process/{self.pid}", *flags, "--", *argv]


@contextlib.contextmanager
def user_target(*folders: Path) -> Iterator[UserTarget]:
    """`folders` are made reachable for the user."""
    unshare = "unshare --user --map-current-user --keep-caps --net --mount --uts"
    script = f"{laptop(*folders)}\necho $$; read go; {' '.join(AS_USER)} {unshare} sh -ec '{_STAGING}' & echo $!; wait"
    pipe = subprocess.PIPE
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    assert holder.stdin is not None and holder.stdout is not None
    try:
        here = int(holder.stdout.readline())
        holder.stdin.write("go\n")
        holder.stdin.flush()
        pid = int(holder.stdout.readline())
        made = UserTarget(pid, holder, here)  # type: ignore[arg-type]
        while os.readlink(f"/proc/{pid}/exe") != "/usr/bin/sleep":
            assert holder.poll() is None
        yield made
    finally:
        os.killpg(holder.pid, 9)
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
