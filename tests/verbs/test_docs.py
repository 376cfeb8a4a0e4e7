"""The examples of docs/verbs.md: each is run as it stands, against a target of this machine, and prints what it shows.

Numbers differ from run to run, and so do columns of the target's name: all else must be the same.
"""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path

import yaml

from sidestage.cli.verbs import MODULES
from sidestage.up.file import load
from tests.testkit.target import CLIENT, ROOT, SERVICE, Target
from tests.testkit.verb import once, verb

PAGE = (ROOT / "docs" / "verbs.md").read_text()
SERVE = "import time; print('listening', flush=True); time.sleep(60)"


def example(name: str) -> tuple[list[str], list[str]]:
    """Words of the command, and the lines that it shows."""
    (block,) = [text for text in re.findall(r"```console\n(.*?)```", PAGE, re.S) if text.startswith(f"$ sidestage {name}")]
    command, *lines = block.splitlines()
    return shlex.split(command)[2:], lines


def here(words: list[str], staging: Target) -> list[str]:
    return [f"process/{staging.pid}" if word == "deployment/orders" else word for word in words]


def alike(line: str) -> str:
    """Without what differs from run to run."""
    line = re.sub(r"(deployment|process)/\w+", "TARGET", line.rstrip("\n"))
    line = re.sub(r"\S+/python", "/usr/bin/python", line)
    return re.sub(r"\d+(\.\d+)*", "N", line)


def test_each_verb_has_its_example() -> None:
    assert {name: bool(example(name)[1]) for name in MODULES} == dict.fromkeys(MODULES, True)


def test_port_forward(staging: Target) -> None:
    words, (ready,) = example("port-forward")
    with socket.create_server(("127.0.0.1", 0)) as free:  # others may use the page's port just now
        port = free.getsockname()[1]
    with verb([word.replace("15432", str(port)) for word in here(words, staging)]) as run:
        assert alike(run.wait("Ready")) == alike(ready)
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"as the page says")
            assert sock.recv(99) == b"as the page says"
        assert run.end() == 0


def test_dump(staging: Target) -> None:
    words, (ready, line) = example("dump")
    with verb(here(words, staging)) as run:
        assert alike(run.wait("Ready")) == alike(ready)
        staging.client(f"http://{SERVICE}:8080/orders?id=7", CLIENT)
        assert alike(run.wait("GET")) == alike(line)
        assert run.end() == 0


def test_diagnose(staging: Target) -> None:
    words, lines = example("diagnose")
    done = once(here(words, staging), 120)
    assert done.code == 0, done.err
    shown = done.out.splitlines()
    assert [alike(line) for line in shown[: len(lines) - 1]] == [alike(line) for line in lines[:-1]]
    assert shown[len(lines) - 1].split("  ")[0] == lines[-1].split("  ")[0] == "limit"


def test_clean() -> None:
    words, (local, _cluster) = example("clean")  # the second line's test is tests/cluster/test_verbs.py
    done = once([*words, "--local"])
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1:] == [local] or "would be killed" in done.out  # of other tests, which kill sessions


def test_up(staging: Target, tmp_path: Path) -> None:
    words, lines = example("up")
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "serve.py").write_text(SERVE)
    file = tmp_path / "sidestage-up.yaml"
    file.write_text(text)
    assert list(load(file)) == ["orders", "web"]
    tree = yaml.safe_load(text)
    del tree["services"]["web"]  # npm's, and no part of what is shown
    file.write_text(yaml.safe_dump(tree).replace("deployment/orders", f"process/{staging.pid}"))
    with verb(words, cwd=tmp_path) as run:
        assert [alike(run.wait("runs as")), alike(run.wait("listening"))] == [alike(line) for line in lines]
        assert run.end() == 130
