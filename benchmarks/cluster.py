"""`./run bench --cluster`: how long a session takes to start; then the way to a pod: kubectl exec and port-forward, sidestage with
one stream and four, in one run.

On the two nodes of `./run cluster`, which is brought up if need be. The delays are added by wire.c, with WINDOW bytes under way a
connection. All that competes takes turns in every round, as this machine's two processors serve both ends; medians are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from tests.testkit.cluster import Cluster, script  # noqa: E402
from tests.testkit.target import SIDESTAGE  # noqa: E402

DELAYS = (0, 20, 80)  # ms there and back
WINDOW = 4096  # KiB, what Linux lets a receiver's window grow to by default (tcp_rmem)
SIZE, FAR_SIZE = 256, 96  # MiB
PORT = 7777
IMAGE = "localhost/python:3.11"
SERVER = f"""
import socket, threading
def serve(c):
    kind, block = c.recv(1), bytes(1 << 20)
    try:
        while kind == b"d": c.sendall(block)
        while kind == b"u" and c.recv(1 << 20): pass
        while kind == b"e" and (data := c.recv(1 << 16)): c.sendall(data)
    except OSError: pass
    c.close()
s = socket.create_server(("0.0.0.0", {PORT}), backlog=64)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""
# Prints {"down": MiB/s, "up": MiB/s, "echo": ms}, and how long one word of control takes, idle and while all streams are busy: the
# stat of a path, or a byte there and back through a command, given as JSON.
CLIENT = """
import json, os, socket, statistics, subprocess, sys, threading, time
host, port, streams, size, control = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) << 20, sys.argv[5]
block, buffer = bytes(1 << 18), [bytearray(1 << 20) for _ in range(streams)]
def open_(kind):
    s = socket.create_connection((host, port)); s.setsockopt(6, 1, 1); s.sendall(kind); return s
def down(n):
    s, left = open_(b"d"), size // streams
    while left > 0: left -= s.recv_into(buffer[n])
    s.close()
def up(_):
    s, left = open_(b"u"), size // streams
    while left > 0: s.sendall(block); left -= len(block)
    s.shutdown(1); s.recv(1); s.close()
def timed(fn, going=lambda: False, count=20):
    took = []
    while len(took) < count or going():
        t = time.perf_counter(); fn(); took.append(time.perf_counter() - t)
    return statistics.median(took) * 1000
def run(work):
    threads = [threading.Thread(target=work, args=(n,)) for n in range(streams)]
    t = time.perf_counter()
    for each in threads: each.start()
    for each in threads: each.join()
    return size / (1 << 20) / (time.perf_counter() - t)
if control[0] == "/": word = lambda: os.stat(control)
else:
    echo = subprocess.Popen(json.loads(control), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    word = lambda: (echo.stdin.write(b"x"), echo.stdout.read(1))
word(); time.sleep(2)
told = {"down": run(down), "up": run(up)}
e = open_(b"e")
told["echo"] = timed(lambda: (e.sendall(b"x"), e.recv(1)))
told["idle"] = timed(word, count=200 if told["echo"] < 5 else 20)
busy = threading.Thread(target=run, args=(down,)); busy.start(); time.sleep(0.3)
told["busy"] = timed(word, busy.is_alive, count=1); busy.join()
if control[0] != "/": echo.kill(); echo.wait()
print(json.dumps(told))
"""
HEAD = """
| way to the pod | round trip | down MiB/s | up MiB/s | 1-byte echo ms | control ms, idle | busy |
|---|--:|--:|--:|--:|--:|--:|"""
STARTS = 5  # a round
IMPORT = "import time; t = time.perf_counter(); import sidestage.cli.main, sidestage.cli.exec; print(time.perf_counter() - t)"
STEPS = {"target found": "creating the agent", "agent's pod runs": "starting the agent"}  # by the phase that follows
Figures = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run bench --cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delays", type=int, nargs="*", default=DELAYS, metavar="MS")
    given = parser.parse_args()
    found = Cluster.found()
    was_up = (found.state / "up").exists()
    script("up", capture=False)
    try:
        with tempfile.TemporaryDirectory(prefix="sidestage-bench-") as folder, found.namespace(f"bench-{os.getpid()}") as namespace:
            subprocess.run(["gcc", "-O2", "-Wall", "-pthread", "-o", f"{folder}/wire", HERE / "wire.c"], check=True)
            with served(found, namespace) as address:
                start_up(Place(found, namespace, address, found.kubeconfig, 0), given.rounds * STARTS)
                print(HEAD, flush=True)
                for delay in given.delays:
                    with wire(found, Path(folder), delay) as kubeconfig:
                        measure(Place(found, namespace, address, kubeconfig, delay), given.rounds)
    finally:
        if not was_up:
            script("down")
    return 0


