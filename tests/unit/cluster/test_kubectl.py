"""What `kubectl proxy` is asked for, understood by all its versions: each path of ours must pass its filters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidestage.cluster.connect import connect

KUBECTL = """#!/bin/sh
for word; do echo "$word" >>{words}; done
case " $* " in *" proxy "*) echo 'Starting to serve on somewhere'; exec sleep 20 ;; esac
"""
CONFIG = """
{apiVersion: v1, kind: Config, current-context: a, clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}],
contexts: [{name: a, context: {cluster: a, user: a}}], users: [{name: a, user: {}}]}
"""


@pytest.mark.parametrize("empty_is_none", [True, False])
def test_no_path_is_refused(empty_is_none: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list of expressions is none in newer versions only; in older ones it is one that matches all paths
    (k8s.io/kubectl/pkg/proxy: MakeRegexpArray)."""
    words = tmp_path / "words"
    (tmp_path / "kubectl").write_text(KUBECTL.format(words=words))
    (tmp_path / "kubectl").chmod(0o755)
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with connect(str(tmp_path / "config"), kubectl=True):
        pass
    (given,) = [word.partition("=")[2] for word in words.read_text().splitlines() if word.startswith("--reject-paths")]
    expressions = [] if empty_is_none and not given else given.split(",")
    path = "/api/v1/namespaces/shop/pods/agent/exec"
    assert not [each for each in expressions if re.search(each, path)]
