#!/bin/bash
# Ends the cluster and takes away all that it put on this machine; also after any part of it was killed. The cache stays.
# Only processes inside its own cgroup are ended. With a node's first process its PID namespace ends; with the last process, its
# mounts, network namespace, bridges, nftables tables and the link to this machine. SIGKILL: the state is thrown away.
. "$(dirname "$0")/lib.sh"
need_root down

for _ in $(seq 200); do
    left=$(members)
    [ -n "$left" ] || break
    # shellcheck disable=SC2086 # a list of numbers
    kill -9 $left 2>/dev/null || true
    sleep 0.1
done
[ -z "$(members)" ] || die "processes that don't end: $(members | tr '\n' ' ')"

for group in $(cgroups); do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} +
done
# The kernel takes a dead network namespace apart in a work queue, a moment later.
for _ in $(seq 100); do
    ip link show "$MACHINE_LINK" >/dev/null 2>&1 || break
    ip link del "$MACHINE_LINK" 2>/dev/null || sleep 0.1
done
if [ -e "$STATE/made" ]; then
    tac "$STATE/made" | while read -r folder; do rmdir "$folder" 2>/dev/null || true; done
fi
rm -rf "$STATE"
