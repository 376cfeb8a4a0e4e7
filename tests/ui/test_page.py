"""The page in a real browser, while requests are mirrored to a program that answers some of them differently."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.testkit.target import ROOT, SERVICE, Target, wait_for

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,900"
).split()
PROGRAM = """
import http.server, json, socket
open("/srv/config.txt").read()
with socket.create_connection(("db.staging.internal", 7000), 5) as s: s.sendall(b"x")
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"staging " + self.path.encode() + b"\\n"
        if self.path.startswith("/<b>"): body = json.dumps({"total": 12, "who": "<i>local</i>"}).encode()
        self.send_response(500 if self.path == "/broken" else 200)
        if body[:1] == b"{": self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
"""


@pytest.fixture(scope="module")
def url(staging: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a session's page."""
    out = tmp_path_factory.mktemp("ui") / "out"
    with open(out, "wb") as sink:
        process = subprocess.Popen(
            staging.command(["python3", "-c", PROGRAM], ["--ui"]), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    try:
        wait_for("the address", lambda: "live at" in out.read_text(), 30)
        match = re.search(r"live at (\S+)", out.read_text())
        assert match
        yield match[1]
    finally:
        process.terminate()
        process.wait(20)
    wait_for("the end of the page's server", lambda: not _answers(match[1]))


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url, timeout=5).close()
        return True
    return False


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    made.get(url)
    yield made
    made.quit()


def until(browser: webdriver.Chrome, condition: Any, what: str) -> None:
    WebDriverWait(browser, 30, poll_frequency=0.2).until(lambda _: condition(), what)


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, selector)]


def keep(browser: webdriver.Chrome, name: str) -> None:
    """A picture, kept as test output."""
    folder = Path(os.environ.get("SIDESTAGE_TEST_OUTPUT", ROOT / "build" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(folder / f"{name}.png"))


def test_requests_and_their_difference(staging: Target, browser: webdriver.Chrome) -> None:
    def probed() -> bool:
        staging.client(f"http://{SERVICE}:8080/probe")
        return bool(texts(browser, "table[data-table=requests] .badge"))

    until(browser, probed, "the first request")
    for path in ("/same", "/broken", "/%3Cb%3Ebold", "/<b>bold"):
        staging.client(f"http://{SERVICE}:8080{path}")
    rows = "table[data-table=requests] tbody tr"
    until(browser, lambda: any("/<b>bold" in text and "difference" in text for text in texts(browser, rows)), "its difference")
    until(browser, lambda: any("/broken" in text and "500" in text and "200" in text for text in texts(browser, rows)), "statuses")
    assert any("/same" in text and "equal" in text for text in texts(browser, rows))
    assert not browser.find_elements(By.CSS_SELECTOR, "td b, td i")  # nothing from outside is HTML

    row = next(found for found in browser.find_elements(By.CSS_SELECTOR, rows) if "/<b>bold" in found.text)
    row.click()
    until(browser, lambda: "<i>local</i>" in "".join(texts(browser, "#details pre")), "the local answer")
    assert any("The target's answer: 200" in text for text in texts(browser, "#details h2"))
    keep(browser, "ui-difference")

    browser.find_element(By.ID, "differing").click()
    assert all("equal" not in text for text in texts(browser, rows) if text)
    browser.find_element(By.ID, "differing").click()


def test_outgoing_names_and_files(browser: webdriver.Chrome) -> None:
    for tab, want in {
        "outgoing": "db.staging.internal (10.77.0.20):7000", "names": "10.77.0.20", "files": "/srv/config.txt",
        "variables": "GREETING",
    }.items():  # fmt: skip
        browser.find_element(By.CSS_SELECTOR, f"[data-tab={tab}]").click()
        cells = f"table[data-table={tab}] td"
        until(browser, lambda cells=cells, want=want: any(want in text for text in texts(browser, cells)), want)
    keep(browser, "ui-files")
    facts = browser.find_element(By.ID, "facts")
    until(browser, lambda: "round trip" in facts.text and "orders-7f9c" in facts.text, "the facts of the session")


def test_the_token_is_asked_for(url: str) -> None:
    base, _, token = url.partition("/#")

    def ask(path: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(base + path, headers=headers), timeout=5) as answer:
                answer.read(1)
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    right = {"Authorization": f"Bearer {token}"}
    assert ask("/") == 200
    assert ask("/sessions") == ask("/events?session=x") == ask("/exchange?session=x&id=1") == 403
    assert ask("/sessions", Authorization="Bearer " + "x" * len(token)) == 403
    assert ask("/sessions", **right) == 200
    assert ask("/sessions", Host="evil.example", **right) == 421
    assert ask("/events?session=nobody", **right) == ask("/exchange?session=nobody&id=1", **right) == 404
    assert ask("/../../etc/passwd", **right) == 404
    assert ask("/exchange?session=nobody&id=x", **right) == 404


def test_nothing_is_loaded_from_elsewhere(url: str, browser: webdriver.Chrome) -> None:
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    base = url.partition("/#")[0]
    assert loaded
    assert all(name.startswith(base + "/") for name in loaded), json.dumps(loaded)
    assert "#" not in browser.current_url
