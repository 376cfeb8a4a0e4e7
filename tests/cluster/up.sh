#!/bin/bash
# Starts the cluster, or says nothing when it is up already; `up.sh build` only builds what it needs. Each node is a set of namespaces of its own (mount, network, PID, host
# name): see node.sh. This machine sees one link, a cgroup and $STATE, and the cluster sees nothing of this machine.
. "$(dirname "$0")/lib.sh"
need_root up
mkdir -p "$CACHE"
exec 8>"$CACHE/lock" # two at once: the second waits, then finds it up
flock 8

is_up() {
    [ -e "$STATE/up" ] || return 1
    for n in "${NODES[@]}"; do [ -n "$(node_init "$n")" ] || return 1; done
    "$KUBECTL" get --raw /readyz --request-timeout=20s >/dev/null 2>&1
}
! is_up || exit 0
bash "$here/build.sh" 8>&-
bash "$here/images.sh" 8>&-
[ "${1:-}" != build ] || exit 0
bash "$here/down.sh" 8>&-

failed() {
    tail -n 4 "$STATE"/node*/log/*.log >&2 || true
    bash "$here/down.sh" 8>&-
    die 'it did not come up; the ends of its logs are above'
}
trap failed ERR

umask 022
mkdir -p "$STATE/pki"
# What the nodes cover with mounts of their own must be there to be covered; down.sh removes what was made for it.
for folder in /run /var/lib/cni /var/lib/kubelet /var/log/containers; do
    [ -d "$folder" ] || { echo "$folder" >>"$STATE/made"; mkdir -p "$folder"; }
done
for group in $(cgroups); do
    mkdir -p "$group"
    for version in "${group%/*}" "$group"; do # v2: a controller works below where it was enabled above
        [ ! -e "$version/cgroup.subtree_control" ] || for controller in $(cat "$version/cgroup.controllers"); do
            echo "+$controller" >"$version/cgroup.subtree_control" 2>/dev/null || true
        done
    done
    mkdir -p "$group/daemons"
    for n in "${NODES[@]}"; do mkdir -p "$group/node$n"; done
    for below in "$group" "$group"/*/; do # a v1 cpuset begins empty, and takes nobody
        [ -e "$below/cpuset.mems" ] && [ ! -e "$below/cgroup.controllers" ] || continue
        cat "${group%/*}/cpuset.cpus" >"$below/cpuset.cpus"
        cat "${group%/*}/cpuset.mems" >"$below/cpuset.mems"
    done
done
(cd "$STATE/pki" && . "$here/pki.sh" && make_pki)
install -m 600 "$STATE/pki/admin.conf" "$KUBECONFIG"

above=/proc/self/ns/net
for n in "${NODES[@]}"; do
    mkdir -p "$STATE/node$n/log"
    # private: a mount that is shared already (iproute2 makes /run/netns so) would stay this machine's peer
    setsid unshare --mount --propagation private --net --pid --fork --uts --ipc \
        bash "$here/node.sh" "$n" 9<"$above" 8>&- </dev/null >"$STATE/node$n/log/node.log" 2>&1 &
    await 20 "node$n" test -e "$STATE/node$n/linked"
    above=/proc/$(node_init 1)/ns/net
done

await 90 'the API server' "$KUBECTL" get --raw /readyz
"$KUBECTL" apply -f "$STATE/node1/config/base.yaml" >"$STATE/node1/log/base.log"
for n in "${NODES[@]}"; do
    await 90 "node$n" "$KUBECTL" get node "node$n"
    "$KUBECTL" wait --for=condition=Ready "node/node$n" --timeout=90s >/dev/null
    await 30 "kube-proxy of node$n" curl -sf "http://$(node_ip "$n"):10256/healthz"
done
await 30 'the default service account' "$KUBECTL" get serviceaccount default
await 30 CoreDNS curl -sf "http://$API:8181/ready"
touch "$STATE/up"
