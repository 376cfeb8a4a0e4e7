# The control plane, on node 1; sourced by node.sh.
# shellcheck shell=bash disable=SC2154
kube etcd "$S/config/etcd.yaml"
await 60 etcd listens 127.0.0.1 2379
kube kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$API" --bind-address=0.0.0.0 --secure-port=6443 \
    --service-cluster-ip-range="$SERVICES" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --client-ca-file="$P/ca.crt" --tls-cert-file="$P/apiserver.crt" --tls-private-key-file="$P/apiserver.key" \
    --kubelet-client-certificate="$P/apiserver-kubelet-client.crt" --kubelet-client-key="$P/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority="$P/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$P/sa.pub" \
    --service-account-signing-key-file="$P/sa.key" --requestheader-client-ca-file="$P/front-proxy-ca.crt" \
    --requestheader-allowed-names=front-proxy-client --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User \
    --proxy-client-cert-file="$P/front-proxy-client.crt" --proxy-client-key-file="$P/front-proxy-client.key" \
    --oidc-issuer-url="https://$MACHINE_IP:8444" --oidc-client-id=sidestage-tests --oidc-ca-file="$P/ca.crt" --oidc-username-prefix=oidc: \
    --allow-privileged=true --profiling=false --endpoint-reconciler-type=lease
await 90 'the API server' "$KUBECTL" get --raw /readyz
kube kube-controller-manager --kubeconfig="$P/controller-manager.conf" --authentication-kubeconfig="$P/controller-manager.conf" \
    --authorization-kubeconfig="$P/controller-manager.conf" --client-ca-file="$P/ca.crt" \
    --requestheader-client-ca-file="$P/front-proxy-ca.crt" --root-ca-file="$P/ca.crt" \
    --service-account-private-key-file="$P/sa.key" --cluster-signing-cert-file="$P/ca.crt" --cluster-signing-key-file="$P/ca.key" \
    --use-service-account-credentials=true --leader-elect=false --bind-address=127.0.0.1 --allocate-node-cidrs=false \
    --profiling=false --kube-api-qps=300 --kube-api-burst=600
kube kube-scheduler --kubeconfig="$P/scheduler.conf" --authentication-kubeconfig="$P/scheduler.conf" \
    --authorization-kubeconfig="$P/scheduler.conf" --leader-elect=false --bind-address=127.0.0.1 --profiling=false
kube coredns -conf "$S/config/coredns.conf"
