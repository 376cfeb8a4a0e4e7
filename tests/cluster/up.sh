#!/bin/bash
# Starts the cluster, or says that it is up. Everything runs in a mount namespace of its own, so that no mount leaks to the machine
# and all of them vanish with the processes; the machine sees two bridges, kube-proxy's nftables tables and a cgroup.
. "$(dirname "$0")/lib.sh"

if [ "${1:-}" != --inner ]; then
    [ "$(id -u)" = 0 ] || die 'root is needed: sudo ./run cluster up'
    if [ -s "$STATE/up" ] && "$KUBECTL" get --raw /readyz >/dev/null 2>&1; then exit 0; fi
    "$here/build.sh"
    "$here/images.sh"
    "$here/down.sh"
    # private first: a mount that is shared already (iproute2 makes /run/netns so) would stay the machine's peer
    exec unshare --mount --propagation private bash "$here/up.sh" --inner
fi

umask 022
mkdir -p "$STATE"/{pki,log,pid,etcd,config/cni,containerd,kubelet,run} /run/netns /var/lib/cni /var/log/containers
for folder in /run/netns /var/lib/cni /var/log/containers; do mount -t tmpfs "$NAME" $folder; done # what daemons write there stays here
mount --make-rshared /
ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"

for group in $(cgroups); do
    mkdir -p "$group"
    parent=${group%/*}
    if [ -e "$parent/cpuset.cpus" ] && [ -e "$parent/cpuset.mems" ]; then # a v1 cpuset begins empty, and takes nobody
        cat "$parent/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$parent/cpuset.mems" >"$group/cpuset.mems"
    fi
done
echo $$ >"$(tracked)/cgroup.procs" # so that down.sh can name every process, whatever happens

ip link add "$BRIDGE" type bridge
ip addr add "$NODE_IP/24" dev "$BRIDGE"
ip link set "$BRIDGE" up
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true

(cd "$STATE/pki" && . "$here/pki.sh" && make_pki)
for file in "$here"/config/*.* "$here"/config/cni/*; do
    sed -e "s|@STATE@|$STATE|g; s|@NAME@|$NAME|g; s|@NODE@|$NODE|g; s|@NODE_IP@|$NODE_IP|g; s|@DNS@|$DNS|g; s|@PODS@|$PODS|g" \
        -e "s|@POD_BRIDGE@|$POD_BRIDGE|g; s|@BRIDGE@|$BRIDGE|g" "$file" >"$STATE/config/${file#"$here"/config/}"
done
install -m 600 "$STATE/pki/admin.conf" "$KUBECONFIG"

start() { # NAME COMMAND...
    setsid "${@:2}" >"$STATE/log/$1.log" 2>&1 </dev/null &
    echo $! >"$STATE/pid/$1"
}
part() { start "$1" "$BINARIES/kubeall" "$@"; }
await() { # WHAT COMMAND...
    for _ in $(seq 600); do
        ! "${@:2}" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    die "$1 does not come up: see $STATE/log"
}
listens() { (: <>"/dev/tcp/$1/$2"); }
P=$STATE/pki

start containerd containerd --config "$STATE/config/containerd.toml" --log-level warn
part etcd "$STATE/config/etcd.yaml"
await etcd listens 127.0.0.1 2379
part kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$NODE_IP" --bind-address=0.0.0.0 --secure-port=6443 \
    --service-cluster-ip-range="$SERVICES" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --client-ca-file="$P/ca.crt" --tls-cert-file="$P/apiserver.crt" --tls-private-key-file="$P/apiserver.key" \
    --kubelet-client-certificate="$P/apiserver-kubelet-client.crt" --kubelet-client-key="$P/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority="$P/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$P/sa.pub" \
    --service-account-signing-key-file="$P/sa.key" --requestheader-client-ca-file="$P/front-proxy-ca.crt" \
    --requestheader-allowed-names=front-proxy-client --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User \
    --proxy-client-cert-file="$P/front-proxy-client.crt" --proxy-client-key-file="$P/front-proxy-client.key" \
    --allow-privileged=true --profiling=false --endpoint-reconciler-type=lease
await containerd test -S "$STATE/run/containerd.sock"
for image in "${IMAGES[@]}"; do
    ctr -a "$STATE/run/containerd.sock" -n k8s.io images import "$ARCHIVES/$image.tar" >"$STATE/log/import-$image.log" 2>&1
done
await 'the API server' "$KUBECTL" get --raw /readyz
part kube-controller-manager --kubeconfig="$P/controller-manager.conf" --authentication-kubeconfig="$P/controller-manager.conf" \
    --authorization-kubeconfig="$P/controller-manager.conf" --client-ca-file="$P/ca.crt" \
    --requestheader-client-ca-file="$P/front-proxy-ca.crt" --root-ca-file="$P/ca.crt" \
    --service-account-private-key-file="$P/sa.key" --cluster-signing-cert-file="$P/ca.crt" --cluster-signing-key-file="$P/ca.key" \
    --use-service-account-credentials=true --leader-elect=false --bind-address=127.0.0.1 --allocate-node-cidrs=false \
    --profiling=false --kube-api-qps=300 --kube-api-burst=600
part kube-scheduler --kubeconfig="$P/scheduler.conf" --authentication-kubeconfig="$P/scheduler.conf" \
    --authorization-kubeconfig="$P/scheduler.conf" --leader-elect=false --bind-address=127.0.0.1 --profiling=false
part kubelet --config="$STATE/config/kubelet.yaml" --kubeconfig="$P/kubelet.conf" --hostname-override="$NODE" --node-ip="$NODE_IP" \
    --root-dir="$STATE/kubelet" --cert-dir="$STATE/kubelet/pki"
part kube-proxy --config="$STATE/config/proxy.yaml"
"$KUBECTL" apply -f "$STATE/config/base.yaml" >"$STATE/log/base.log"
part coredns -conf "$STATE/config/Corefile"
await 'the node' "$KUBECTL" get node "$NODE"
"$KUBECTL" wait --for=condition=Ready "node/$NODE" --timeout=60s >/dev/null
await 'the default service account' "$KUBECTL" get serviceaccount default
await kube-proxy curl -sf http://127.0.0.1:10256/healthz
await CoreDNS curl -sf http://127.0.0.1:8181/ready
echo 1 >"$STATE/up"
