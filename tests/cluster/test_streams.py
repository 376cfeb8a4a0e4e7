"""exec and port-forward of a real API server and kubelet, in each of the ways that we know, without a session."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sidestage.cluster import launch, spdy
from sidestage.cluster.api import Api, Upgraded, path_of
from sidestage.cluster.channels import EXEC_PROTOCOLS, Channels, Exec
from sidestage.cluster.connect import connect
from tests.testkit.cluster import Cluster

SECONDS = 30
WAYS = [*EXEC_PROTOCOLS, f"SPDY {spdy.EXEC_PROTOCOL}"]
TOLD = b"x" * 300_000  # more than any frame, and than any pipe holds


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop")
    return namespace


@pytest.fixture
def api(cluster: Cluster, shop: str) -> Iterator[Api]:
    with connect(str(cluster.kubeconfig), namespace=shop) as client:
        yield client


def execute(api: Api, way: str, *command: str) -> tuple[Upgraded, Exec | spdy.SpdyExec]:
    path = path_of("api", "v1", "namespaces", api.namespace, "pods", "client", "exec")
    query = [(name, "true") for name in ("stdin", "stdout", "stderr")] + [("command", word) for word in command]
    if way.startswith("SPDY "):
        return api.upgrade_spdy(path, query, spdy.EXEC_PROTOCOL), spdy.SpdyExec()
    upgraded = api.upgrade(path, query, [way])
    assert upgraded.protocol == way
    return upgraded, Exec(way)


def answers(upgraded: Upgraded, channels: Channels, given: bytes = b"", finish: bool = False) -> Iterator[bytes]:
    """What comes until the end, while `given` is sent, and then, if wanted, that there is no more."""
    sock = upgraded.sock
    sock.settimeout(SECONDS)
    with sock:
        for part in (*channels.answers, *(channels.wrap(given) if given else ()), *(channels.finish() if finish else ())):
            sock.sendall(part)
        channels.answers.clear()
        data = upgraded.leftover
        while True:
            yield from map(bytes, channels.feed(data))
            for part in channels.answers:
                sock.sendall(part)
            channels.answers.clear()
            if channels.ended is not None or not (data := sock.recv(1 << 16)):
                return


@pytest.mark.parametrize("way", WAYS)
def test_a_command_hears_speaks_and_exits(way: str, api: Api) -> None:
    upgraded, channels = execute(api, way, "sh", "-c", "head -c 300000 | tr x y; echo oh >&2; exit 3")
    assert b"".join(answers(upgraded, channels, TOLD)) == TOLD.replace(b"x", b"y")
    assert (channels.stderr, channels.exit_code()) == ("oh", 3)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2]])
def test_the_end_of_input_is_not_the_end_of_output(way: str, api: Api) -> None:
    upgraded, channels = execute(api, way, "sh", "-c", "cat; echo and more")
    assert b"".join(answers(upgraded, channels, b"all\n", finish=True)) == b"all\nand more\n"
    assert channels.exit_code() == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_command_that_is_not_there(way: str, api: Api) -> None:
    upgraded, channels = execute(api, way, "no-such-program")
    assert b"".join(answers(upgraded, channels)) == b""
    assert "no-such-program" in str(channels.status().get("message"))


@pytest.mark.parametrize("kind", [spdy.Forward, spdy.Tunnel])
def test_a_port_is_reached(kind: type[spdy.Forward | spdy.Tunnel], cluster: Cluster, shop: str, api: Api) -> None:
    path = launch.forward_path(launch.Created(1, namespace=shop, pod="ledger-0"))
    if kind is spdy.Forward:
        upgraded, channels = launch.forward(api, path, 7000)
    else:
        upgraded, channels = api.upgrade(path, [], [spdy.TUNNEL]), spdy.Tunnel(7000)
    assert isinstance(channels, kind)
    got = b""
    for part in answers(upgraded, channels, TOLD):
        got += part
        if len(got) == len(TOLD):
            upgraded.sock.shutdown(socket.SHUT_RDWR)
            break
    assert got == TOLD


def test_a_port_where_nobody_listens(shop: str, api: Api) -> None:
    path = launch.forward_path(launch.Created(1, namespace=shop, pod="ledger-0"))
    upgraded, channels = launch.forward(api, path, 7999)
    assert b"".join(answers(upgraded, channels, b"hello")) == b""
    assert "refused" in str(channels.ended)
