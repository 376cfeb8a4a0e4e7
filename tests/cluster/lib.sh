# Names shared by the scripts beside this file; sourced by bash.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

NAME=sidestage-cluster # of the cgroup, the state and the cluster itself
CACHE=${SIDESTAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sidestage}/cluster
# One cluster a machine: addresses and ports below are fixed, so is this. Not in /run: overlayfs can't stack on every file system.
STATE=${SIDESTAGE_CLUSTER_STATE:-/var/lib/$NAME}
export KUBECONFIG=$STATE/admin.conf

NODE=node1
NODE_IP=10.250.0.1 # on the bridge BRIDGE
BRIDGE=sidestage0
POD_BRIDGE=sidestage1
PODS=10.244.0.0/24
SERVICES=10.96.0.0/16
API_SERVICE=10.96.0.1
DNS=10.96.0.10
IMAGES=(pause python static)

say() { printf 'cluster: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

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
