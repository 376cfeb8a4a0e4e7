# Builds dockerd, docker and runc of the pinned modules into the folder $1. Cold some 3 min on two cores.
flags='-s -w'
nice -n 5 go build -buildvcs=false -trimpath -tags seccomp -ldflags "$flags" -o "$1/" github.com/opencontainers/runc
export CGO_ENABLED=0
# Its module says nothing of a language, so that it would be that of Go 1.16
nice -n 5 go build -buildvcs=false -trimpath -gcflags 'github.com/docker/cli/...=-lang=go1.26' -ldflags "$flags" \
    -o "$1/" github.com/docker/cli/cmd/docker
nice -n 5 go build -buildvcs=false -trimpath -tags exclude_graphdriver_btrfs -ldflags "$flags" -o "$1/" github.com/moby/moby/v2/cmd/dockerd
