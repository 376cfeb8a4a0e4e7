"""A session's command in the list of sessions."""

from __future__ import annotations

import pytest

from sidestage.cli.status import MAX_SHOWN, shown


@pytest.mark.parametrize(
    "command, text",
    [
        (["dump", "-p", "8080,7000"], "dump -p 8080,7000"),
        (["python3", "-c", "import os\n\n    print(1)"], "python3 -c 'import os print(1)'"),
        (["a", "b" * 200], "a " + "b" * (MAX_SHOWN - 5) + "..."),
    ],
)
def test_it_is_one_line(command: list[str], text: str) -> None:
    assert shown(command) == text
