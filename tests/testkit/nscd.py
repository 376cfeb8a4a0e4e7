"""nscd, as machines with accounts in a directory run it: Debian's program, not installed, in the namespaces of a test's laptop."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.testkit.build import debian
from tests.testkit.target import wait_for

_CONF = """\
server-user root
enable-cache hosts yes
positive-time-to-live hosts 600
negative-time-to-live hosts 600
check-files hosts no
persistent hosts no
shared hosts yes
"""


@contextlib.contextmanager
def nscd(laptop: int, folder: Path) -> Iterator[None]:
    conf = folder / "nscd.conf"
    conf.write_text(_CONF)
    command = ["nsenter", "-t", str(laptop), "--net", "--mount", "--", str(debian("nscd", "usr/sbin/nscd")), "-f", str(conf)]
    with subprocess.Popen([*command, "-F"], stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_for("nscd", lambda: subprocess.run([*command, "-g"], capture_output=True, check=False).returncode == 0)
            yield
        finally:
            daemon.kill()
