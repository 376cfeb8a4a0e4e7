"""Public exercisers of file systems, natively in the target's root and through the view: fsx, fio, stress-ng.

They check what they read themselves; here they must also end alike on both sides.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testkit.build import cargo_program, need
from tests.testkit.target import Result, Target

pytestmark = pytest.mark.timeout(400)  # the first run compiles
WRITE = ("--fs-mode", "write")
FRESH = "rm -rf /srv/w; mkdir /srv/w"
FSX = "0.3.2"
# Every operation that fsx knows, some of them beyond what comes along with an open.
FSX_CONFIG = """\
flen = {size}
nomsyncafterwrite = {lazy}
[opsize]
max = {largest}
[weights]
truncate = 1
write = 3
read = 3
mapread = 2
mapwrite = 2
invalidate = 1
close_open = 1
fsync = 1
fdatasync = 1
punch_hole = 1
sendfile = 1
posix_fadvise = 1
posix_fallocate = 1
copy_file_range = 1
"""
FIO = """\
[global]
directory=/srv/w
size=2m
verify=crc32c
verify_fatal=1
bsrange=512-64k
unlink=1
[in place]
ioengine=psync
rw=randwrite
[mapped]
ioengine=mmap
rw=randwrite
bsrange=4k-64k
fsync=16
[in parts]
ioengine=pvsync2
rw=write
verify_backlog=32
[several at once]
ioengine=libaio
iodepth=8
rw=randwrite
bs=4k
"""
# Those of its class `filesystem` that are about paths and files, without the few that take thousands of names a step,
# and `inotify`, which waits for reads to be told.
STRESSORS = {
    "names": "dir dirdeep dirmany dentry filename rename mknod getdent".split(),
    "attributes": "access chmod chown utime touch xattr fstat open".split(),
    "contents": "copy-file fallocate fpunch hdd iomix sync-file seek readahead sendfile splice msync".split(),
    "locks": "flock locka lockf lockofd lease fcntl".split(),
}


def both(staging: Target, argv: list[str], timeout: float) -> tuple[Result, Result]:
    found = []
    for plugged in (False, True):
        assert staging.native(["sh", "-c", FRESH]).code == 0
        found.append(staging.plugged(argv, timeout, WRITE) if plugged else staging.native(argv, timeout))
        left = staging.native(["sh", "-c", "cd /srv/w; find . ! -name 'file*' ! -name ."]).out
        assert left == "", f"{argv} left {left}"
    return found[0], found[1]


@pytest.mark.parametrize(("size", "largest", "lazy", "seed"), [(262144, 65536, "false", 3), (4000000, 300000, "true", 7)])
def test_fsx(staging: Target, tmp_path: Path, size: int, largest: int, lazy: str, seed: int) -> None:
    """Random operations on one file, each read held against what was written: the same sequence on both sides."""
    config = tmp_path / "fsx.toml"
    config.write_text(FSX_CONFIG.format(size=size, largest=largest, lazy=lazy))
    fsx = cargo_program("fsx", FSX)
    argv = [str(fsx), "-v", "-f", str(config), "-N", "1500", "-S", str(seed), "-P", str(tmp_path), "/srv/w/file"]
    native, plugged = both(staging, argv, 120)
    assert native.code == 0 and "All operations completed A-OK!" in native.out + native.err, native
    ours = [line for line in plugged.err.splitlines() if not line.startswith("sidestage: ")]
    assert (plugged.code, plugged.out, ours) == (native.code, native.out, native.err.splitlines())
    assert staging.native(["sh", "-c", "ls /srv/w"]).out == "file\n"


def test_fio(staging: Target, tmp_path: Path) -> None:
    """Blocks with checksums, by five ways of input and output at once."""
    job = tmp_path / "job.fio"
    job.write_text(FIO)
    for result in both(staging, [need("fio"), "--minimal", str(job)], 120):
        assert result.code == 0, result
        assert result.out.count(";fio-") == 4, result


@pytest.mark.parametrize("kind", STRESSORS)
def test_stress_ng(staging: Target, kind: str) -> None:
    """The stressors of a kind, all at once, each with its own checks on."""
    argv = [need("stress-ng"), "--temp-path", "/srv/w", "--verify", "--no-rand-seed", "--timeout", "10", "--oomable"]
    for stressor in STRESSORS[kind]:
        argv += [f"--{stressor}", "1", f"--{stressor}-ops", "20"]
    for result in both(staging, argv, 150):
        assert result.code == 0 and "successful run completed" in result.out + result.err, result
        assert "fail:" not in result.out + result.err, result
