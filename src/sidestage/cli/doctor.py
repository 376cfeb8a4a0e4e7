"""`sidestage doctor`: what this machine can do, and the cure for each lack. facts.py gathers, `examine` judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidestage.cli.facts import ARCHITECTURES, Facts, gather
from sidestage.cli.finding import Finding

KERNEL_FLOOR = (5, 19)  # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, see seccomp(2)
PYTHON_FLOOR = (3, 11)
_CONTAINED = "start it with --security-opt seccomp=unconfined"


def main(argv: Sequence[str]) -> int:
    """Prints the findings; 1 if `exec` can't work here."""
    from sidestage import config
    from sidestage.cli.errors import UserError
    from sidestage.cli.options import Parser, add_cluster_flags, cluster_keys

    parser = Parser(prog="sidestage doctor", description="What this machine and the cluster allow, and the cure for each lack.")
    add_cluster_flags(parser)
    parser.add_argument("--output", choices=["auto", "plain", "json"], default="auto")
    parser.add_argument("--debug", action="store_true", help="tracebacks of our own errors")
    given = parser.parse_args(list(argv))
    try:
        settings = config.load(given.config_file, cluster_keys(given))
    except config.ConfigError as error:
        raise UserError(str(error), "`sidestage verify-config FILE` checks it") from error
    from sidestage.cli import doctor_cluster

    findings = examine(gather()) + doctor_cluster.examine(settings)
    works = all(finding.state != "fatal" for finding in findings)
    if given.output == "json":
        import json

        print(json.dumps({"works": works, "findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        from sidestage.cli.progress import clean

        for finding in findings:
            cure = "".join(f"\n       {line}" for line in finding.cure.splitlines())
            print(clean(f"{finding.state:5}  {finding.name}: {finding.detail}{cure}"))
        print("sidestage exec works here" if works else "sidestage exec can't work here: see what is fatal")
    return 0 if works else 1


def examine(facts: Facts) -> list[Finding]:
    return [check(facts) for check in CHECKS]


def kernel(facts: Facts) -> Finding:
    numbers = [int(part) for part in facts.release.split("-")[0].split(".")[:2] if part.isdigit()]
    if facts.wsl == 1:
        return Finding("kernel", "fatal", f"{facts.release}: WSL 1 has no Linux kernel", "wsl --set-version DISTRIBUTION 2")
    if tuple(numbers) >= KERNEL_FLOOR:
        return Finding("kernel", "ok", facts.release)
    cure = "run `wsl --update`" if facts.wsl else "use Linux 5.19 or later (Debian 12, Ubuntu 22.10)"
    return Finding("kernel", "fatal", f"{facts.release} is too old: signals would interrupt trapped calls", cure)


def architecture(facts: Facts) -> Finding:
    if facts.machine in ARCHITECTURES:
        return Finding("architecture", "ok", facts.machine)
    return Finding("architecture", "fatal", f"no system call table for {facts.machine}", f"use {' or '.join(ARCHITECTURES)}")


def python(facts: Facts) -> Finding:
    text = ".".join(map(str, facts.python))
    if facts.python[:2] >= PYTHON_FLOOR:
        return Finding("python", "ok", text)
    return Finding("python", "fatal", f"{text} is too old", "use Python 3.11 or later: apt-get install python3")


def seccomp(facts: Facts) -> Finding:
    if facts.notify and facts.killable:
        return Finding("seccomp", "ok", "user notification with WAIT_KILLABLE_RECV")
    lacking = "user notification" if not facts.notify else "WAIT_KILLABLE_RECV"
    if facts.container:
        return Finding("seccomp", "fatal", f"no {lacking} in {facts.container}", _CONTAINED)
    return Finding("seccomp", "fatal", f"the kernel has no {lacking}", "use a kernel of 5.19 or later with CONFIG_SECCOMP_FILTER")


def pidfd(facts: Facts) -> Finding:
    if facts.getfd:
        return Finding("pidfd_getfd", "ok", "there")
    cure = _CONTAINED + " --cap-add SYS_PTRACE" if facts.container else "use Linux 5.6 or later, outside of sandboxes"
    return Finding("pidfd_getfd", "fatal", "sockets of the program can't be reached", cure)


def trap(facts: Facts) -> Finding:
    if not facts.trap_error:
        return Finding("trap", "ok", "a program was started under a filter, and its listener fetched")
    if facts.nested:
        cure = "leave the outer sidestage or sandbox first"
    elif facts.container:
        cure = f"in {facts.container}: {_CONTAINED}"
    else:
        cure = "see kernel, seccomp, pidfd_getfd and yama here"
    return Finding("trap", "fatal", facts.trap_error, cure)


def yama(facts: Facts) -> Finding:
    if facts.yama == "3":
        cure = "it lasts until the next boot: remove kernel.yama.ptrace_scope from /etc/sysctl.d"
        return Finding("yama", "fatal", "ptrace is forbidden for all", cure)
    if facts.yama == "2" and not facts.root:
        return Finding("yama", "fatal", "ptrace is for administrators only", "sudo sysctl kernel.yama.ptrace_scope=1")
    return Finding("yama", "ok", f"scope {facts.yama}" if facts.yama else "not active")


def user_namespaces(facts: Facts) -> Finding:
    if not facts.userns_error:
        return Finding("user namespaces", "ok", "allowed")
    if facts.root:
        return Finding("user namespaces", "ok", f"not to be had ({facts.userns_error.lower()}), and not needed by root")
    if facts.apparmor_userns:
        cure = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    elif not facts.userns_limit:
        cure = "sudo sysctl user.max_user_namespaces=15000"
    elif facts.container:
        cure = f"in {facts.container}: {_CONTAINED}"
    else:
        cure = "sudo sysctl kernel.unprivileged_userns_clone=1"
    return Finding("user namespaces", "lack", f"{facts.userns_error}: remote files are copied to memory instead of FUSE", cure)


def fuse(facts: Facts) -> Finding:
    if not facts.fuse_error:
        return Finding("fuse", "ok", "mounted without fusermount")
    if facts.fuse_device == "missing":
        cure = f"in {facts.container}: start it with --device /dev/fuse" if facts.container else "sudo modprobe fuse"
    elif facts.fuse_device == "closed":
        cure = "sudo chmod 666 /dev/fuse"
    elif facts.userns_error and not facts.root:
        cure = "see user namespaces here"
    elif facts.container:
        cure = f"in {facts.container}: start it with --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
    else:
        cure = "use Linux 5.2 or later, with CONFIG_FUSE_FS"
    return Finding("fuse", "lack", f"{facts.fuse_error}: remote files are copied to memory when opened", cure)


def surroundings(facts: Facts) -> Finding:
    places = [name for name, there in (
        (f"WSL {facts.wsl}", facts.wsl), (facts.container, facts.container), ("a seccomp filter", facts.seccomp),
    ) if there]  # fmt: skip
    return Finding("inside", "ok", ", ".join(places) if places else "nothing else")


def containers(facts: Facts) -> Finding:
    if facts.engines:
        others = "".join(f"; {name}'s socket can't be used" for name in facts.closed_engines)
        return Finding("containers", "ok", " and ".join(facts.engines) + others)
    if facts.closed_engines:
        detail = f"{' and '.join(facts.closed_engines)}: the daemon does not run, or its socket is not yours"
        return Finding("containers", "lack", detail, "sudo systemctl start docker; sudo usermod -aG docker $USER, and log in again")
    return Finding("containers", "lack", "neither podman nor docker: targets container/NAME can't be found", "install podman")


CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    kernel, architecture, python, seccomp, pidfd, trap, yama, user_namespaces, fuse, surroundings, containers,
)  # fmt: skip
