"""Programs of many runtimes as clients of everything: environment, host name, files, names, connections, and themselves."""

from __future__ import annotations

import sys

import pytest

from tests.testkit import build
from tests.testkit.target import Target, same

pytestmark = pytest.mark.timeout(400)  # the first run compiles


@pytest.mark.parametrize("resolver", ["go", "cgo"])
@pytest.mark.parametrize("cgo", [False, True], ids=["static", "cgo"])
def test_go(staging: Target, cgo: bool, resolver: str) -> None:
    if not cgo and resolver == "cgo":
        resolver = "go+1"  # a static program has but one: say how it decides instead
    same(staging, [str(build.go("client.go", cgo=cgo))], {"GODEBUG": f"netdns={resolver}"})


def test_java(staging: Target) -> None:
    same(staging, build.java("Client.java"))


def test_node(staging: Target) -> None:
    same(staging, [build.need("node"), str(build.PROGRAMS / "client.js")])


@pytest.mark.parametrize("name", ["plain", "tokio"])
def test_rust(staging: Target, name: str) -> None:
    same(staging, [str(build.rust(name))])


@pytest.mark.parametrize("name", ["client_asyncio.py", "client_threads.py"])
def test_python(staging: Target, name: str) -> None:
    same(staging, [sys.executable, str(build.PROGRAMS / name)])
