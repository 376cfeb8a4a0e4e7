"""`sidestage container` of an ordinary user, by podman and by rootless docker."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.testkit import build
from tests.testkit.target import ROOT, run

# The user exists in a mount namespace only
SET_UP = """
set -e
mount --make-rprivate /
mkdir "$BASE/python" "$BASE/source" "$BASE/engines" "$BASE/run" "$BASE/home"
mount --bind "$PREFIX" "$BASE/python"
mount --bind "$SOURCE" "$BASE/source"
mount --bind "$ENGINES" "$BASE/engines"
for name in passwd group subuid subgid; do cp /etc/$name "$BASE/$name"; done
echo "boxer:x:$ID:$ID::$BASE/home:/bin/sh" >>"$BASE/passwd"
echo "boxer:x:$ID:" >>"$BASE/group"
for name in subuid subgid; do echo "boxer:$((ID << 4)):65536" >>"$BASE/$name"; done
for name in passwd group subuid subgid; do mount --bind "$BASE/$name" /etc/$name; done
mknod "$BASE/fuse" c 10 229; mount --bind "$BASE/fuse" /dev/fuse
mknod "$BASE/tun" c 10 200; mount --bind "$BASE/tun" /dev/net/tun
chmod 666 "$BASE/fuse" "$BASE/tun"
chmod 755 "$BASE" "$BASE/root"; chown -R $ID:$ID "$BASE/run" "$BASE/home" "$BASE/root"; chmod 700 "$BASE/run"
exec setpriv --reuid $ID --regid $ID --clear-groups env -i HOME="$BASE/home" XDG_RUNTIME_DIR="$BASE/run" \\
    PATH="$BASE/engines:$PATH" BASE="$BASE" PYTHONPATH="$BASE/source" \\
    USER_OPTIONS="$USER_OPTIONS" PYTHON="$BASE/python/bin/$INTERPRETER" sh -euc "$AS_USER"
"""
TARGET = """
cd "$BASE/home"
GREETING=hello unshare --user --map-root-user --net --mount sh -c '
    ip link set lo up; mount -t tmpfs none /srv; echo remote >/srv/file; echo 127.0.0.9 db >hosts; mount --bind hosts /etc/hosts
    exec $PYTHON -u -m http.server 8080 -d /srv' >log 2>&1 &
target=$!
until grep -q Serving log; do sleep 0.1; done
code=0
TRY='busybox id -u; echo $GREETING; ls /srv; cat /srv/file; busybox wget -qO- http://db:8080/file; exit 7'
"""
PODMAN = TARGET + """
$PYTHON -m sidestage container -t process/$target -- podman --cgroup-manager cgroupfs --runtime runc run --rm $USER_OPTIONS \\
    --ulimit nofile=1024:1024 --ulimit nproc=10000:10000 --rootfs "$BASE/root" /bin/sh -c "$TRY" || code=$?
kill $target
podman --cgroup-manager cgroupfs --runtime runc ps -aq
kill "$(cat "$XDG_RUNTIME_DIR/libpod/tmp/pause.pid")"  # podman keeps a process, that holds the user namespace
exit $code
"""
# As moby's contrib/dockerd-rootless.sh starts it
DOCKER = TARGET + """
rootlesskit --state-dir="$XDG_RUNTIME_DIR/rootless" --net=slirp4netns --disable-host-loopback --mtu=65520 --port-driver=builtin \\
    --copy-up=/etc --copy-up=/run --propagation=rslave sh -c '
    rm -f /run/docker /run/containerd /run/xtables.lock
    exec dockerd --rootless --data-root "$HOME/data" --exec-root "$XDG_RUNTIME_DIR/docker" \\
        --pidfile "$XDG_RUNTIME_DIR/docker.pid" --host "unix://$XDG_RUNTIME_DIR/docker.sock" \\
        --bridge=none --iptables=false --ip6tables=false --ip-forward=false \\
        --userland-proxy=false --config-file=/dev/null' >daemon 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon || true' EXIT
export DOCKER_HOST="unix://$XDG_RUNTIME_DIR/docker.sock"
until docker version >/dev/null 2>&1; do
    kill -0 $daemon || { cat daemon >&2; exit 1; }
    sleep 0.1
done
tar -C "$BASE/root" -c . | docker import - rootless >/dev/null
$PYTHON -m sidestage container -t process/$target -- docker run --rm $USER_OPTIONS rootless /bin/sh -c "$TRY" || code=$?
kill $target
docker ps -aq
exit $code
"""


@pytest.mark.parametrize("engine", ["podman", pytest.param("docker", marks=build.first_engines)])
@pytest.mark.parametrize("options, uid", [("", "0"), ("--user=7:7", "7"), ("--network=none --user=7:7", "7")])
def test_an_ordinary_users_container(engine: str, options: str, uid: str) -> None:
    """Whoever the container runs as reads the target's files from the mount."""
    for command in {"podman": ("podman", "runc"), "docker": ("containerd", "slirp4netns")}[engine]:
        build.need(command)
    for command in ("newuidmap", "setpriv"):
        build.need(command)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as base:
        root = Path(base, "root")
        for folder in ("bin", "etc", "srv", "proc", "dev", "sys", "tmp", "run"):
            (root / folder).mkdir(parents=True)
        shutil.copy(build.need("busybox"), root / "bin")
        for name in ("sh", "ls", "cat"):
            (root / "bin" / name).symlink_to("busybox")
        env = {
            **os.environ, "BASE": base, "PREFIX": sys.base_prefix, "SOURCE": str(ROOT / "src"), "ID": "54321",
            "INTERPRETER": os.path.basename(os.path.realpath(sys.executable)), "USER_OPTIONS": options,
            "AS_USER": DOCKER if engine == "docker" else PODMAN,
            "ENGINES": str(build.engines()) if engine == "docker" else "/usr/lib",
        }  # fmt: skip
        done = run(["unshare", "--mount", "sh", "-c", SET_UP], 90, env)
    assert done.out.splitlines() == [uid, "hello", "file", "remote", "remote"], done.err
    assert done.code == 7, done.err
