"""A debugger that is started as an editor starts it: what it starts is plugged in, it itself is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.testkit.target import Target

C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int marker(const char *host) { return printf("host %s greeting %s\n", host, getenv("GREETING")); }
int main(void) {
    char host[65], line[99];
    gethostname(host, sizeof host);
    marker(host);
    FILE *file = fopen("/srv/config.txt", "r");
    if (file && fgets(line, sizeof line, file)) printf("file %s", line);
    return 7;
}
"""

def test_gdb(staging: Target, tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(C)
    program = tmp_path / "program"
    subprocess.run(["gcc", "-g", "-o", program, tmp_path / "program.c"], check=True)
    orders = ["break marker", "run", "print host", "continue", "print $_exitcode"]
    done = staging.plugged(["gdb", "-q", "-batch", *(word for order in orders for word in ("-ex", order)), str(program)], 60)
    assert "marker (host=0x" in done.out, done.err
    assert '"orders-7f9c"' in done.out
    assert "host orders-7f9c greeting hello from staging\nfile remote data\n" in done.out
    assert "$2 = 7" in done.out

