"""What the shell is offered: verbs, flags, kinds at once; names of a cluster that answers, is slow, or is not there."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.testkit.apiserver import Request, serving

from sidestage.cli import complete
from sidestage.targets.spec import TargetError

# The server of these tests has threads, and Python 3.12 warns of fork(2) beside them; sidestage itself has none there.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("SIDESTAGE_")]:
        monkeypatch.delenv(name)
    return tmp_path


def offered(text: str) -> list[str]:
    line = complete.read(text)
    return sorted(candidate for candidate, _ in complete.candidates(line))


@pytest.mark.parametrize(
    "text, verb, flag, word",
    [
        ("sidestage", "", "", ""), ("sidestage ", "", "", ""), ("sidestage ex", "", "", "ex"), ("sidestage exec ", "exec", "", ""),
        ("sidestage exec -t", "exec", "", "-t"), ("sidestage exec -t ", "exec", "-t", ""),
        ("sidestage exec -t pod/a -n", "exec", "", "-n"), ("sidestage exec -t 'pod/", "exec", "-t", "pod/"),
        ("sidestage exec -e -t po", "exec", "-t", "po"), ("sidestage exec --target=po", "exec", "--target", "po"),
        ("sidestage exec -n 'a b' -t ", "exec", "-t", ""),
    ],
)  # fmt: skip
def test_a_line_is_understood_as_far_as_it_goes(text: str, verb: str, flag: str, word: str) -> None:
    line = complete.read(text)
    assert (line.verb, line.flag, line.word) == (verb, flag, word)


def test_values_that_were_given() -> None:
    line = complete.read("sidestage exec -n 'a b' --context=c -t ")
    assert line.given == {"-n": "a b", "--context": "c"}


@pytest.mark.parametrize(
    "text, some",
    [
        ("sidestage ex", ["exec", "ext"]), ("sidestage exec --no-o", ["--no-outgoing"]), ("sidestage exec -t dep", ["deployment/"]),
        ("sidestage exec -t ta", ["targetless"]), ("sidestage exec --fs-mode r", ["read"]),
        ("sidestage ls -t st", ["statefulset"]), ("sidestage completion z", ["zsh"]), ("sidestage exec -f ", []),
        ("sidestage nonsense ", []),
    ],
)  # fmt: skip
def test_what_needs_no_cluster(text: str, some: list[str]) -> None:
    assert offered(text) == some


def test_processes_of_our_own() -> None:
    assert f"process/{os.getpid()}" in offered("sidestage exec -t process/")


def pods(request: Request) -> None:
    names = ["orders-1", "orders-2"] if "/namespaces/shop/" in request.target else ["other"]
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    items = [{"metadata": {"name": name, "namespace": "x"}, "spec": {"containers": []}, "status": ready} for name in names]
    request.answer(200, {"items": items, "metadata": {}})


def kubeconfig(url: str) -> None:
    Path("config").write_text(json.dumps({
        "current-context": "dev",
        "contexts": [
            {"name": "dev", "context": {"cluster": "c", "namespace": "shop"}}, {"name": "prod", "context": {"cluster": "c"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
    }))  # fmt: skip


def until(text: str, wanted: list[str]) -> None:
    """The first answer may come after the shell's patience on a busy machine."""
    ends = time.monotonic() + 30
    while offered(text) != wanted:
        assert time.monotonic() < ends, offered(text)
        time.sleep(0.05)


def test_names_of_the_cluster_are_asked_once() -> None:
    with serving(pods, None) as server:
        kubeconfig(server.url)
        until("sidestage exec -t pod/", ["pod/orders-1", "pod/orders-2"])
        until("sidestage exec -t po/", ["po/orders-1", "po/orders-2"])
        assert offered("sidestage exec -t pod/orders-2") == ["pod/orders-2"]
        assert len(server.requests) == 1
        until("sidestage exec -n elsewhere -t pod/", ["pod/other"])
        assert len(server.requests) == 2
        assert offered("sidestage exec --context p") == ["prod"]
        assert len(server.requests) == 2
    assert os.stat("cache/sidestage/complete").st_mode & 0o077 == 0


def test_a_slow_cluster_does_not_hold_the_shell_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(request: Request) -> None:
        go_on.wait(20)
        pods(request)

    with serving(slow, None) as server:
        kubeconfig(server.url)
        started = time.monotonic()
        assert offered("sidestage exec -t pod/") == []
        assert time.monotonic() - started < 10
        go_on.set()
        until("sidestage exec -t pod/", ["pod/orders-1", "pod/orders-2"])
        monkeypatch.setattr(complete, "FRESH", 0.0)
        go_on.clear()
        assert offered("sidestage exec -t pod/") == ["pod/orders-1", "pod/orders-2"], "what it knew last time"
        go_on.set()


