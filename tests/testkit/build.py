"""Compiles the programs of the tests, once: kept by content under ~/.cache/sidestage, so a second run has them at once."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidestage" / "test-programs"
PROGRAMS = Path(__file__).parents[1] / "matrix" / "programs"
ENGINES = Path(__file__).parent / "engines"
BUILD_TIMEOUT = 300  # seconds; the slowest is tokio from nothing on a loaded machine


def need(command: str) -> str:
    """The tool's path. `./run test` installs what lacks when it is root; elsewhere the test is skipped, by name."""
    path = shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin:/usr/lib/postgresql/bin")
    if path:
        return path
    if os.geteuid() == 0:
        pytest.fail(f"{command} is not installed, though ./run can install it here")
    pytest.skip(f"{command} is not installed")


def c(name: str, compiler: str = "gcc", *flags: str) -> Path:
    extra = {path.name: path.read_bytes() for path in PROGRAMS.glob("*.h")}
    out = _built(name, extra | _sources(name), [need(compiler), "-O1", "-w", *flags, "-o", "OUT/program", name, "-lpthread"])
    return out / "program"


def go(name: str, *, cgo: bool) -> Path:
    env = {"CGO_ENABLED": str(int(cgo)), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    return _built(name, _sources(name), [need("go"), "build", "-o", "OUT/program", name], env) / "program"


def java(name: str) -> list[str]:
    """The command that runs the class of that source."""
    out = _built(name, _sources(name), [need("javac"), "-d", "OUT", name])
    return [need("java"), "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", str(out), name.removesuffix(".java")]


def rust(name: str) -> Path:
    folder = PROGRAMS / "rust"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    env = {"CARGO_TARGET_DIR": str(CACHE / "cargo-target")}
    script = 'cargo build -q --locked && cp "$CARGO_TARGET_DIR"/debug/plain "$CARGO_TARGET_DIR"/debug/tokio OUT'
    need("cargo")
    return _built("rust", files, ["sh", "-c", script], env) / name


def cargo_program(name: str, version: str) -> Path:
    """A program of the crates' registry, at that version; the registry must be reached the first time."""
    env = {"CARGO_TARGET_DIR": str(CACHE / "cargo-target")}
    argv = [need("cargo"), "install", "-q", name, "--version", version, "--locked", "--debug", "--root", "OUT"]
    return _built(f"{name}-{version}", {}, argv, env) / "bin" / name


first_engines = pytest.mark.timeout(900)  # of the tests that use them: the first run compiles


def engines() -> Path:
    """The folder of dockerd, docker, runc and rootlesskit, as engines/go.mod pins them."""
    need("gcc")  # runc is C in part, and wants libseccomp
    version = subprocess.run([need("go"), "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (1, 21):
        pytest.skip(f"NO DOCKER: {version} can't fetch the toolchain that is needed; Go 1.21 or later can")
    if not os.path.exists("/usr/include/seccomp.h"):
        (pytest.fail if os.geteuid() == 0 else pytest.skip)("libseccomp-dev is not installed")
    files = {name: (ENGINES / name).read_bytes() for name in ("go.mod", "go.sum", "build.sh")}
    return _built("engines", files, [need("sh"), "-eu", "build.sh", "OUT"], seconds=1800)


def debian(package: str, path: str) -> Path:
    """A file of a package of Debian's that isn't installed, as that may start something. For the libc that is here."""
    libc = subprocess.run(["dpkg-query", "-W", "libc6"], capture_output=True, text=True, check=False).stdout.split()[-1:]
    if not libc:
        pytest.skip("no Debian")
    script = f"apt-get download -q {package} || apt-get -q update && apt-get download -q {package}; dpkg -x {package}_*.deb OUT"
    return _built(f"{package}-{libc[0]}", {}, ["sh", "-c", script]) / path


def npm_package(name: str, version: str) -> Path:
    """Its folder, with what it needs beside it; the registry must be reached the first time, as for the next."""
    argv = [need("npm"), "install", "--prefix", "OUT", "--no-audit", "--no-fund", "--ignore-scripts", f"{name}@{version}"]
    return _built(f"{name}-{version}", {}, argv) / "node_modules" / name


def go_module(name: str) -> Path:
    """A program with modules of others, whose sums are beside it."""
    files = {path.name: path.read_bytes() for path in (PROGRAMS / name).iterdir()}
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    return _built(name, files, [need("go"), "build", "-o", "OUT/program", "."], env) / "program"


def _sources(name: str) -> dict[str, bytes]:
    return {name: (PROGRAMS / name).read_bytes()}


def _built(
    name: str, files: Mapping[str, bytes], argv: Sequence[str], env: Mapping[str, str] | None = None, seconds: int = BUILD_TIMEOUT
) -> Path:
    """The folder of results; OUT in `argv` stands for it."""
    key = hashlib.sha256(repr((sorted(files.items()), list(argv), sorted((env or {}).items()))).encode()).hexdigest()[:24]
    out = CACHE / f"{name}-{key}"
    if out.exists():
        return out
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        source, result = Path(temporary, "source"), Path(temporary, "out")
        source.mkdir()
        result.mkdir()
        for path, data in files.items():
            place = source / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        done = subprocess.run(
            [part.replace("OUT", str(result)) for part in argv], cwd=source, env={**os.environ, **(env or {})},
            capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result.rename(out)
    return out
