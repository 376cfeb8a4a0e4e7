"""A root file system as an archive that `ctr images import` reads: the format of `docker save`, one layer.

usage: mkimage.py ROOTFS.tar OUT.tar NAME:TAG COMMAND...
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main(rootfs: Path, out: Path, name: str, *command: str) -> None:
    with rootfs.open("rb") as file:
        layer = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Env": [PATH, "LANG=C.UTF-8"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + layer]},
            "history": [{"created_by": "mkimage.py"}],
        }
    ).encode()
    ident = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{ident}.json", "RepoTags": [name], "Layers": [f"{layer}.tar"]}]).encode()
    with tarfile.open(out, "w") as archive, rootfs.open("rb") as file:
        for member, data in ((f"{ident}.json", config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        archive.addfile(archive.gettarinfo(rootfs, f"{layer}.tar"), file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
