"""Programs that only the target has, run here because `execute` names them: as inside the target, by every way to run one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testkit import build
from tests.testkit.target import ROOT, Target

HERE = Path(__file__).parent
PLACE = "/srv/programs"
SETUP = f"""
mkdir -p {PLACE}/folder; cd {PLACE}; cp "$0" tool; printf data >data; cp "$1" busybox
printf '#!/bin/sh\\necho "I am $0:" "$@"\\nexit 5\\n' >script
printf '#! /bin/sh -u \\necho "I am $0:" "$@"\\necho $none' >option
printf '#!{PLACE}/busybox sh\\necho "I am $0:" "$@"\\nreadlink /proc/$$/exe' >remote
printf 'echo "I am $0:" "$@"' >plain; printf '#!{PLACE}/none' >lost
head -c 5000 tool >broken; printf '\\3\\0' | dd of=broken bs=1 seek=18 conv=notrunc 2>/dev/null
printf '#!{PLACE}/data\\n' >looped
chmod +x tool busybox script option remote plain lost broken looped
"""


@pytest.fixture(scope="module")
def program() -> Path:
    return build.c("exec.c", "musl-gcc", "-static")


@pytest.fixture(scope="module")
def remote(staging: Target, program: Path) -> Iterator[Target]:
    made = staging.native(["sh", "-ec", SETUP, str(program), build.need("busybox")])
    assert made.code == 0, made.err
    yield staging
    staging.native(["rm", "-r", PLACE])


@pytest.fixture
def allowed(tmp_path: Path) -> tuple[str, str]:
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps({"feature": {"fs": {"execute": [f"^{PLACE}/"], "read_only": [f"^{PLACE}/"]}}}))
    return ("-f", str(config))


def test_every_way(remote: Target, allowed: tuple[str, str]) -> None:
    argv = [sys.executable, str(HERE / "programs.py"), PLACE]
    native, plugged = remote.native(argv, 60), remote.plugged(argv, 60, allowed)
    assert native.code == 0, native.err
    assert plugged.out.splitlines() == native.out.splitlines(), plugged.err
    assert plugged.code == 0


def test_go(remote: Target, allowed: tuple[str, str]) -> None:
    argv = [str(build.go("exec.go", cgo=False)), PLACE]
    native, plugged = remote.native(argv, 60), remote.plugged(argv, 60, allowed)
    assert (plugged.out, plugged.code) == (native.out, native.code), plugged.err
    assert native.code == 1


def test_a_virtual_environment(remote: Target, allowed: tuple[str, str]) -> None:
    """Its interpreter is a link to a file of the system, which is this machine's; all else is the target's."""
    code = 'import json, own, sys; print(own.WHERE, sys.prefix, sys.executable, sys.argv, json.__file__)'
    setup = f"""
    /usr/bin/python3 -m venv --without-pip {PLACE}/venv; cd {PLACE}/venv
    echo 'WHERE = __file__' >$(echo lib/*/site-packages)/own.py
    printf '#!{PLACE}/venv/bin/python3\\n{code}\\n' >bin/entry; chmod +x bin/entry
    """
    made = remote.native(["sh", "-ec", setup])
    assert made.code == 0, made.err
    argv = ["sh", "-c", f"{PLACE}/venv/bin/entry a 'b c'; {PLACE}/venv/bin/python -c 'import own; print(own.WHERE)'"]
    native, plugged = remote.native(argv), remote.plugged(argv, 60, allowed)
    assert f"{PLACE}/venv/lib" in native.out
    assert plugged.out == native.out, plugged.err


def test_the_command_itself(remote: Target, allowed: tuple[str, str]) -> None:
    native, plugged = (how([f"{PLACE}/script", "x"]) for how in (remote.native, lambda argv: remote.plugged(argv, 60, allowed)))
    assert (plugged.out, plugged.code) == (native.out, native.code) == (f"I am {PLACE}/script: x\n", 5), plugged.err
    missing = remote.plugged([f"{PLACE}/nothing"], 60, allowed)
    assert missing.code == 127
    assert "no such file" in missing.err


@pytest.mark.parametrize("mode", ["read", "write"])
def test_what_is_not_named_is_not_run(remote: Target, mode: str) -> None:
    plugged = remote.plugged(["sh", "-c", f"{PLACE}/tool; echo $?; {PLACE}/tool; {PLACE}/none; echo $?"], 60, ("--fs-mode", mode))
    assert plugged.out.split() == ["126", "127"]
    assert plugged.err.count("runs here only if feature.fs.execute names it") == 1


def test_a_loader_that_lacks_is_named(remote: Target, program: Path, allowed: tuple[str, str]) -> None:
    change = f"sed 's:/lib64/ld-linux-x86-64:/lib64/ld-other-x86-64:' /usr/bin/id >{PLACE}/id; chmod +x {PLACE}/id"
    assert remote.native(["sh", "-c", change]).code == 0
    plugged = remote.plugged(["sh", "-c", f"{PLACE}/id; echo $?"], 60, allowed)
    assert plugged.out == "127\n"
    assert "its loader, /lib64/ld-other-x86-64.so.2, is not on this machine" in plugged.err


def test_without_fuse(remote: Target, allowed: tuple[str, str]) -> None:
    command = remote.command(["sh", "-c", f"{PLACE}/busybox echo copied; {PLACE}/script x"], allowed)
    hide = 'mount --bind /dev/null /dev/fuse && export PYTHONPATH="$0" && exec "$@"'
    hidden = ["unshare", "-m", "sh", "-c", hide, str(ROOT / "src"), *command]
    done = subprocess.run(hidden, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"copied\nI am {PLACE}/script: x\n", done.stderr


def test_who_is_debugged_is_left_to_the_debugger(remote: Target, allowed: tuple[str, str]) -> None:
    """One task has one tracer."""
    command = [build.need("strace"), "-f", "-o", "/dev/null", "sh", "-c", f"{PLACE}/tool; echo $?"]
    plugged = remote.plugged(command, 60, allowed)
    assert plugged.out == "126\n"
    assert "is it debugged?" in plugged.err
