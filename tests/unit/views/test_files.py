"""Every row of the rules and default lists of views/files.py, as a table."""

from __future__ import annotations

import time

import pytest

from sidestage.trap.ports import Decision
from sidestage.views.files import MEMO, FilesPolicy, Mode

HOME, CWD, EXE = "/home/dev", "/src/shop", "/src/tools/bin/node"
L, R, N = Decision.LOCAL, Decision.REMOTE, Decision.NOT_FOUND


def policy(mode: Mode = Mode.READ, **over: object) -> FilesPolicy:
    where = {"home": HOME, "cwd": CWD, "executable": EXE, "tempdir": "/scratch/tmp"}
    return FilesPolicy(mode, **(where | over))  # type: ignore[arg-type]


REMOTE_BY_DEFAULT = [
    "/app/config.yaml", "/data/x", "/mnt/a", "/srv/www", "/root/report.txt", "/var/lib/db", "/var/log/app.log", "/unknown",
    "/var/run/secrets/kubernetes.io/serviceaccount/token", "/var/run/x", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname",
    "/etc/ssl/certs", "/etc/ssl/certs/ca-certificates.crt", "/ETC/HOSTS", "/app/.", "/app//x", "/app/../srv/x", "/application",
    "/liberty/x", "/app/so", "/app/x.sok", "/app/.so",
]  # fmt: skip
LOCAL_BY_DEFAULT = [
    # trees
    "/proc", "/proc/self/maps", "/sys/kernel/mm", "/lib/x", "/lib64/ld-linux-x86-64.so.2", "/lib32/x", "/libx32/x", "/etc",
    "/etc/passwd", "/etc/ssl/openssl.cnf", "/etc/hosts.allow", "/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
    "/usr/lib/locale/C.utf8/LC_CTYPE", "/home/dev/x", "/home/runner/work", "/home/iojs/build", "/bin/sh", "/sbin/init",
    "/dev/null", "/opt/jdk/lib/modules", "/tmp/x", "/var/tmp/y", "/var/db/timezone/zoneinfo/UTC", "/snap/x", "/run/x",
    "/selinux/enforce", "/nix/store/x", "/var/cache/ldconfig/aux-cache", "/var/cache/fontconfig/x", "/",
    # suffixes and parts
    "/app/libfoo.so", "/app/libfoo.so.6", "/app/libfoo.so.1.2.3", "/app/run.sh", "/app/x.rb", "/app/x.d", "/app/x.pyc",
    "/app/main.py", "/app/x.jar", "/app/X.class", "/app/index.js", "/app/x.pth", "/app/Info.plist", "/app/pyvenv.cfg",
    "/app/x.pdb", "/app/System.dll", "/app/jvm.cfg", "/app/package.json", "/app/.yarnrc", "/app/.yarnrc.yml",
    "/app/.yarnrc.json", "/app/.tool-versions", "/app/node_modules/x/y.txt", "/x/.asdf/shims/a", "/app/clr-debug-pipe-1",
    "/Program Files/x",
    # computed
    "/scratch/tmp/x", CWD, f"{CWD}/data.txt", EXE, "/src/tools/lib/node/x.txt", "/src/tools/share/doc", "/app/../etc/passwd",
    "/app/./../usr/x", "//etc/passwd",
]  # fmt: skip
HIDDEN = [
    f"{HOME}/.kube/config", f"{HOME}/.config/gcloud/x", f"{HOME}/.azure", f"{HOME}/.aws/credentials",
    "/var/run/nscd/socket", "/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve",
]  # fmt: skip


@pytest.mark.parametrize(("path", "expected"), [(p, R) for p in REMOTE_BY_DEFAULT] + [(p, L) for p in LOCAL_BY_DEFAULT])
def test_reading(path: str, expected: Decision) -> None:
    assert policy().decide(path, False) == (expected, path)


@pytest.mark.parametrize("path", REMOTE_BY_DEFAULT + LOCAL_BY_DEFAULT)
def test_read_mode_writes_here(path: str) -> None:
    assert policy().decide(path, True)[0] is L


@pytest.mark.parametrize("path", HIDDEN)
@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("mode", [Mode.READ, Mode.WRITE, Mode.LOCAL_WITH_OVERRIDES])
def test_hidden(path: str, write: bool, mode: Mode) -> None:
    assert policy(mode).decide(path, write)[0] is N


