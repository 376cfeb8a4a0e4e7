"""The same filter as bpf.py in the words of the OCI runtime specification (config-linux.md, "Seccomp"): what a container's runtime
installs and whose listener it hands over. Pure.

What the container's own profile refuses stays refused: only calls that it allows are told to us instead.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from typing import Any

from sidestage.trap.bpf import AT_EMPTY_PATH, ENOSYS, EOPNOTSUPP, MSG_FASTOPEN, SO_ERROR, SOL_SOCKET, number

NOTIFY, ALLOW, ERRNO = "SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
ARCHES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_CONDITIONS = ("args", "includes", "excludes")  # the last two in moby's form only
_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")

Rule = dict[str, Any]
Arg = dict[str, Any]


def _arg(index: int, op: str, value: int, of_mask: int = 0) -> Arg:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": of_mask}


def _getsockopt() -> list[tuple[str, list[Arg]]]:
    level, name = _arg(1, "EQ", SOL_SOCKET), _arg(2, "EQ", SO_ERROR)
    others = [(ALLOW, [_arg(1, "NE", SOL_SOCKET)]), (ALLOW, [level, _arg(2, "NE", SO_ERROR)])]
    return [(NOTIFY, [level, name]), *others]


def _sendto() -> list[tuple[str, list[Arg]]]:
    usual = _arg(3, "MASKED_EQ", MSG_FASTOPEN)
    fast = (ERRNO, [_arg(3, "MASKED_EQ", MSG_FASTOPEN, MSG_FASTOPEN)])
    return [fast, (NOTIFY, [usual, _arg(4, "NE", 0)]), (ALLOW, [usual, _arg(4, "EQ", 0)])]


# The tests of bpf.py. libseccomp takes no two rules that meet in one call, so each says all that it is about.
_TESTED: dict[str, list[tuple[str, list[Arg]]]] = {
    "getsockopt": _getsockopt(),
    "sendto": _sendto(),
    "recvfrom": [(NOTIFY, [_arg(4, "NE", 0)]), (ALLOW, [_arg(4, "EQ", 0)])],
    "newfstatat": [(NOTIFY, [_arg(3, "NE", AT_EMPTY_PATH)]), (ALLOW, [_arg(3, "EQ", AT_EMPTY_PATH)])],
    "statx": [
        (NOTIFY, [_arg(2, "MASKED_EQ", AT_EMPTY_PATH)]),
        (ALLOW, [_arg(2, "MASKED_EQ", AT_EMPTY_PATH, AT_EMPTY_PATH)]),
    ],
}
TESTED = frozenset(_TESTED)


def seccomp(base: Mapping[str, Any] | None, names: Collection[str], listener: str, *, killable: bool) -> dict[str, Any]:
    """`linux.seccomp` of a container whose own is `base`: `names` are told to who listens at the unix socket `listener`.

    `base` may also be in moby's form: conditions of a rule stay with it.
    """
    base = base or {"defaultAction": ALLOW}
    machine = platform.machine()
    ours = {name for name in names if number(name, machine) is not None}
    everything = base["defaultAction"] == ALLOW
    kept: list[Rule] = []
    told: list[tuple[str, Rule]] = []  # with what the profile says besides: for which arguments it allows it, and when
    for rule in base.get("syscalls") or ():
        said = {key: rule[key] for key in _CONDITIONS if rule.get(key)}
        rest = rule.get("names") or [rule["name"]]
        if rule["action"] == ALLOW:
            told += [(name, said) for name in rest if name in ours]
            rest = [name for name in rest if name not in ours and name not in _URING]
        elif everything:
            ours -= set(rest)
        if rest:
            kept.append({"names": rest, **{key: rule[key] for key in ("action", "errnoRet") if key in rule}, **said})
    if everything:
        told = [(name, {}) for name in ours]
        kept.append({"names": list(_URING), "action": ERRNO, "errnoRet": ENOSYS})
    by_name = sorted(told, key=lambda one: one[0])
    rules = kept + [rule for name, said in by_name for rule in _rules(name, said, everything)]
    flags = [*(base.get("flags") or ()), *([KILLABLE] if killable else [])]
    return {
        **{key: base[key] for key in ("defaultAction", "defaultErrnoRet") if key in base},
        "architectures": [ARCHES[machine]],  # other ABIs have other numbers; the kernel ends who uses them
        "listenerPath": listener, "syscalls": rules, **({"flags": flags} if flags else {}),
    }  # fmt: skip


def _rules(name: str, said: Rule, everything: bool) -> list[Rule]:
    if said.get("args") or name not in _TESTED:
        return [_rule(name, NOTIFY, said)]
    return [_rule(name, action, {**said, "args": tests}) for action, tests in _TESTED[name] if not (everything and action == ALLOW)]


def _rule(name: str, action: str, said: Rule) -> Rule:
    return {"names": [name], "action": action, **({"errnoRet": EOPNOTSUPP} if action == ERRNO else {}), **said}
