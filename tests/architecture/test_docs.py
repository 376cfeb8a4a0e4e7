"""What the documents promise is there: tests that faults.md and kubernetes.md name, and files that any document links to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = (ROOT / "docs" / "faults.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)::(\w+)`", FAULTS)))
KUBERNETES = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", (ROOT / "docs" / "kubernetes.md").read_text())))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file, test", NAMED)
def test_a_fault_has_its_test(file: str, test: str) -> None:
    assert test in functions(ROOT / file if file.startswith("tests/") else ROOT / "tests" / "faults" / file)


@pytest.mark.parametrize("file, test", KUBERNETES)
def test_a_promise_of_kubernetes_has_its_test(file: str, test: str) -> None:
    assert test in functions(ROOT / "tests" / "cluster" / file)


def test_every_test_of_faults_is_in_the_table() -> None:
    there = {(path.name, name) for path in (ROOT / "tests" / "faults").glob("test_*.py") for name in functions(path)}
    missing = {(file, name) for file, name in there if name.startswith("test_")} - set(NAMED)
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not link.startswith(("http://", "https://", "mailto:", "#")):
            assert (document.parent / link.partition("#")[0]).exists(), link
