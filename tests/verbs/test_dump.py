"""`dump`: what a client and the target say to each other, as lines, packets and HAR; read with tshark, not with our own code."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.testkit.target import CLIENT, CLIENT6, DEPENDENCY, SERVICE, SERVICE6, Target
from tests.testkit.verb import Verb, once, verb


def dump(staging: Target, *flags: str) -> list[str]:
    return ["dump", "-t", f"process/{staging.pid}", *flags]


def tshark(file: Path, *args: str) -> list[str]:
    assert shutil.which("tshark"), "./run test installs it"
    done = subprocess.run(["tshark", "-n", "-r", file, *args], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def ended(run: Verb) -> int:
    return run.process.wait(20)


def echo(staging: Target, data: bytes) -> None:
    with staging.connect((DEPENDENCY, 7000), CLIENT) as sock:
        sock.sendall(data)
        got = b""
        while len(got) < len(data):
            got += sock.recv(1 << 16)


def test_exchanges_are_lines(staging: Target) -> None:
    with verb(dump(staging, "-p", "8080,7000", "--count", "3")) as run:
        run.wait("Ready")
        staging.client(f"http://{SERVICE}:8080/first?token=hush")
        staging.client(f"http://[{SERVICE6}]:8080/second", CLIENT6)
        echo(staging, b"ping\n")
        assert ended(run) == 0
    first, second, ping, pong, closed = run.out
    assert f"{CLIENT}:" in first
    assert ":8080  GET /first?token=%5Bredacted%5D  200  26 B" in first
    assert f"[{CLIENT6}]:" in second
    assert "GET /second  200  16 B" in second
    assert ("-> :7000  5 B  ping\\n" in ping, "<- :7000  5 B  ping\\n" in pong, "closed" in closed) == (True, True, True)


def test_with_http_all_of_an_exchange(staging: Target) -> None:
    curl = ["curl", "-sS", "--interface", CLIENT, "-H", "Authorization: Bearer hush", "-H", "X-Kept: yes"]
    with verb(dump(staging, "-p", "8080", "--http", "--count", "1")) as run:
        run.wait("Ready")
        staging.native([*curl, f"http://{SERVICE}:8080/all"])
        assert ended(run) == 0
    text = "".join(run.out)
    assert ("> X-Kept: yes" in text, "> Authorization: [redacted]" in text, "< status: 200" in text) == (True, True, True)
    assert "< staging /all" in text
    assert "hush" not in text


def test_as_objects(staging: Target) -> None:
    with verb(dump(staging, "-p", "8080", "--output", "json", "--count", "1", "--secrets")) as run:
        run.wait('"ready"')
        staging.client(f"http://{SERVICE}:8080/object?token=shown")
        assert ended(run) == 0
    (found,) = map(json.loads, run.out)
    assert (found["type"], found["path"], found["status"], found["local"]) == (
        "exchange", "/object?token=shown", 200, [SERVICE, 8080],
    )  # fmt: skip


def test_a_capture_is_read_by_tshark(staging: Target, tmp_path: Path) -> None:
    file = tmp_path / "out.pcapng"
    long = bytes(range(256)) * 2000
    with verb(dump(staging, "-p", "8080", "-p", "7000", "-w", str(file), "--count", "3")) as run:
        run.wait("Ready")
        staging.client(f"http://{SERVICE}:8080/captured")
        staging.client(f"http://[{SERVICE6}]:8080/captured6", CLIENT6)
        echo(staging, long)
        assert ended(run) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    fields = ["-Tfields", "-Eseparator= "]
    requests = tshark(file, "-Yhttp.request", *fields, "-eip.src", "-eipv6.src", "-ehttp.request.uri")
    assert [line.split() for line in requests] == [[CLIENT, "/captured"], [CLIENT6, "/captured6"]]
    answers = tshark(file, "-Yhttp.response", *fields, "-ehttp.response.code", "-ehttp.request.uri")
    assert [line.split()[0] for line in answers] == ["200", "200"]
    strange = "tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0 || (http && _ws.malformed)"
    assert not tshark(file, "-otcp.check_checksum:TRUE", "-oip.check_checksum:TRUE", f"-Y{strange}")
    followed = tshark(file, "-q", "-zfollow,tcp,raw,2")
    sent = "".join(line for line in followed if line and not line.startswith(("\t", "=", "Follow", "Filter", "Node")))
    answered = "".join(line.strip() for line in followed if line.startswith("\t"))
    assert (bytes.fromhex(sent), bytes.fromhex(answered)) == (long, long)
    complete = tshark(file, "-Ytcp.flags.fin == 1", *fields, "-etcp.stream")
    assert set(complete) == {"0", "1", "2"}


def test_a_har(staging: Target, tmp_path: Path) -> None:
    file = tmp_path / "out.har"
    with verb(dump(staging, "-p", "8080", "-w", str(file), "--count", "2")) as run:
        run.wait("Ready")
        for path in ("one", "two"):
            staging.client(f"http://{SERVICE}:8080/{path}")
        assert ended(run) == 0
    entries = json.loads(file.read_text())["log"]["entries"]
    assert [entry["request"]["url"] for entry in entries] == [f"http://{SERVICE}:8080/{path}" for path in ("one", "two")]
    assert [entry["response"]["content"]["text"] for entry in entries] == ["staging /one\n", "staging /two\n"]


def test_it_ends_after_its_time_and_the_target_is_as_before(staging: Target) -> None:
    with verb(dump(staging, "-p", "8080", "--seconds", "0.5")) as run:
        assert ended(run) == 0
    assert staging.client(f"http://{SERVICE}:8080/after").out == "staging /after\n"


@pytest.mark.parametrize("flags, said", [
    ([], "no port"), (["-p", "http"], "-p http: no port"), (["-p", "0"], "-p 0"),
    (["-p", "1", "-w", "x.txt"], "end the name in .pcapng"),
    (["-p", "1", "-w", "/nowhere/x.har"], "no such file or directory"), (["-p", "1", "--http", "-w", "x.har"], "--http"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(staging: Target, flags: list[str], said: str) -> None:
    done = once(dump(staging, *flags))
    assert (done.code != 0, said in done.err) == (True, True), done.err
