"""A namespace of Pod Security "restricted": the Job is refused, and the modes that need no rights work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.cluster.plug import plugged
from tests.cluster.test_refusals import HELLO, refused
from tests.testkit.cluster import Cluster


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace(f"restricted-{os.getpid()}", "pod-security.kubernetes.io/enforce=restricted") as name:
        cluster.apply(name, "locked")
        yield name


def test_a_job_is_refused_with_the_ways_that_are_left(cluster: Cluster, restricted: str) -> None:
    result = plugged(cluster, restricted, "deployment/locked", HELLO)
    refused(cluster, restricted, result, 'violate PodSecurity "restricted', "--in-container")


@pytest.mark.parametrize("flag", ["--in-container", "--ephemeral-container"])
def test_what_is_left_works(cluster: Cluster, restricted: str, flag: str) -> None:
    shell = 'echo "$GREETING"; cat /app/config/app.conf; uname -n; curl -sS -m 9 http://sealed/x'
    found = plugged(cluster, restricted, "deployment/locked", ["sh", "-c", shell], flag)
    (locked,) = cluster.pods(restricted, "app=locked")
    greeting, mode, name, answer = found.out.splitlines()
    assert (greeting, mode, name) == ("hello from locked", "mode = locked", locked["metadata"]["name"]), found
    assert json.loads(answer)["peer"].startswith(locked["status"]["podIP"] + ":")


def test_an_image_with_nothing_in_it_has_its_ephemeral_container(cluster: Cluster, restricted: str) -> None:
    found = plugged(cluster, restricted, "deployment/sealed", HELLO, "--ephemeral-container")
    assert found.out == "hello from sealed\n", found
    result = plugged(cluster, restricted, "deployment/sealed", HELLO, "--in-container")
    refused(cluster, restricted, result, "python3")
