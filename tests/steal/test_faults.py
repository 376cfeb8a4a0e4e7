"""Whatever dies on the developer's side, the target's clients go on: every answer is counted, and none may be wrong or lost.

Requests that no filter matches lose nothing at all, save those that are on their way through an agent in the moment of its
kill -9: one for each client. Matched ones may be lost only while they are with the program.
"""

from __future__ import annotations

import random
import signal
import socket
import time

import pytest

from tests.steal.canary import Canary, canaries
from tests.testkit.session import laptop
from tests.testkit.target import Target, wait_for

MINE = {"header": "^x-me: alice$"}
HEADER = "X-Me: alice\r\n"
ROUNDS = 6


def progress(clients: list[Canary], answers: int = 20) -> None:
    """Each of them gets so many more answers."""
    wanted = [client.answered + answers for client in clients]
    wait_for("more answers", lambda: all(client.answered >= want for client, want in zip(clients, wanted, strict=True)), 30)


def unharmed(clients: list[Canary], lost: int = 0) -> None:
    for client in clients:
        assert client.local == 0, "the local program answered a request that wasn't its own"
        assert len(client.lost) <= lost, client.lost
        assert "timed out" not in str(client.lost), "it was left waiting"


def taken(clients: list[Canary]) -> None:
    """The program answers them now."""
    wanted = [client.local + 10 for client in clients]
    wait_for("the program's answers", lambda: all(c.local >= want for c, want in zip(clients, wanted, strict=True)), 30)


def given_back(clients: list[Canary]) -> None:
    wanted = [client.staging + 10 for client in clients]
    wait_for("the target's answers", lambda: all(c.staging >= want for c, want in zip(clients, wanted, strict=True)), 30)


def test_a_session_comes_and_goes_in_order(staging: Target, program: tuple[str, int]) -> None:
    with canaries(staging, HEADER) as (others, mine):
        progress(others + mine)
        for n in range(3):
            with laptop(staging, program, f"{n:016d}") as there:
                assert there.steal(8080, MINE) == (0, {})
                with Canary(staging, keep=True) as another, Canary(staging, keep=True, header=HEADER) as my_own:
                    taken([mine[0], my_own])
                    progress([another])
                    assert there.call("unsteal", port=8080)[0] == 0
                    given_back([mine[0]])
                    there.end()
                    progress([*others, another])
                unharmed([another])
        unharmed(others)
        assert not mine[0].lost


def test_kill_9_of_the_agent(staging: Target, program: tuple[str, int]) -> None:
    dice = random.Random(5)
    with canaries(staging, HEADER) as (others, mine):
        for n in range(ROUNDS):
            with laptop(staging, program, f"{n:016d}") as there:
                assert there.steal(8080, MINE)[0] == 0
                with Canary(staging, keep=True) as another:
                    taken(mine[:1])
                    progress([another], 3)
                    time.sleep(dice.random() / 20)
                    there.agent.process.send_signal(signal.SIGKILL)
                    there.agent.process.wait()
                    assert "sidestage" not in staging.rules()
                    progress([*others, another, *mine])
                unharmed([another], 1)
        unharmed(others[:1], ROUNDS)
        unharmed(others[1:])  # its connection was there before any agent, and never passed through one
        assert len(mine[0].lost) <= ROUNDS and not mine[1].lost


def test_the_laptop_falls_silent(staging: Target, program: tuple[str, int]) -> None:
    """A link that is cut without a word: the agent gives all back after its time-out, and new connections don't wait for it."""
    with canaries(staging, HEADER) as (others, mine), laptop(staging, program, heartbeat=0.5, silence=4.0) as there:
        assert there.steal(8080, MINE)[0] == 0
        taken(mine[:1])
        there.do(lambda: time.sleep(6))  # nothing is read or written there meanwhile
        progress(others)
        given_back(mine[:1])
        wait_for("the agent's end", there.finished, 20)
        progress(others + mine)
        unharmed(others)
        # At most the one that was with the program when the link fell silent is lost.
        assert len(mine[0].lost) <= 1 and not mine[1].lost, (mine[0].lost, mine[1].lost)


def test_a_program_at_a_breakpoint_keeps_only_its_own(staging: Target) -> None:
    """It listens, and accepts nothing: as SIGSTOP and a debugger leave it."""
    with socket.socket() as stopped:
        stopped.bind(("127.0.0.1", 0))
        stopped.listen(0)
        with canaries(staging, HEADER) as (others, mine), laptop(staging, stopped.getsockname()[:2]) as there:
            progress(others + mine)
            assert there.steal(8080, MINE)[0] == 0
            wait_for("a request for the program", lambda: there.taken)
            progress(others, 100)
            there.end()
            progress(others)
            unharmed(others)
            assert len(mine[0].lost) <= 1


def test_a_program_that_does_not_listen_has_the_target_answer(staging: Target) -> None:
    with canaries(staging, HEADER) as (others, mine), laptop(staging, None) as there:
        assert there.steal(8080, MINE)[0] == 0
        wait_for("an offer to the program", lambda: len(there.taken) > 20)
        progress(others + mine)
        unharmed(others + mine)


@pytest.mark.parametrize("how", ["kill", "leave"])
def test_another_agent_takes_over(staging: Target, program: tuple[str, int], how: str) -> None:
    yours = {"header": "^x-me: bob$"}
    with (
        canaries(staging, HEADER) as (others, mine),
        Canary(staging, keep=False, header="X-Me: bob\r\n") as bob,
        laptop(staging, program, "b" * 16) as second,
    ):
        for n in range(4):
            with laptop(staging, program, f"{n:016d}") as first:
                assert first.steal(8080, MINE)[0] == 0
                if not n:
                    assert second.steal(8080, yours)[0] == 0
                taken([mine[0], bob])
                if how == "kill":
                    first.agent.process.send_signal(signal.SIGKILL)
                    first.agent.process.wait()
                else:
                    first.end()
                given_back(mine[:1])
                taken([bob])
                progress(others)
        lost = 4 if how == "kill" else 0
        unharmed(others[:1], lost)
        unharmed(others[1:])
        assert len(bob.lost) <= lost
        assert len(mine[0].lost) <= 4  # what was with the first's program
