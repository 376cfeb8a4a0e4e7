"""Both lanes as real processes: session's, the agent's, and a link between them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidestage.agent import lane as far
from sidestage.agent.files import Files
from sidestage.session.lane import Lane, Lent
from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop

LIMITS = {"heartbeat": 5.0, "silence": 20.0, "max_data": 256 << 10}
BLOCK = bytes(range(256)) * 256
BLOCKS = 64


class Way:
    """Session's loop, which is turned until something holds, and what its lane has told."""

    def __init__(self) -> None:
        self.loop, self.told = Loop(), list[str]()
        before = children()
        self.lane = Lane(self.loop, LIMITS, lambda: self.told.append("link"), lambda: self.told.append("lane"))
        (self.near_pid,) = children() - before
        self.far = far.Lane(Files(os.open("/", os.O_RDONLY)), LIMITS)
        self.far_pids = set[int]()
        self.link()

    def link(self) -> None:
        near, away = socket.socketpair()
        before = children()
        self.far.give(away.detach())
        self.far_pids |= children() - before
        self.lane.add(near.detach())

    def until(self, holds: Callable[[], Any]) -> None:
        end = time.monotonic() + 20
        self.loop.later(20, lambda: None)
        while not holds():
            assert time.monotonic() < end, self.told
            self.loop.later(0.05, lambda: None)
            self.loop._once()

    def open(self, port: int) -> Lent | int:
        """The connection, or the errno."""
        answers = list[Lent | int]()
        self.lane.open("127.0.0.1", port, lambda lent, info: answers.append(lent) if info["local"] else None, answers.append)
        self.until(lambda: answers)
        return answers[0]

    def opened(self, port: int) -> Lent:
        lent = self.open(port)
        assert isinstance(lent, Lent)
        return lent

    def carried(self, port: int) -> tuple[socket.socket, list[tuple[int, int]]]:
        """The program's end, and the bytes up and down when it is over."""
        program, end = pair()
        ended = list[tuple[int, int]]()
        self.opened(port).carry(end, lambda up, down: ended.append((up, down)))
        return program, ended


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname(), timeout=20)
        return one, listener.accept()[0]


@pytest.fixture
def way() -> Iterator[Way]:
    made = Way()
    try:
        yield made
    finally:
        made.lane.close()
        if made.far._sock:
            made.far._sock.close()
        for pid in (made.near_pid, *made.far_pids):
            assert ended(pid)


def ended(pid: int) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def received(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


def test_much_goes_both_ways_and_each_way_ends_for_itself(way: Way, server: socket.socket) -> None:
    program, ended = way.carried(server.getsockname()[1])
    peer = server.accept()[0]
    peer.settimeout(20)
    got = dict[str, bytes]()

    def send(sock: socket.socket) -> None:
        for _ in range(BLOCKS):
            sock.sendall(BLOCK)
        sock.shutdown(socket.SHUT_WR)

    def take(name: str, sock: socket.socket) -> None:
        got[name] = received(sock)

    with program, peer:
        threads = [
            threading.Thread(target=work, args=args)
            for work, args in ((send, (program,)), (send, (peer,)), (take, ("up", peer)), (take, ("down", program)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert got == {"up": BLOCK * BLOCKS, "down": BLOCK * BLOCKS}
        way.until(lambda: ended)
    assert ended == [(len(BLOCK) * BLOCKS, len(BLOCK) * BLOCKS)]
    way.until(lambda: min(way.lane.total) > len(BLOCK) * BLOCKS)  # and some headers


def test_a_refusal_says_why(way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert way.open(port) == errno.ECONNREFUSED


def test_what_comes_before_the_socket_is_kept(way: Way, server: socket.socket) -> None:
    lent = way.opened(server.getsockname()[1])
    with server.accept()[0] as peer:
        peer.sendall(b"220 hello")
    time.sleep(0.3)  # it is there, and so is the end
    program, end = pair()
    ended = list[tuple[int, int]]()
    with program:
        lent.carry(end, lambda up, down: ended.append((up, down)))
        assert received(program) == b"220 hello"
        program.close()
        way.until(lambda: ended)
    assert ended == [(0, 9)]


def test_what_was_reset_before_the_socket_came_is_reset(way: Way, server: socket.socket) -> None:
    lent = way.opened(server.getsockname()[1])
    peer = server.accept()[0]
    reset(peer)
    time.sleep(0.3)
    program, end = pair()
    with program:
        lent.carry(end, lambda *_: None)
        with pytest.raises(ConnectionResetError):
            program.recv(1)


def test_what_is_not_wanted_is_reset(way: Way, server: socket.socket) -> None:
    way.opened(server.getsockname()[1]).reset()
    with server.accept()[0] as peer, pytest.raises(ConnectionResetError):
        peer.settimeout(20)
        peer.recv(1)


def test_the_fewest_connections_decide_on_the_link(way: Way, server: socket.socket) -> None:
    way.link()
    assert way.lane.links == 2
    kept = [way.carried(server.getsockname()[1]) for _ in range(4)]
    peers = [server.accept()[0] for _ in kept]
    way.lane.tell("drop")
    for sock in (*(program for program, _ in kept), *peers):
        sock.settimeout(20)
        with sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
    way.until(lambda: way.told == ["link", "link"])
    assert way.lane.links == 0
    way.until(lambda: all(ended for _, ended in kept))
    assert way.open(server.getsockname()[1]) == errno.ECONNRESET


def test_a_killed_lane_resets_what_it_carried(way: Way, server: socket.socket) -> None:
    """An end would look as if all had come."""
    program, ended = way.carried(server.getsockname()[1])
    with program, server.accept()[0] as peer:
        peer.sendall(b"the beginning")
        program.settimeout(20)
        assert program.recv(100) == b"the beginning"
        os.kill(way.near_pid, signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            program.recv(1)
    way.until(lambda: ended)
    assert (ended, way.told) == ([(0, 0)], ["lane", "link"])
    assert way.open(server.getsockname()[1]) == errno.ECONNRESET


def test_a_killed_lane_of_the_agent_is_replaced(way: Way, server: socket.socket) -> None:
    (pid,) = way.far_pids
    os.kill(pid, signal.SIGKILL)
    way.until(lambda: way.told == ["link"])
    near, away = socket.socketpair()
    with near, pytest.raises(OSError):
        way.far.give(away.fileno())
    away.close()
    way.link()
    assert len(way.far_pids) == 2
    way.opened(server.getsockname()[1]).reset()


def test_the_agents_lane_does_nothing_else(way: Way) -> None:
    near, away = socket.socketpair()
    way.far.give(away.detach())
    answers = list[int]()

    class Told(QuietHandler):
        def on_refused(self, errno: int, text: str) -> None:
            answers.append(errno)

    link = Link(
        way.loop, near.fileno(), near.fileno(), "laptop", on_call=lambda *_: None, on_open=lambda *_: None,
        on_event=lambda *_: None, on_closed=lambda _: near.close(),
    )  # fmt: skip
    for kind, args in (("unix", {"path": "/run/x.sock", "type": "stream"}), ("udp", {"host": "127.0.0.1", "port": 53})):
        link.open(kind, args, Told())
    link.call("stat", {"path": "/"}, lambda _result, _raw, errno: answers.append(errno))
    way.until(lambda: len(answers) == 3)
    assert answers == [errno.EINVAL, errno.EINVAL, errno.ENOSYS]
    link.close("done")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
