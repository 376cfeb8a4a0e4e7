"""One target for all tests of this folder; each test leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testkit.target import Target, target


@pytest.fixture(scope="session")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("target")) as made:
        yield made