@contextlib.contextmanager
def served(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A pod with SERVER in it; its address."""
    spec = {"containers": [{"name": "peer", "image": IMAGE, "imagePullPolicy": "Never", "command": ["python3", "-c", SERVER]}],
            "terminationGracePeriodSeconds": 0}  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "peer"}, "spec": spec}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/peer", "--timeout=55s")
    yield str(cluster.get("pod", "peer", "-n", namespace)["status"]["podIP"])


@contextlib.contextmanager
def wire(cluster: Cluster, folder: Path, delay: int) -> Iterator[Path]:
    """A kubeconfig that leads over a way that is `delay` ms longer, there and back."""
    if not delay:
        yield cluster.kubeconfig
        return
    text = cluster.kubeconfig.read_text()
    found = re.search(r'server: "https://([0-9.]+):([0-9]+)"', text)
    assert found
    process = subprocess.Popen([folder / "wire", *found.groups(), str(delay // 2), str(WINDOW)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        kubeconfig = folder / f"far-{delay}.conf"
        to = f'server: "https://127.0.0.1:{process.stdout.readline().strip()}", tls-server-name: {found[1]}'
        kubeconfig.write_text(text.replace(found[0], to))
        yield kubeconfig
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Place:
    def __init__(self, cluster: Cluster, namespace: str, address: str, kubeconfig: Path, delay: int) -> None:
        self.cluster, self.namespace, self.address, self.delay = cluster, namespace, address, delay
        self.env = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self.size = FAR_SIZE if delay else SIZE

    def kubectl(self, *args: str) -> list[str]:
        return [str(self.cluster.program), *args, "-n", self.namespace]

    def exec(self) -> Figures:
        """Raw: `kubectl exec`, as an agent's stream would be with nothing else."""
        size = self.size << 20
        base = self.kubectl("exec", "-i", "peer")
        took = [self._timed([*base, "--", "true"])]
        took.append(self._timed([*base, "--", "head", "-c", str(size), "/dev/zero"]))
        took.append(self._timed([*base, "--", "sh", "-c", "cat >/dev/null"], f"head -c {size} /dev/zero | "))
        return {"down": self.size / (took[1] - took[0]), "up": self.size / (took[2] - took[0])}

    def _timed(self, argv: list[str], before: str = "") -> float:
        start = time.perf_counter()
        command = before + '"$@" >/dev/null'
        subprocess.run(["sh", "-c", command, "sh", *argv], env=self.env, stdin=subprocess.DEVNULL, check=True, timeout=300)
        return time.perf_counter() - start

    def forward(self, streams: int) -> Figures:
        """Raw: `kubectl port-forward`, and a `kubectl exec` beside it for control."""
        argv = self.kubectl("port-forward", "pod/peer", f":{PORT}")
        with subprocess.Popen(argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout
            try:
                found = re.search(r"127.0.0.1:([0-9]+)", process.stdout.readline())
                assert found
                echo = json.dumps([*self.kubectl("exec", "-i", "peer"), "--", "cat"])
                return self._client([], "127.0.0.1", found[1], streams, echo)
            finally:
                process.kill()

    def ours(self, streams: int) -> Figures:
        command = [*SIDESTAGE, "exec", "-t", "pod/peer", "-n", self.namespace, "-i", IMAGE, "--"]
        return self._client(command, self.address, str(PORT), streams, "/var/run/secrets")

    def _client(self, before: list[str], host: str, port: str, streams: int, control: str) -> Figures:
        argv = [*before, os.path.realpath(sys.executable), "-c", CLIENT, host, port, str(streams), str(self.size), control]
        env = {**self.env, "PYTHONPATH": str(HERE.parent / "src")}
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures


def start_up(place: Place, rounds: int) -> None:
    """ms from the start of the command; the program is `date`, which prints when it was started, nearly."""
    figures: dict[str, list[float]] = {}
    env = {**place.env, "PYTHONPATH": str(HERE.parent / "src")}
    argv = [*SIDESTAGE, "exec", "-t", "pod/peer", "-n", place.namespace, "-i", IMAGE, "--output", "json", "--", "date", "+%s.%N"]
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", IMPORT], env=env, capture_output=True, text=True, check=True)
        figures.setdefault("imports", []).append(float(done.stdout))
        begun = time.time()
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
        ended = time.time()
        told = [json.loads(line) for line in done.stderr.splitlines()]
        first = float(done.stdout) - begun
        # These count from when the command has read its configuration.
        (ready,) = [float(re.findall(r"\((\d+) ms\)", line["text"])[0]) / 1000 for line in told if line["type"] == "ready"]
        for step, next_one in STEPS.items():
            (seconds,) = [line["seconds"] for line in told if line["type"] == "phase" and line["text"].startswith(next_one)]
            figures.setdefault(step, []).append(seconds)
        figures.setdefault("agent is beside the target, and has said what it sees", []).append(ready)
        figures.setdefault("**first instruction of the program**", []).append(first)
        figures.setdefault("all is over", []).append(ended - begun)
    print("| start, on a warm cluster | ms |\n|---|--:|")
    for step, some in figures.items():
        print(f"| {step} | {statistics.median(some) * 1000:.0f} |", flush=True)


def measure(place: Place, rounds: int) -> None:
    ways: dict[str, Callable[[], Figures]] = {
        "kubectl exec": place.exec,
        "kubectl port-forward": lambda: place.forward(1),
        "kubectl port-forward, 4 streams": lambda: place.forward(4),
        "sidestage": lambda: place.ours(1),
        "sidestage, 4 streams": lambda: place.ours(4),
    }
    figures: dict[str, list[Figures]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            figures[name].append(way())
    for name, some in figures.items():
        cells = [_middle(some, key) for key in ("down", "up", "echo", "idle", "busy")]
        print(f"| {name} | {place.delay} | " + " | ".join(cells) + " |", flush=True)


def _middle(figures: list[Figures], key: str) -> str:
    values = [each[key] for each in figures if key in each]
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
