"""Many connections at once, much data, and a local program that is too slow: nobody else pays, and memory stays bounded."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.testkit.laptop import Laptop, Run, cmdline, memory, parent
from tests.testkit.target import Target, wait_for
from tests.testkit.toxic import wrapper

MANY = 1000
GROWTH = 64 << 20  # bytes that session and agent may grow by, whatever comes
OUTGOING = """
import asyncio, resource, sys
async def one(n):
    reader, writer = await asyncio.open_connection("10.77.0.20", 7000)
    ready.append(n)
    while len(ready) < MANY: await asyncio.sleep(0.02)  # all are open at once
    data = b"%d " % n * 300
    writer.write(data); writer.write_eof(); back = await reader.read(-1); writer.close()
    return back == data
ready = []
async def main(): print(sum(await asyncio.gather(*(one(n) for n in range(MANY)))), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
asyncio.run(main())
"""
# The target's echo service is mirrored: its clients need its answers, the local program gets a copy.
CLIENTS = """
import asyncio, sys
many, size, together = map(int, sys.argv[1:])
async def one(n, gate):
    async with gate:
        reader, writer = await asyncio.open_connection("10.77.0.20", 7000)
        open_now.append(n)
        while together == many and len(open_now) < many: await asyncio.sleep(0.02)
        data = b"client %d\\n" % n + b"." * size
        async def write():
            writer.write(data); await writer.drain(); writer.write_eof()
        _, back = await asyncio.gather(write(), reader.read(-1)); writer.close()
        return back == data
open_now = []
async def main():
    gate = asyncio.Semaphore(together)
    print(sum(await asyncio.gather(*(one(n, gate) for n in range(many)))))
asyncio.run(main())
"""
COPIES = """
import asyncio, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.signal(signal.SIGUSR1, lambda *_: signal.sigwait([signal.SIGUSR2]))  # stands still in between
seen = set()
async def handle(reader, writer):
    line = await reader.readline(); rest = await reader.read(-1); writer.close()
    seen.add((line, len(rest), writer.get_extra_info("peername")[0])); print("seen", len(seen), flush=True)
async def main():
    server = await asyncio.start_server(handle, "0.0.0.0", 7000, backlog=2048); print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
UP_AND_DOWN = """
import hashlib, socket, sys, threading, time
size, block = int(sys.argv[1]), hashlib.shake_256(b"block").digest(1 << 20)
def blocks():
    for n in range(size >> 20): yield n.to_bytes(4, "big") + block[4:]
def up(s, sent):
    for data in blocks(): s.sendall(data); sent.update(data)
    s.shutdown(socket.SHUT_WR)
s = socket.create_connection(("10.77.0.20", 7000)); sent, back, total = hashlib.sha256(), hashlib.sha256(), 0
thread = threading.Thread(target=up, args=(s, sent)); thread.start()
while part := s.recv(1 << 20): back.update(part); total += len(part)
thread.join(); print(total, sent.hexdigest() == back.hexdigest(), sent.hexdigest())
"""


def listening(here: Laptop, staging: Target, code: str, flags: Sequence[str] = ()) -> Run:
    run = here.start(staging, [sys.executable, "-c", code], flags)
    wait_for("listening", lambda: "listening" in run.stdout() or run.process.poll() is not None, 30)
    probe = "import socket; s = socket.create_connection(('10.77.0.20', 7000)); s.sendall(b'probe\\n'); s.shutdown(1); s.recv(9)"

    def mirrored() -> bool:
        assert staging.native([sys.executable, "-c", probe]).code == 0
        return "seen" in run.stdout()

    wait_for("the subscription", mirrored, 30)
    return run


def clients(staging: Target, many: int, size: int, together: int) -> str:
    """How many of the clients of the target had the right answer."""
    done = staging.native([sys.executable, "-c", CLIENTS, str(many), str(size), str(together)], 55)
    assert done.code == 0, done.err
    return done.out.strip()


def test_a_thousand_connections_out(here: Laptop, staging: Target) -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    code = OUTGOING.replace("MANY", str(MANY))
    run = here.start(staging, ["sh", "-c", 'ulimit -Sn 1100; exec "$0" -c "$1"', sys.executable, code])
    assert run.end(55) == 0, run.stderr()
    assert run.stdout() == f"{MANY} 1100\n", f"{run.stderr()}; our own limit is {soft}"


@pytest.mark.usefixtures("canary")
def test_a_thousand_connections_mirrored(here: Laptop, staging: Target) -> None:
    run = listening(here, staging, COPIES)
    assert clients(staging, MANY, 300, MANY) == str(MANY)
    wait_for("all copies", lambda: f"seen {MANY + 1}\n" in run.stdout(), 40)
    assert "dropped" not in run.stderr()
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("how", ["waits", "stopped"])
@pytest.mark.parametrize("many, size, together", [(20, 12_000_000, 10), (3000, 20_000, 200)], ids=["large", "many"])
def test_a_local_program_that_stands_still(
    here: Laptop, staging: Target, many: int, size: int, together: int, how: str
) -> None:
    """What it doesn't take is dropped, told once, and kept nowhere; when it goes on, so does its mirror.

    A program that is stopped, as by Ctrl-Z, has a stopped trap as well; session and agent go on.
    """
    run = listening(here, staging, COPIES)
    (program,) = [pid for pid in run.processes() if cmdline(pid).split(b"\0")[1:3] == [b"-c", COPIES.encode()]]
    parts = {"agent": run.agent(), "session": run.session()}
    before = {name: memory(pid) for name, pid in parts.items()}
    peak = dict(before)
    os.kill(program, signal.SIGUSR1 if how == "waits" else signal.SIGSTOP)
    for _ in range(2):
        assert clients(staging, many, size, together) == str(many)
        peak = {name: max(peak[name], memory(pid)) for name, pid in parts.items()}
    grown = {name: peak[name] - before[name] for name in parts}
    assert max(grown.values()) <= GROWTH, grown
    if how == "waits":
        os.kill(program, signal.SIGUSR2)
    else:
        os.kill(run.process.pid, signal.SIGCONT)
    wait_for("the news of it", lambda: "dropped" in run.stderr(), 20)
    wait_for("the old copies", lambda: settled(run), 30)
    seen = len(run.stdout().splitlines())
    assert clients(staging, 5, 100, 5) == "5"
    wait_for("new copies", lambda: len(run.stdout().splitlines()) >= seen + 5, 20)
    assert run.stderr().count("dropped") == 1, run.stderr()
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_gigabyte_up_and_down(here: Laptop, staging: Target) -> None:
    size = 1 << 30
    run = here.start(staging, [sys.executable, "-c", UP_AND_DOWN, str(size)])
    wait_for("the agent", lambda: any(b"sidestage.agent.main" in cmdline(pid) for pid in run.processes()))
    parts = [run.agent(), run.session()]
    peak = 0
    try:
        while run.process.poll() is None:
            peak = max(peak, *(memory(pid) for pid in parts))
            run.process.wait(0.2)
    except (subprocess.TimeoutExpired, OSError):
        pass
    assert run.end(50) == 0, run.stderr()
    total, same, _digest = run.stdout().split()
    assert (int(total), same) == (size, "True")
    assert peak < GROWTH * 2, f"{peak >> 20} MiB"


def settled(run: Run) -> bool:
    before = run.stdout()
    time.sleep(0.5)
    return run.stdout() == before


def test_without_descriptors(here: Laptop, staging: Target) -> None:
    """Where there are few, some calls fail as they would natively; nobody ends, and all is well again afterwards."""
    code = """
import errno, socket
held, errors = [], set()
for n in range(200):
    try: s = socket.create_connection(("10.77.0.20", 7000)); held.append(s)
    except OSError as error: errors.add(errno.errorcode[error.errno])
many = len(held); held.clear(); del s
import time; time.sleep(0.5)
s = socket.create_connection(("10.77.0.20", 7000)); s.sendall(b"well"); print(50 < many < 100, errors, s.recv(9).decode())
"""
    run = here.start(staging, [sys.executable, "-c", code], limit=100)  # session is out of them before the program is
    assert run.end(40) == 0, run.stderr()
    assert run.stdout() == "True {'EMFILE'} well\n", run.stderr()


@pytest.mark.usefixtures("canary")
def test_a_line_that_stands_still_under_mirrored_traffic(here: Laptop, staging: Target, tmp_path: Path) -> None:
    """The agent keeps no more than its bound of what it can't send, and the mirror goes on when the line does."""
    python, line = wrapper(tmp_path)
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps({"agent": {"python": python, "heartbeat": 5, "silence": 50}}))
    run = listening(here, staging, COPIES, ["-f", str(config)])
    relayed = [pid for pid in run.processes() if b"sidestage.agent.main" in cmdline(pid)]
    (agent,) = [pid for pid in relayed if parent(pid) in relayed]
    before = memory(agent)
    line.set(stalled=1)
    assert clients(staging, 150, 1_000_000, 30) == "150"
    grown = memory(agent) - before
    line.set(stalled=0)
    assert grown <= GROWTH, f"{grown >> 20} MiB"
    wait_for("the news of it", lambda: "dropped" in run.stderr(), 20)
    wait_for("the old copies", lambda: settled(run), 30)
    seen = len(run.stdout().splitlines())
    assert clients(staging, 5, 100, 5) == "5"
    wait_for("new copies", lambda: len(run.stdout().splitlines()) >= seen + 5, 20)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
