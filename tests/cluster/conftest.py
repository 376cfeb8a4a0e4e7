"""One cluster for all tests of this folder, brought up when the first of them needs it; a namespace for each module."""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import cast

import pytest

from tests.testkit.cluster import Cluster, script

SECONDS = 180  # a test's own bound; the fixtures have bounds of their own (the first build of the cluster takes minutes)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/cluster/" in str(item.path) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS, func_only=True))


@pytest.fixture(autouse=True)
def patience() -> None:
    """Tests here may take a minute, which is no reason to print where all threads are; pytest-timeout still watches."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> None:
    """Binaries and images are in the cache: minutes, once. What lacks is said; `./run test` says it before all tests too."""
    if os.getuid() != 0:
        pytest.skip("NO CLUSTER: root is needed for nodes of namespaces (sudo ./run test)")
    lacking = [command for command in ("go", "containerd", "runc", "mmdebstrap", "nft") if not shutil.which(command)]
    if lacking:
        pytest.skip(f"NO CLUSTER: {', '.join(lacking)} not installed (`./run test` installs all but go)")
    version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (1, 21):
        pytest.skip(f"NO CLUSTER: {version} can't fetch the toolchain that is needed; Go 1.21 or later can")
    faulthandler.cancel_dump_traceback_later()
    aloud(request, "up", "build")


def aloud(request: pytest.FixtureRequest, name: str, *args: str) -> None:
    """A script whose words the user sees, as it may take minutes."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        script(name, *args, capture=False)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, built: None) -> Iterator[Cluster]:
    """The shared cluster. It is left as it was found: taken down only when it was not up before."""
    found = (Cluster.found().state / "up").exists()
    aloud(request, "up")
    yield Cluster.found()
    if not found:
        script("down")


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty namespace named after the module and this run; gone afterwards with all that is in it."""
    module = cast(str, request.module.__name__).rsplit(".", 1)[-1]
    with cluster.namespace(f"{re.sub('[^a-z0-9]', '-', module)}-{os.getpid()}") as name:
        yield name
