"""The redirect itself, by each of its ways: only new connections, both IP versions, drained in order, gone with its agent."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.steal.canary import Canary
from tests.testkit.session import laptop
from tests.testkit.target import DEPENDENCY, SERVICE, SERVICE6, Target, wait_for

WAYS = ("owner", "nft", "iptables")


def rules(staging: Target) -> str:
    """All that could redirect, of nftables and of both kinds of iptables."""
    tools = ["nft list ruleset", "iptables-legacy-save -t nat", "ip6tables-legacy-save -t nat"]
    return "".join(staging.native(tool.split()).out for tool in tools).lower()


@pytest.mark.parametrize("way", WAYS)
def test_new_connections_only_and_drained_in_order(staging: Target, program: tuple[str, int], way: str) -> None:
    with staging.connect((SERVICE, 8080)) as old:
        old.sendall(b"GET /before HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"staging /before" in _answer(old)
        with laptop(staging, program, redirect=way) as there:
            assert there.steal(8080)[0] == 0
            assert ("flags owner" in rules(staging)) == (way == "owner")
            for address in (SERVICE, SERVICE6, "127.0.0.1", "::1"):
                with staging.connect((address, 8080)) as new:
                    new.sendall(b"GET /new HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert b"local /new" in _answer(new)
            if way != "owner":
                assert "guards" in there.events.get(timeout=5)[1]["text"]
            with Canary(staging, keep=True) as mine:
                wait_for("its answers", lambda: mine.local > 5)
                assert there.call("unsteal", port=8080)[0] == 0
                with Canary(staging, keep=False) as others:
                    wait_for("the target's answers", lambda: others.staging > 20)
                seen = mine.local
                wait_for("more answers on the old connection", lambda: mine.local > seen + 5)
            assert not mine.lost and not others.lost and not others.local
            old.sendall(b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"staging /after" in _answer(old)
        assert "sidestage" not in rules(staging)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_stays_of_a_killed_agent(staging: Target, program: tuple[str, int], way: str) -> None:
    with laptop(staging, program, redirect=way) as there:
        assert there.steal(8080)[0] == 0 and there.steal(7000)[0] == 0
        with Canary(staging, keep=False) as client:
            wait_for("the program's answers", lambda: client.local > 5)
            there.agent.process.send_signal(signal.SIGKILL)
            there.agent.process.wait()
            wait_for("the end of the rules", lambda: "sidestage" not in rules(staging))
            seen = client.staging
            wait_for("the target's answers", lambda: client.staging > seen + 5)
    with staging.connect((DEPENDENCY, 7000)) as echo:
        echo.sendall(b"echo")
        assert echo.recv(4) == b"echo"


def guards(agent: int) -> list[int]:
    """Processes that the agent has started."""
    return [int(pid) for task in Path(f"/proc/{agent}/task").iterdir() for pid in (task / "children").read_text().split()]


@pytest.mark.parametrize("way", ["nft", "iptables"])
def test_what_two_deaths_left_is_removed_by_the_next(staging: Target, program: tuple[str, int], way: str) -> None:
    with laptop(staging, program, "b" * 16, redirect=way) as there:
        assert there.steal(8080)[0] == 0
        agent = there.agent.process.pid
        os.kill(agent, signal.SIGSTOP)  # or it had another one by then
        for pid in (*guards(agent), agent):
            os.kill(pid, signal.SIGKILL)
        there.agent.process.wait()
        assert "sidestage-8080-bbbbbbbb" in rules(staging)
    with laptop(staging, program, "c" * 16, redirect=way) as there:
        assert there.steal(8080)[0] == 0
        assert "sidestage-8080-bbbbbbbb" not in rules(staging)
        with Canary(staging, keep=False) as client:
            wait_for("the program's answers", lambda: client.local > 5)
        assert not client.lost


@pytest.mark.parametrize("way", ["nft", "iptables"])
def test_a_guard_that_is_killed_is_replaced(staging: Target, program: tuple[str, int], way: str) -> None:
    with laptop(staging, program, redirect=way) as there:
        assert there.steal(8080)[0] == 0
        agent = there.agent.process.pid
        for _ in range(3):
            (guard,) = guards(agent)
            os.kill(guard, signal.SIGKILL)
            wait_for("another guard", lambda guard=guard: guards(agent) not in ([], [guard]))
        with Canary(staging, keep=False) as client:
            wait_for("the program's answers", lambda: client.local > 5)
            os.kill(agent, signal.SIGKILL)
            there.agent.process.wait()
            wait_for("the end of the rules", lambda: "sidestage" not in rules(staging))
            seen = client.staging
            wait_for("the target's answers", lambda: client.staging > seen + 5)


def test_who_speaks_to_the_listener_itself_is_reset(staging: Target, program: tuple[str, int]) -> None:
    with laptop(staging, program) as there:
        assert there.steal(8080)[0] == 0
        port = int(rules(staging).split("dnat to :")[1].split()[0])
        with pytest.raises(ConnectionResetError), staging.connect((SERVICE, port)) as client:
            client.recv(1)


def _answer(sock: socket.socket) -> bytes:
    """Head and body, of a line."""
    data = b""
    while not data.partition(b"\r\n\r\n")[2].endswith(b"\n"):
        part = sock.recv(65536)
        assert part, data
        data += part
    return data
