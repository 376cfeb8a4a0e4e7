# Certificates and kubeconfigs of the cluster, in the current folder; sourced by up.sh.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

authority() { # NAME
    new_key "$1.key"
    openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 365 -out "$1.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign 2>/dev/null
}

certificate() { # NAME SUBJECT AUTHORITY USAGE [ALTERNATIVE NAMES]
    new_key "$1.key"
    {
        printf 'keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=%s\n' "$4"
        [ $# -lt 5 ] || printf 'subjectAltName=%s\n' "$5"
    } >"$1.ext"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

kubeconfig() { # NAME
    cat <<Y
apiVersion: v1
kind: Config
clusters: [{name: $NAME, cluster: {server: "https://$API:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: $NAME, context: {cluster: $NAME, user: $1, namespace: default}}]
current-context: $NAME
Y
}

make_pki() {
    local inside=kubernetes.default
    authority ca
    authority front-proxy-ca
    certificate apiserver /CN=kube-apiserver ca serverAuth \
        "DNS:kubernetes,DNS:$inside,DNS:$inside.svc,DNS:$inside.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$API,IP:$API_SERVICE"
    certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client ca clientAuth
    certificate front-proxy-client /CN=front-proxy-client front-proxy-ca clientAuth
    certificate admin /O=system:masters/CN=kubernetes-admin ca clientAuth
    certificate controller-manager /CN=system:kube-controller-manager ca clientAuth
    certificate scheduler /CN=system:kube-scheduler ca clientAuth
    certificate proxy /CN=system:kube-proxy ca clientAuth
    certificate coredns /O=system:masters/CN=coredns ca clientAuth
    certificate issuer /CN=issuer ca serverAuth "IP:$MACHINE_IP" # of OpenID Connect, where a test has one (testkit/issuer.py)
    echo "$MACHINE_IP" >issuer.address
    new_key sa.key
    openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
    for user in admin controller-manager scheduler proxy coredns; do kubeconfig "$user" >"$user.conf"; done
    for n in "${NODES[@]}"; do
        certificate "kubelet$n" "/CN=node$n" ca serverAuth "DNS:node$n,IP:$(node_ip "$n")"
        certificate "node$n" "/O=system:nodes/CN=system:node:node$n" ca clientAuth
        kubeconfig "node$n" >"node$n.conf"
    done
}