@pytest.mark.parametrize("broken", ["{", "{}"])
def test_without_a_cluster_nothing_is_offered_and_nothing_said(broken: str) -> None:
    Path("config").write_text(broken)
    done = subprocess.run(
        [sys.executable, "-m", "sidestage", "__complete", "sidestage exec -t pod/"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


# --- the shells themselves


@contextmanager
def sidestage_on_path(folder: Path) -> Iterator[dict[str, str]]:
    (folder / "bin").mkdir()
    (folder / "bin" / "sidestage").write_text(f'#!/bin/sh\nexec {sys.executable} -m sidestage "$@"\n')
    (folder / "bin" / "sidestage").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": ":".join(sys.path)}
    with serving(pods, None) as server:
        kubeconfig(server.url)
        until("sidestage exec -t pod/", ["pod/orders-1", "pod/orders-2"])
        yield env


CASES = [
    ("sidestage exec -t dep", "deployment/"), ("sidestage exec -t pod/orders-", "pod/orders-1 pod/orders-2"),
    ("sidestage exec --fs-mode=rea", "--fs-mode=read"), ("sidestage exec -t pod/x -- unam", "uname"), ("sidestage doc", "doctor"),
]  # fmt: skip

BASH = """
source <(sidestage completion bash)
for line in "$@"; do
    COMP_LINE=$line COMP_POINT=${#line}
    read -ra COMP_WORDS <<<"${line//=/ = }"  # as bash breaks words
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _sidestage
    echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash(here: Path) -> None:
    with sidestage_on_path(here) as env:
        command = ["bash", "-c", BASH, "bash", *(line for line, _ in CASES)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=True)
    want = [wanted.removeprefix("--fs-mode=") for _, wanted in CASES]  # bash takes the value for a word of its own
    assert done.stdout.splitlines() == want
    assert done.stderr == ""


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish(here: Path) -> None:
    with sidestage_on_path(here) as env:
        for line, wanted in CASES:
            code = f"sidestage completion fish | source; complete -C '{line}'"
            done = subprocess.run(["fish", "-c", code], env=env, capture_output=True, text=True, timeout=50, check=True)
            found = [each.partition("\t")[0] for each in done.stdout.splitlines()]
            assert set(wanted.split()) <= set(found), (line, found, done.stderr)
            assert len(found) == len(wanted.split()) or " -- " in line, found


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh(here: Path) -> None:
    """On a terminal: zsh completes nowhere else."""
    with sidestage_on_path(here) as env:
        pid, fd = pty.fork()
        if not pid:
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**env, "TERM": "dumb", "PS1": "$ "})
        try:
            setup = "autoload -U compinit; compinit -u -D; unsetopt zle_bracketed_paste; bindkey -e; "
            write(fd, setup + "source <(sidestage completion zsh); echo rea''dy\n", "ready")
            for line, wanted in CASES:
                for each in wanted.split():
                    write(fd, f"{line}\t", each.split("/")[-1])
                    write(fd, "\x15echo cle''ar\n", "clear")  # Ctrl-U
        finally:
            os.close(fd)
            os.waitpid(pid, 0)


def write(fd: int, text: str, wanted: str) -> None:
    os.write(fd, text.encode())
    seen, ends = b"", time.monotonic() + 20
    while wanted.encode() not in seen.replace(b"\x07", b""):
        assert time.monotonic() < ends, (text, wanted, seen)
        if select.select([fd], [], [], 0.5)[0]:
            seen += os.read(fd, 65536)


def test_a_folder_of_somebody_elses_runs_nothing(tmp_path: Path) -> None:
    """Its configuration names a kubeconfig with a plugin; Tab must not run it, a flag of the user's may."""
    ran = tmp_path / "ran"
    plugin = {"command": "touch", "args": [str(ran)], "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    Path("evil").write_text(json.dumps({
        "current-context": "dev", "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"exec": plugin}}],
    }))  # fmt: skip
    Path(".sidestage").mkdir()
    Path(".sidestage/sidestage.json").write_text('{"kubeconfig": "evil", "use_kubectl": true, "target": {"namespace": "theirs"}}')
    asked: list[str] = []

    def answer(request: Request) -> None:
        asked.append(request.target)
        pods(request)

    with serving(answer, None) as server:
        kubeconfig(server.url)
        until("sidestage exec -t pod/", ["pod/other"])
    assert "/namespaces/theirs/" in asked[0], "the rest of the configuration counts"
    assert not ran.exists()
    chosen = dict.fromkeys(("--namespace", "--context", "--config-file"), None) | {"--kubeconfig": "evil"}
    with pytest.raises(TargetError):
        complete.fetch(chosen, "pod")
    assert ran.exists()


def test_what_means_something_to_a_shell_is_not_offered() -> None:
    names = ("a@b:c/d", "$(reboot)", "a b", "a;b", "a\nb", "`a`")
    tree: dict[str, Any] = {"contexts": [{"name": name, "context": {}} for name in names]}
    Path("config").write_text(json.dumps(tree))
    assert offered("sidestage exec --context ") == ["a@b:c/d"]
