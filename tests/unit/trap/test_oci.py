"""The filter in the OCI's words decides as bpf.py's does, and lifts nothing of a container's own profile."""

from __future__ import annotations

import itertools
import platform
import struct
from typing import Any

import pytest
from tests.testkit.bpf import decode, run

from sidestage.trap import bpf, oci

NAMES = ("connect", "getsockopt", "newfstatat", "open", "openat", "recvfrom", "sendto", "statx", "uname")
INTERESTING = (0, 1, 4, 0x1000, 0x1100, 0x20000001, 0x7F0000000000)
PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "syscalls": [
        {"names": ["bind", "uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["read", "write", "connect", "sendto", "io_uring_setup"], "action": "SCMP_ACT_ALLOW", "args": None},
        {"names": ["openat"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}]},
    ],
}  # fmt: skip


def meets(args: list[dict[str, Any]], values: tuple[int, ...]) -> bool:
    """As seccomp_rule_add(3) compares."""
    def one(arg: dict[str, Any]) -> bool:
        value, want = values[arg["index"]], arg["value"]
        match arg["op"]:
            case "SCMP_CMP_EQ":
                return bool(value == want)
            case "SCMP_CMP_NE":
                return bool(value != want)
            case "SCMP_CMP_MASKED_EQ":
                return bool(value & want == arg["valueTwo"])
        raise AssertionError(arg["op"])

    return all(map(one, args))


def decide(made: dict[str, Any], name: str, values: tuple[int, ...]) -> str:
    actions = [rule["action"] for rule in made["syscalls"] if name in rule["names"] and meets(rule.get("args") or [], values)]
    assert len(actions) <= 1, f"libseccomp takes no two rules for one call: {name}"
    return str(actions[0] if actions else made["defaultAction"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of this machine")
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_same_filter(name: str) -> None:
    made = oci.seccomp(None, NAMES, "/s", killable=False)
    program = decode(bpf.assemble(bpf.program(NAMES)))
    actions = {0x7FFF0000: oci.ALLOW, 0x7FC00000: oci.NOTIFY, 0x00050000 | 95: oci.ERRNO}
    for tested in itertools.product(INTERESTING, repeat=4):
        values = (3, *tested, 0)
        data = struct.pack("=IIQ6Q", bpf.number(name), 0xC000003E, 0, *values)  # struct seccomp_data
        told = run(program, lambda at, size, data=data: int.from_bytes(data[at : at + size], "little"))  # type: ignore[misc]
        assert decide(made, name, values) == actions[told], (name, values)


def test_what_a_profile_refuses_stays_refused() -> None:
    made = oci.seccomp(PROFILE, ("connect", "uname", "openat", "mkdir"), "/s", killable=False)
    want = {"connect": oci.NOTIFY, "read": oci.ALLOW, "sendto": oci.ALLOW} | dict.fromkeys(("uname", "mkdir", "bind"), oci.ERRNO)
    assert {name: decide(made, name, (0,) * 6) for name in want} == want
    assert decide(made, "openat", (0,) * 6) == oci.NOTIFY
    assert decide(made, "openat", (0, 0, 64, 0, 0, 0)) == oci.ERRNO
    assert decide(made, "io_uring_setup", (0,) * 6) == oci.ERRNO
    assert made["defaultErrnoRet"] == 38


def test_without_a_profile_only_our_calls_and_io_uring_are_named() -> None:
    made = oci.seccomp(None, ("connect", "mkdir"), "/s", killable=True)
    assert made["listenerPath"] == "/s"
    assert made["flags"] == ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert {name for rule in made["syscalls"] for name in rule["names"]} >= {"connect", "mkdir", "io_uring_setup"}
    assert not any(rule["action"] == oci.ALLOW for rule in made["syscalls"])  # runtimes refuse a rule that says the default


def test_other_abis_are_left_out() -> None:
    assert oci.seccomp(PROFILE, ("connect",), "/s", killable=False)["architectures"] == [oci.ARCHES[platform.machine()]]


def test_conditions_stay_with_what_they_are_of() -> None:
    """In moby's form a rule may hold for some capabilities or machines only, and have one name instead of several."""
    admin = {"includes": {"caps": ["CAP_SYS_ADMIN"]}}
    masked = {"args": [{"index": 2, "value": 64, "valueTwo": 64, "op": "SCMP_CMP_MASKED_EQ"}], "excludes": {"arches": ["s390"]}}
    base = {"defaultAction": oci.ERRNO, "archMap": [{"architecture": "SCMP_ARCH_X86_64"}], "syscalls": [
        {"names": ["mount", "connect", "sendto"], "action": oci.ALLOW, **admin, "comment": "x"},
        {"name": "openat", "action": oci.ALLOW, "args": [{"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}]},
        {"names": ["openat"], "action": oci.ALLOW, **masked},
    ]}  # fmt: skip
    made = oci.seccomp(base, ("connect", "sendto", "openat"), "/s", killable=False)
    assert "archMap" not in made  # moby takes it or `architectures`, not both
    by_name: dict[str, list[dict[str, Any]]] = {}
    for rule in made["syscalls"]:
        by_name.setdefault(rule["names"][0], []).append(rule)
    assert by_name["mount"] == [{"names": ["mount"], "action": oci.ALLOW, **admin}]
    assert by_name["connect"] == [{"names": ["connect"], "action": oci.NOTIFY, **admin}]
    assert all(rule["includes"] == admin["includes"] and rule["args"] for rule in by_name["sendto"])
    assert [rule["args"][0]["value"] for rule in by_name["openat"]] == [0, 64]
    assert by_name["openat"][1]["excludes"] == masked["excludes"]
