"""The extension in a real editor of VS Code (code-server, in a headless browser): a breakpoint of a plugged program is hit by a
request that was mirrored to it, in Python and in Node."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from selenium import webdriver

from tests.testkit.target import CLIENT, ROOT, SERVICE, Target, wait_for
from tests.ui.test_page import FLAGS, keep

EXTENSION = ROOT / "extension" / "vscode"
CACHE = Path(os.environ.get("SIDESTAGE_CACHE") or Path.home() / ".cache" / "sidestage")
PYTHON = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        peer = self.client_address[0], os.environ["GREETING"], self.path
        self.send_response(200); self.end_headers(); self.wfile.write(repr(peer).encode())

http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
NODE = """
const http = require("http");

http.createServer((request, response) => {
  const peer = request.socket.remoteAddress.replace("::ffff:", "") + " " + process.env.GREETING + " " + request.url;
  response.end(peer);
}).listen(8080);
"""


def npm(*args: str) -> None:
    done = subprocess.run(["npm", *args], cwd=EXTENSION, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def modules() -> None:
    if not (EXTENSION / "node_modules" / ".package-lock.json").exists():
        npm("ci", "--no-audit", "--no-fund", "--ignore-scripts")
        npm("rebuild", "esbuild")


@pytest.fixture(scope="session")
def vsix(modules: None) -> Path:
    npm("run", "package")
    return EXTENSION / "dist" / "sidestage.vsix"


@pytest.mark.timeout(600)
def test_types_and_units(modules: None) -> None:
    npm("run", "check")
    npm("test")


@pytest.fixture(scope="session")
def code_server() -> list[str]:
    folder = CACHE / "code-server"
    done = subprocess.run(
        ["sh", ROOT / "tests" / "extension" / "code_server.sh", folder], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ["node", str(folder / "node_modules" / "code-server" / "out" / "node" / "entry.js")]


class Editor:
    """A workspace, opened in the editor in a browser, with a plan for the extension `host`."""

    def __init__(self, folder: Path) -> None:
        self.out, self.go, self.stop = folder / "out", folder / "go", folder / "stop"
        self.browser: webdriver.Chrome

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []

    def first(self, key: str) -> Any:
        """The first event with this key; fails the test at once when the plan failed."""
        found = self.told()
        assert not any("failed" in event for event in found), found
        return next((event for event in found if key in event), None)


@contextlib.contextmanager
def editor(
    code_server: list[str], vsix: Path, staging: Target, folder: Path, name: str, text: str, line: int, plan: dict[str, Any]
) -> Iterator[Editor]:
    made = Editor(folder)
    work, data = folder / "work", folder / "data"
    (work / ".sidestage").mkdir(parents=True)
    (work / ".vscode").mkdir()
    (work / name).write_text(text)
    (work / ".sidestage" / "sidestage.json").write_text(json.dumps({"target": f"process/{staging.pid}"}))
    settings = {
        "sidestage.enabledByDefault": True, "sidestage.command": [sys.executable, "-m", "sidestage"],
        "telemetry.telemetryLevel": "off", "workbench.startupEditor": "none", "debug.openDebug": "openOnDebugBreak",
        "extensions.autoUpdate": False, "update.mode": "none", "debug.toolBarLocation": "docked",
    }  # fmt: skip
    (work / ".vscode" / "settings.json").write_text(json.dumps(settings))
    plan = {
        **plan, "out": str(made.out), "go": str(made.go), "stop": str(made.stop), "python": sys.executable, "line": line,
        "launch": {**plan["launch"], "program": str(work / name), "cwd": str(work)},
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (data / "user" / "User").mkdir(parents=True)
    (data / "extensions").mkdir()
    places = ["--user-data-dir", str(data / "user"), "--extensions-dir", str(data / "extensions")]
    install = [*code_server, *places, "--install-extension", str(vsix)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(ROOT / "tests" / "extension" / "host", data / "extensions" / "sidestage-tests.host-0.0.1")
    listing = json.loads((data / "extensions" / "extensions.json").read_text())
    listing.append({
        "identifier": {"id": "sidestage-tests.host"}, "version": "0.0.1", "relativeLocation": "sidestage-tests.host-0.0.1",
        "location": {"$mid": 1, "path": str(data / "extensions" / "sidestage-tests.host-0.0.1"), "scheme": "file"},
    })  # fmt: skip
    (data / "extensions" / "extensions.json").write_text(json.dumps(listing))
    with open(folder / "log", "wb") as log:
        server = _start(code_server, places, work, folder / "plan.json", log)
    try:
        wait_for("the editor's server", lambda: "HTTP server listening on" in (folder / "log").read_text(), 60)
        url = (folder / "log").read_text().partition("HTTP server listening on ")[2].split()[0]
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in FLAGS:
            options.add_argument(flag)
        made.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            made.browser.get(f"{url}?folder={work}")
            yield made
        finally:
            made.browser.quit()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _start(code_server: list[str], places: list[str], work: Path, plan: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    flags = "--auth none --bind-addr 127.0.0.1:0 --disable-telemetry --disable-update-check --disable-workspace-trust".split()
    return subprocess.Popen(
        [*code_server, *places, *flags, str(work)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "SIDESTAGE_TEST_PLAN": str(plan), "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


def until(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.3)
    return found


DEBUGPY = {"type": "debugpy", "request": "launch", "name": "app", "console": "internalConsole"}
CASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "python": ("app.py", PYTHON, 7, {"launch": DEBUGPY, "expression": "repr(peer)"}),
    "node": ("app.js", NODE, 6, {"launch": {"type": "node", "request": "launch", "name": "app"}, "expression": "peer"}),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", CASES)
def test_a_breakpoint_is_hit_by_a_mirrored_request(
    code_server: list[str], vsix: Path, staging: Target, tmp_path: Path, language: str
) -> None:
    name, text, line, plan = CASES[language]
    with editor(code_server, vsix, staging, tmp_path, name, text, line, plan) as made:
        assert until(lambda: made.first("started"), "the start")["started"]

        def stopped() -> Any:
            done = staging.client(f"http://{SERVICE}:8080/from-staging")
            assert done.out == "staging /from-staging\n", done.err  # whatever the debugger does
            return made.first("stopped")

        found = until(stopped, "the breakpoint")
        assert found["line"] == line
        assert CLIENT in found["result"]
        assert "hello from staging" in found["result"]
        time.sleep(1)  # for the editor to draw it
        keep(made.browser, f"vscode-{language}")
        made.go.touch()
        until(lambda: made.first("continued"), "going on")
        made.stop.touch()
        until(lambda: made.first("ended"), "Stop")
        until(lambda: made.first("terminated"), "the end of the session")
    assert staging.client(f"http://{SERVICE}:8080/after").out == "staging /after\n"
