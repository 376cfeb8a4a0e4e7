#!/bin/bash
# Ends the cluster and takes away all that it put on this machine; also after any part of it was killed. The cache stays.
# Only processes inside its own cgroup are ended. SIGKILL: the state is thrown away, and the API server takes 20 s to end politely.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || die 'root is needed: sudo ./run cluster down'

own=" $$ $BASHPID $PPID "
for _ in $(seq 100); do
    left=$(members)
    [ -n "$left" ] || break
    for pid in $left; do
        case $own in *" $pid "*) echo "$pid" >"$(dirname "$(tracked)")/cgroup.procs" ;; *) kill -9 "$pid" 2>/dev/null || true ;; esac
    done
    sleep 0.1
done
[ -z "$(members)" ] || die "processes that don't end: $(members | tr '\n' ' ')"

for group in $(cgroups); do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
done
for family in ip ip6; do nft delete table $family kube-proxy 2>/dev/null || true; done
for bridge in "$POD_BRIDGE" "$BRIDGE"; do ip link del "$bridge" 2>/dev/null || true; done
rm -rf "$STATE"