def test_hidden_has_a_boundary() -> None:
    assert policy().decide(f"{HOME}/.kubernetes", False)[0] is L


@pytest.mark.parametrize(
    ("mode", "path", "write", "expected"),
    [
        (Mode.LOCAL, "/app/x", False, L),
        (Mode.LOCAL, "/etc/hosts", False, L),
        (Mode.LOCAL, f"{HOME}/.kube/config", False, L),
        (Mode.LOCAL_WITH_OVERRIDES, "/app/x", False, L),
        (Mode.LOCAL_WITH_OVERRIDES, "/app/x", True, L),
        (Mode.LOCAL_WITH_OVERRIDES, "/etc/hosts", False, R),
        (Mode.WRITE, "/app/x", True, R),
        (Mode.WRITE, "/app/x.py", True, L),
        (Mode.WRITE, "/etc/hosts", True, L),
    ],
)
def test_modes(mode: Mode, path: str, write: bool, expected: Decision) -> None:
    assert policy(mode).decide(path, write)[0] is expected


@pytest.mark.parametrize(
    ("path", "write", "expected"),
    [
        ("/data/secret/x", False, N),  # 3 not_found before all
        ("/data/rw/x", True, R),  # 4 read_write: remote both ways
        ("/data/rw/x", False, R),
        ("/usr/share/theirs", False, R),  # 5 read_only beats the default local tree
        ("/usr/share/theirs", True, L),
        ("/DATA/MINE", False, L),  # 6 local; case doesn't matter
        ("/x/data/mine", False, L),  # unanchored
        (f"{HOME}/.kube/config", False, L),  # the user's local is before the default not-found
        ("/data/else", False, R),
    ],
)
def test_users_lists(path: str, write: bool, expected: Decision) -> None:
    lists = policy(
        not_found=["^/data/secret"], read_write=["^/data/(secret|rw)/"], read_only=["^/usr/share/theirs", "^/data/rw"],
        local=["/data/mine", r"\.kube", "^/data/rw", "^/data/secret"],
    )  # fmt: skip
    assert lists.decide(path, write)[0] is expected


@pytest.mark.parametrize("path", ["data.txt", "../app/x", "./x", ""])
def test_relative_is_local(path: str) -> None:
    assert policy(read_only=["data"]).decide(path, False) == (L, path)


def test_relative_not_found() -> None:
    assert policy(not_found=[r"secret\.txt$"]).decide("secret.txt", False)[0] is N


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/local/a.conf", (R, "/app/conf/a.conf")),
        ("/LOCAL/a", (R, "/app/conf/a")),
        ("/second/b", (R, "/srv/b-$1")),
        ("/here/c", (L, "/tmp/c")),
        ("/missing/a", (R, "/srv/a")),
        ("/rel/d", (R, "/rel/d")),
        ("local/a", (L, "local/a")),  # relative paths aren't mapped
    ],
)
def test_mapping(path: str, expected: tuple[Decision, str]) -> None:
    mapping = {
        "^/local/(?P<file>.*)$": "/app/conf/${file}", "^/(local|second)/(b)$": "/srv/$2-$$1", "^/here/(.*)$": "/tmp/$1",
        "^/missing/(a)$": "/srv/$1$2${none}",
    }  # fmt: skip
    assert policy(mapping=mapping).decide(path, False) == expected


def test_root_as_home_or_cwd_makes_nothing_local() -> None:
    at_root = policy(home="/", cwd="/", executable="./x", tempdir="/")
    assert at_root.decide("/app/.x", False)[0] is R
    assert at_root.decide("/.kube/config", False)[0] is R


def test_search_path_is_local() -> None:
    assert policy(search_path=["/corp/bin", "relative", "/"]).decide("/corp/bin/tool", False)[0] is L
    assert policy(search_path=["/corp/bin", "relative", "/"]).decide("/corp/x", False)[0] is R


def test_undecodable_names() -> None:
    assert policy().decide("/app/\udcff\udcfe", False)[0] is R


def test_memo_is_bounded_and_quick() -> None:
    files = policy()
    for number in range(MEMO + 10):
        files.decide(f"/app/{number}", False)
    assert len(files._reads) <= MEMO
    best = min(_seconds(files) for _ in range(20))
    assert best < 2e-6


def _seconds(files: FilesPolicy) -> float:
    start = time.perf_counter()
    for _ in range(1000):
        files.decide("/app/config.yaml", False)
    return (time.perf_counter() - start) / 1000
