"""inotify(7) on the target's files: programs that watch them hear what happens there, as they would beside the target."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.testkit.build import need
from tests.testkit.target import ENV, ROOT, Target

FRESH = "rm -rf /srv/w; mkdir -p /srv/w/sub; echo a >/srv/w/old; echo b >/srv/w/sub/x"
CHANGES = """
    cd /srv/w; echo hi >new; sleep 0.2; echo more >>old; chmod 600 old; mv new newer; mv newer sub/n; mkdir d; rmdir d
    mv sub/x /srv/x; mv /srv/x sub/back; rm sub/n; ln -s a l; rm l; touch sub/back; mv old older; rm older; rm -r sub
"""
EVENTS = "modify,attrib,close_write,move,create,delete,delete_self,move_self"
NODE = """
const fs = require("fs");
fs.watch("/srv/w", (event, name) => { console.log(event, name); if (name == "last") process.exit(0); });
console.log("ready");
"""
JAVA = r"""
import java.nio.file.*; import static java.nio.file.StandardWatchEventKinds.*;
public class Watch {
  public static void main(String[] args) throws Exception {
    WatchService service = FileSystems.getDefault().newWatchService();
    Path.of("/srv/w").register(service, ENTRY_CREATE, ENTRY_DELETE, ENTRY_MODIFY);
    System.out.println("ready");
    while (true) {
      WatchKey key = service.take();
      for (WatchEvent<?> event : key.pollEvents()) {
        System.out.println(event.kind() + " " + event.context());
        if (event.context().toString().equals("last")) System.exit(0);
      }
      key.reset();
    }
  }
}
"""
MODES = [("--fs-mode", "read"), ("--fs-mode", "write")]


@contextlib.contextmanager
def started(staging: Target, argv: list[str], flags: tuple[str, ...] | None) -> Iterator[subprocess.Popen[str]]:
    """Plugged, or with None native; killed at the end, and after a minute in any case."""
    argv = ["timeout", "60", *argv]
    enter = ["nsenter", "-t", str(staging.pid), "--net", "--mount", "--uts", "--"]
    command = [*enter, *argv] if flags is None else staging.command(argv, flags)
    env = {**os.environ, **ENV, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True)
    killer = threading.Timer(90, process.kill)
    killer.start()
    try:
        yield process
    finally:
        killer.cancel()
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def lines(process: subprocess.Popen[str], last: Callable[[str], bool]) -> list[str]:
    """What it prints, ours apart, until a line that is the `last`."""
    assert process.stdout is not None
    found: list[str] = []
    for line in process.stdout:
        if not line.startswith("sidestage: "):
            found.append(line.rstrip())
            if last(found[-1]):
                return found
    raise AssertionError(f"it ended, and said {found}")


def told(staging: Target, flags: tuple[str, ...] | None, folder: str = "/srv/w") -> list[str]:
    assert staging.native(["sh", "-c", FRESH]).code == 0
    argv = [need("inotifywait"), "-m", "-e", EVENTS, "--format", "%w %e %f", folder, "/srv/w/sub", "/srv/w/old"]
    with started(staging, argv, flags) as process:
        lines(process, lambda line: line == "Watches established.")
        assert staging.native(["sh", "-c", CHANGES]).code == 0
        heard = lines(process, lambda line: line == f"{folder}/ DELETE,ISDIR sub")
    # The kernel leaves out an event that is as the last, when nobody has read that yet.
    return [line for line, _ in itertools.groupby(heard)]


@pytest.mark.parametrize("flags", MODES, ids=lambda flags: flags[1])
def test_every_event(staging: Target, flags: tuple[str, ...]) -> None:
    """Masks, names, the order and both halves of renames, of two directories and a file."""
    native = told(staging, None)
    assert "/srv/w/sub/ MOVED_TO n" in native and "/srv/w/old MOVE_SELF " in [f"{line} " for line in native], native
    assert told(staging, flags) == native


@pytest.mark.parametrize("flags", [None, *MODES], ids=str)
def test_node(staging: Target, flags: tuple[str, ...] | None) -> None:
    assert staging.native(["sh", "-c", FRESH]).code == 0
    with started(staging, [need("node"), "-e", NODE], flags) as process:
        lines(process, lambda line: line == "ready")
        assert staging.native(["sh", "-c", "cd /srv/w; mv old moved; mkdir last"]).code == 0
        heard = lines(process, lambda line: line.endswith(" last"))
    assert heard == ["rename old", "rename moved", "rename last"]


@pytest.mark.parametrize("flags", [None, MODES[1]], ids=str)
def test_java(staging: Target, flags: tuple[str, ...] | None, tmp_path: Path) -> None:
    need("javac")
    (tmp_path / "Watch.java").write_text(JAVA)
    subprocess.run(["javac", "Watch.java"], cwd=tmp_path, check=True, timeout=120)
    assert staging.native(["sh", "-c", FRESH]).code == 0
    with started(staging, [need("java"), "-Xshare:auto", "-cp", str(tmp_path), "Watch"], flags) as process:
        lines(process, lambda line: line == "ready")
        assert staging.native(["sh", "-c", "cd /srv/w; rm old; mkdir last"]).code == 0
        heard = lines(process, lambda line: line.endswith(" last"))
    assert heard == ["ENTRY_DELETE old", "ENTRY_CREATE last"]


def test_its_own_changes(staging: Target) -> None:
    """A program hears of what it has done itself, and a descriptor that is watched is the program's: local paths are too."""
    assert staging.native(["sh", "-c", FRESH]).code == 0
    script = """
        local=$(mktemp -d); inotifywait -q -m -e create --format %w%f /srv/w $local >$local.out & watcher=$!; sleep 0.1
        until echo x >/srv/w/probe && rm /srv/w/probe && grep -q probe $local.out; do sleep 0.1; done
        >$local/here; >/srv/w/there; until grep -q there $local.out; do sleep 0.1; done
        kill $watcher; grep -c /here $local.out; grep -c /there $local.out; rm -r $local $local.out
    """
    result = staging.plugged(["/usr/bin/sh", "-c", script], 60, MODES[1])
    assert result.out == "1\n1\n", result


def test_what_can_not_be_watched(staging: Target) -> None:
    """The errors are those of the call beside the target."""
    argv = [need("inotifywait"), "-q", "-t", "1", "/srv/none"]
    native, plugged = staging.native(argv), staging.plugged(argv, 60, MODES[0])
    assert (plugged.code, plugged.out) == (native.code, native.out), plugged
    assert native.err in plugged.err


@pytest.mark.parametrize("flags", MODES, ids=lambda flags: flags[1])
def test_an_open_file_is_seen_to_have_grown(staging: Target, flags: tuple[str, ...]) -> None:
    """Who reads on when it is told to, as log shippers do, must find what it was told of: attributes are not those of before."""
    assert staging.native(["sh", "-c", f"{FRESH}; echo first >/srv/w/log"]).code == 0
    script = """
        exec 3</srv/w/log; cat <&3; inotifywait -q -m -e modify --format %e /srv/w/log | while read -r event; do
        echo "$event $(cat <&3)"; done & sleep 1; echo ready; wait
    """
    with started(staging, ["/usr/bin/sh", "-c", script], flags) as process:
        assert lines(process, lambda line: line == "ready") == ["first", "ready"]
        for line in ("second", "third"):
            assert staging.native(["sh", "-c", f"echo {line} >>/srv/w/log"]).code == 0
            assert lines(process, lambda line: True) == [f"MODIFY {line}"]
