"""The rules of ARCHITECTURE.md and CONTRIBUTING.md, read off the source itself; each says why."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "sidestage"
PACKAGES = sorted(path.parent for path in ROOT.rglob("__init__.py"))
MODULES = sorted(ROOT.rglob("*.py"))
CEILING = 400  # lines; a longer module hides its idea

# package -> the packages of ours it may import (itself is always allowed), and why no other
ALLOWED = {
    "protocol": (set(), "travels to the target, and is pure"),
    "stream": ({"protocol"}, "travels to the target"),
    "http": (set(), "travels to the target, and is pure"),
    "tls": ({"protocol"}, "travels to the target, and has no sockets"),
    "agent": ({"stream", "protocol", "http", "tls"}, "runs beside the target, where nothing else of ours is"),
    "trap": ({"protocol"}, "knows system calls and nothing of targets: its needs are ports.py"),
    "config": ({"http", "tls", "views"}, "is plain data that anything may read; what is in it is checked by the code that uses it"),
    "views": ({"protocol", "stream", "trap"}, "decides, and drives nothing; of trap only ports"),
    "targets": ({"agent", "protocol", "stream"}, "finds a target and starts the agent's text there"),
    "cluster": ({"agent", "config", "protocol", "stream", "targets"}, "knows Kubernetes and no system calls"),
    "exchange": ({"http"}, "reads what passes by, and decides nothing"),
    "record": ({"exchange", "protocol", "stream", "targets"}, "stands where an agent does, and needs no session"),
    "ui": ({"session"}, "shows what a session tells, and has no other way to it"),
    "up": ({"config", "session", "stream"}, "runs several, and knows nothing of what plugs one in"),
    "session": (
        {"exchange", "record", "agent", "cluster", "protocol", "stream", "targets", "tls", "views", "trap"},
        "is driven by cli, not the reverse",
    ),
}
TRAVELS = ("protocol", "stream", "http", "tls", "agent")
WORDS = tuple("".join(parts) for parts in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK")))


def imports(path: Path) -> set[str]:
    """Full names of the modules that `path` imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "sidestage" else {node.module}
    return found


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no module in {package}: the rule would hold for nothing"
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_go_one_way(package: str) -> None:
    allowed, why = ALLOWED[package]
    for module in modules(package):
        ours = {name.split(".")[1] for name in imports(module) if name.startswith("sidestage.")}
        assert ours - allowed - {package, "__version__"} == set(), f"{module.relative_to(ROOT)}: {package} {why}"


@pytest.mark.parametrize("package", TRAVELS)
def test_what_travels_needs_only_the_standard_library(package: str) -> None:
    for module in modules(package):
        others = {name.split(".")[0] for name in imports(module)} - {"sidestage"} - sys.stdlib_module_names
        assert not others, f"{module.relative_to(ROOT)} imports {others}, which the target may lack"


@pytest.mark.parametrize("package", TRAVELS)
def test_what_travels_is_in_the_syntax_of_python_3_9(package: str) -> None:
    for module in modules(package):
        ast.parse(module.read_text(), feature_version=(3, 9))


def test_views_use_only_the_ports_of_trap() -> None:
    for module in modules("views"):
        used = {name for name in imports(module) if name.startswith("sidestage.trap")}
        assert used <= {"sidestage.trap.ports"}, module


def test_cluster_sends_the_agent_and_names_targets_but_finds_none_here() -> None:
    for module in modules("cluster"):
        used = {name for name in imports(module) if name.startswith(("sidestage.agent", "sidestage.targets"))}
        assert used <= {"sidestage.agent.payload", "sidestage.agent", "sidestage.targets.plug", "sidestage.targets.spec"}, module


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_explained_and_finished(module: Path) -> None:
    text = module.read_text()
    assert text.count("\n") <= CEILING
    if module.name not in ("__main__.py", "stage0.py"):  # stage0 is a command line, with a comment of a few bytes
        assert ast.get_docstring(ast.parse(text)), "a module's docstring is its map"
    assert not [word for word in WORDS if word in text]


def test_every_folder_with_modules_is_a_package() -> None:
    assert {path.parent for path in MODULES} == set(PACKAGES)
