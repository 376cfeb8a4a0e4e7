"""Libraries that programs watch files with, each on the target's files and beside the target: what they tell is the same."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

import pytest

from tests.files.test_watching import MODES, lines, started
from tests.testkit.build import go_module, need, npm_package
from tests.testkit.target import Target

FRESH = "rm -rf /srv/w /srv/o; mkdir -p /srv/w/sub /srv/o; cd /srv/w; echo a >old; echo b >sub/x; echo c >../o/new; echo d >../o/in"
# One by one, since a library that asks about each name it hears of may find it gone again; by names that come whole.
CHANGES = """
    mv /srv/o/new new; echo more >>old; mv new newer; mv newer sub/n; mkdir d; mv /srv/o/in d/in; mv d sub/dd; echo z >>sub/dd/in
    chmod 600 sub/x; rm sub/n; mv old older; rm -r sub; mkdir last
""".replace("\n", ";").split(";")
PAUSE = 0.4
# As the kubelet changes a ConfigMap that is mounted, and as editors save.
CONFIG = """
    rm -rf /srv/w; mkdir -p /srv/w/..1; cd /srv/w; echo a >..1/config; ln -s ..1 ..data; ln -s ..data/config config; echo b >plain
"""
SAVES = """
    mkdir ..2 && echo b >..2/config && ln -s ..2 ..tmp && mv -T ..tmp ..data && rm -r ..1; echo c >>plain
    echo d >new && mv new plain; echo e >>plain; rm plain; echo f >plain; mkdir last
""".replace("\n", ";").split(";")

CHOKIDAR = """
const watcher = require(process.argv[1]).watch(process.argv.slice(2));
watcher.on("all", (event, path) => console.log(event, path)).on("ready", () => console.log("ready"));
"""
WATCHDOG = """
import sys, threading
from watchdog.events import FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver
class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        print(event.event_type, event.src_path, event.dest_path, event.is_directory, flush=True)
observer = InotifyObserver()
observer.schedule(Handler(), sys.argv[1], recursive=True); observer.start(); print("ready", flush=True); observer.join()
"""


def chokidar(version: str, *paths: str) -> list[str]:
    return [need("node"), "-e", CHOKIDAR, str(npm_package("chokidar", version)), *paths]


WATCHERS: dict[str, Callable[[], list[str]]] = {
    "fsnotify": lambda: [str(go_module("fsnotify")), "/srv/w", "/srv/w/sub"],
    "chokidar 3": lambda: chokidar("3.6.0", "/srv/w"),
    "chokidar 4": lambda: chokidar("4.0.3", "/srv/w"),
    "watchdog": lambda: [sys.executable, "-c", WATCHDOG, "/srv/w"],
}
OF_FILES: dict[str, Callable[[], list[str]]] = {
    "fsnotify": lambda: [str(go_module("fsnotify")), "/srv/w", "/srv/w/plain", "/srv/w/config"],
    "chokidar 4": lambda: chokidar("4.0.3", "/srv/w/config", "/srv/w/plain", "/srv/w/last"),
}


def told(staging: Target, argv: list[str], fresh: str, changes: list[str]) -> list[list[str]]:
    """By a watcher beside the target and one in each mode, all at once."""
    assert staging.native(["sh", "-c", fresh]).code == 0
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(started(staging, argv, flags)) for flags in (None, *MODES)]
        begun = [lines(watcher, lambda line: line == "ready") for watcher in watchers]
        for change in filter(str.strip, changes):
            time.sleep(PAUSE)
            assert staging.native(["sh", "-c", f"cd /srv/w; {change}"]).code == 0
        return [first + lines(watcher, lambda line: "/srv/w/last" in line) for first, watcher in zip(begun, watchers, strict=True)]


@pytest.mark.parametrize("name", WATCHERS)
def test_a_tree(staging: Target, name: str) -> None:
    native, *plugged = told(staging, WATCHERS[name](), FRESH, CHANGES)
    assert len(set(native)) > 10, native
    for each in plugged:
        assert sorted(set(each)) == sorted(set(native))


@pytest.mark.parametrize("name", OF_FILES)
def test_files_that_are_replaced(staging: Target, name: str) -> None:
    native, *plugged = told(staging, OF_FILES[name](), CONFIG, SAVES)
    assert len(native) > 5, native
    for each in plugged:
        assert sorted(each) == sorted(native)
