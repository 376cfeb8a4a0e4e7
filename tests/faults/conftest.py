"""A target for the folder, and for each test a laptop of its own; after each test nothing may be left on either."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testkit.laptop import Canary, Laptop, Leaks, laptop
from tests.testkit.target import SERVICE, Target, target


@pytest.fixture(scope="session")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("target")) as made:
        yield made


@pytest.fixture
def here(staging: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A laptop whose runs must have left nothing, on either side, at the test's end."""
    with laptop(tmp_path_factory.mktemp("laptop")) as made:
        leaks = Leaks(made, staging)
        yield made
        leaks.check()


@pytest.fixture
def canary(staging: Target) -> Iterator[None]:
    """A client of the target that must not notice anything of the test."""
    client = Canary(staging, SERVICE)
    try:
        yield
        client.check()
    finally:
        client.close()
