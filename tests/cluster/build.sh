#!/bin/bash
# Builds `kubeall` (etcd, API server, controller manager, scheduler, kubelet, kube-proxy and CoreDNS in one binary, so that they
# share their 100 MB of libraries) and `kubectl` from Go modules, into the cache. Cold 5 to 10 min on two cores.
. "$(dirname "$0")/lib.sh"
[ ! -x "$BINARIES/kubectl" ] || exit 0
command -v go >/dev/null || die 'Go 1.26 or later is needed to build Kubernetes: https://go.dev/dl'

cd "$here/binaries"
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
minor=${version#v1.}
flags='-s -w'
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do # as hack/lib/version.sh of Kubernetes does
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
done
say "building Kubernetes $version, once: some minutes"
mkdir -p "$BINARIES.new"
CGO_ENABLED=0 nice -n 5 go build -buildvcs=false -trimpath -ldflags "$flags" -o "$BINARIES.new/" . ./kubectl
# kubectl last: a build cut short is seen
mkdir -p "$BINARIES"
mv -f "$BINARIES.new/kubeall" "$BINARIES.new/kubectl" "$BINARIES/"
rmdir "$BINARIES.new"
