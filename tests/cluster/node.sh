#!/bin/bash
# A node: `node.sh NUMBER`, started by up.sh as the first process of a PID namespace, with mounts, network and host name of its own.
# Its end is the end of all of them. Node 1 holds the control plane too, and the switch that the others and this machine plug into.
# Descriptor 9 is the network namespace above: this machine's for node 1, node 1's for the others.
. "$(dirname "$0")/lib.sh"
n=$1
S=$STATE/node$n
P=$STATE/pki
ip=$(node_ip "$n")

read -r pid _ </proc/self/stat # still this machine's /proc, so the number that counts there
echo 0 >"$(tracked)/daemons/cgroup.procs"
echo "$pid" >"$S/init"
mkdir -p "$S"/{config/cni,containerd,kubelet,run,parts}
hostname "node$n"

ip link set lo up
if [ "$n" = 1 ]; then
    ip link add nodes type bridge
    ip addr add "$ip/24" dev nodes
    ip link add machine type veth peer name "$MACHINE_LINK" netns /proc/self/fd/9
    ip link set machine master nodes up
    ip link set nodes up
    nsenter --net=/proc/self/fd/9 ip addr add "$MACHINE_IP/24" dev "$MACHINE_LINK"
    nsenter --net=/proc/self/fd/9 ip link set "$MACHINE_LINK" up
else
    ip link add eth0 type veth peer name "node$n" netns /proc/self/fd/9
    nsenter --net=/proc/self/fd/9 ip link set "node$n" master nodes up
    ip addr add "$ip/24" dev eth0
    ip link set eth0 up
fi
for other in "${NODES[@]}"; do
    [ "$other" = "$n" ] || ip route add "$(node_pods "$other")" via "$(node_ip "$other")" dev "$([ "$n" = 1 ] && echo nodes || echo eth0)"
done
exec 9>&-
touch "$S/linked"

mount -t proc proc /proc
for folder in /run /var/lib/cni /var/lib/kubelet /var/log/containers; do mount -t tmpfs "$NAME" "$folder"; done
mkdir /run/netns
mount --make-rshared /
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"

for file in "$here"/config/*.* "$here"/config/cni/*; do
    sed -e "s|@STATE@|$S|g; s|@PKI@|$P|g; s|@NAME@|$NAME|g; s|@NODE@|node$n|g; s|@N@|$n|g; s|@NODE_IP@|$ip|g; s|@API@|$API|g; s|@DNS@|$DNS|g" \
        -e "s|@PODS@|$(node_pods "$n")|g; s|@ALL_PODS@|$ALL_PODS|g" "$file" >"$S/config/${file#"$here"/config/}"
done

part() { # NAME COMMAND... : kept running, as a service manager would; parts/NAME holds its number in this namespace
    while :; do
        "${@:2}" >>"$S/log/$1.log" 2>&1 </dev/null &
        echo $! >"$S/parts/$1"
        wait $! || true
        sleep 1
    done &
}
kube() { part "$1" "$BINARIES/kubeall" "$@"; }

part containerd containerd --config "$S/config/containerd.toml" --log-level warn
[ "$n" != 1 ] || . "$here/control.sh"
await 30 containerd test -S "$S/run/containerd.sock"
[ "$n" != 2 ] || IMAGES+=(databases) # as large as all others, and asked for by a few pods: one node has it
for image in "${IMAGES[@]}"; do
    ctr -a "$S/run/containerd.sock" -n k8s.io images import "$ARCHIVES/$image.tar" >"$S/log/import-$image.log" 2>&1
done
await 90 'the API server' listens "$API" 6443
kube kubelet --config="$S/config/kubelet.yaml" --kubeconfig="$P/node$n.conf" --hostname-override="node$n" --node-ip="$ip" \
    --root-dir="$S/kubelet" --cert-dir="$S/kubelet/pki"
kube kube-proxy --config="$S/config/proxy.yaml"
set +e
while :; do wait; done # reaps the orphans of the namespace, and never ends
