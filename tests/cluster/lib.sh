# Names shared by the scripts beside this file; sourced by bash.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# One cluster a number; they see nothing of each other. The tests use 0, and one more where they take it apart.
INSTANCE=${SIDESTAGE_CLUSTER:-0}
NAME=sidestage-cluster${SIDESTAGE_CLUSTER:-} # of the cgroup, the state and the cluster itself
CACHE=${SIDESTAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sidestage}/cluster
# Not in /run: overlayfs can't stack on every file system.
STATE=/var/lib/$NAME
export KUBECONFIG=$STATE/admin.conf

NODES=(1 2)
node_ip() { echo "10.250.$INSTANCE.$1"; }
node_pods() { echo "10.244.$1.0/24"; }
API=$(node_ip 1)
MACHINE_IP=10.250.$INSTANCE.254 # this machine's end of the one link to the cluster
MACHINE_LINK=sidestage$INSTANCE
ALL_PODS=10.244.0.0/16
SERVICES=10.96.0.0/16
API_SERVICE=10.96.0.1
DNS=10.96.0.10
IMAGES=(pause python static)

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
need_root() { [ "$(id -u)" = 0 ] || die "root is needed: sudo ./run cluster $1"; }

# What a build is made of is its name in the cache: key FILE...
key() { (cd "$here" && find "$@" -type f -not -name '*.pyc' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16); }
BINARIES=$CACHE/$(key binaries build.sh)
ARCHIVES=$CACHE/$(key images images.sh)
KUBECTL=$BINARIES/kubectl

# The cgroups that hold every process of the cluster, daemons and containers alike: one below each v1 hierarchy, or one of v2.
cgroups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo "/sys/fs/cgroup/$NAME"
    else
        for hierarchy in /sys/fs/cgroup/*/; do
            [ ! -e "$hierarchy/cgroup.procs" ] || echo "$hierarchy$NAME"
        done
    fi
}

# Of v1's hierarchies, pids is the one that the daemons enter; containers are in all.
tracked() { if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo "/sys/fs/cgroup/$NAME"; else echo "/sys/fs/cgroup/pids/$NAME"; fi; }
members() { find "$(tracked)" -name cgroup.procs -exec cat {} + 2>/dev/null || true; }

# The first process of a node, by its number on this machine; nothing when the node is not running.
node_init() {
    local pid
    pid=$(cat "$STATE/node$1/init" 2>/dev/null) || return 0
    ! members | grep -qx "$pid" || echo "$pid"
}

await() { # SECONDS WHAT COMMAND...
    for _ in $(seq "${1}0"); do
        ! "${@:3}" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    say "$2 does not come up: see $STATE/node*/log"
    return 1
}
listens() { (: <>"/dev/tcp/$1/$2"); }
