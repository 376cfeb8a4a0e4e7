"""Start-up is the user's time: what each path imports is counted, since modules can be counted and milliseconds can't.

Measured on CPython 3.11, two cores: a module costs 0.3 ms on average; `exec` to its fork 75 ms of processor, the keeper 60 ms more
beside it, PyYAML 20 ms where a kubeconfig is read. The bounds below are what there is and a few modules more.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "asyncio", "concurrent", "ctypes", "difflib", "email", "http", "logging", "rich", "subprocess", "tempfile", "unittest", "xml",
    "yaml", "jinja2", "urllib.request",
}  # fmt: skip
CODE = "import sys; before = set(sys.modules); import {}; print(*sorted(set(sys.modules) - before))"


def imported(names: str) -> set[str]:
    code = CODE.format(names)
    out = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}; {code}"],
                         capture_output=True, text=True, check=True).stdout  # fmt: skip
    return set(out.split())


@pytest.mark.parametrize(
    "what, names, most",
    [
        ("the help", "sidestage.cli.main", 14),
        ("exec, to its fork", "sidestage.cli.exec, sidestage.cli.options", 105),
        ("the keeper", "sidestage.cluster.keeper", 135),
        ("completion", "sidestage.cli.complete", 85),
    ],
)
def test_a_path_imports_no_more_than_it_needs(what: str, names: str, most: int) -> None:
    found = imported(names)
    assert found, "nothing would be measured"
    heavy = {name for name in found if name in HEAVY or name.split(".")[0] in HEAVY}
    assert not heavy, f"{what} imports {heavy}"
    assert len(found) <= most, f"{what} imports {len(found)} modules"
