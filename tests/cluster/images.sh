#!/bin/bash
# Builds the images as archives in the cache, from Debian packages and sources of this folder only; no image registry.
#   pause    what holds a pod's namespaces
#   python   Debian with python3.11, curl, iproute2: the agent's image, and that of most services of staging.yaml
#   static   one static Go binary and nothing else: no shell, no Python, no libc
#   databases  Debian with a PostgreSQL and a Redis
. "$(dirname "$0")/lib.sh"
[ ! -s "$ARCHIVES/python.tar" ] || exit 0
say 'building the images, once: a minute'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$ARCHIVES"

image() { # NAME REFERENCE COMMAND... : from $work/NAME-rootfs.tar
    python3 "$here/images/mkimage.py" "$work/$1-rootfs.tar" "$work/$1.tar" "${@:2}"
    mv -f "$work/$1.tar" "$ARCHIVES/$1.tar"
}

mkdir "$work/pause" "$work/static"
gcc -Os -static -s -o "$work/pause/pause" "$here/images/pause.c"
(cd "$here/images/static" && CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$work/static/catalog" .)
for name in pause static; do
    tar -C "$work/$name" --owner=0 --group=0 --mtime=@0 -cf "$work/$name-rootfs.tar" .
done
image pause localhost/pause:1 /pause
image static localhost/static:1 /catalog

hidden=('--dpkgopt=path-exclude=/usr/lib/*/libLLVM*') # only PostgreSQL's JIT needs it
for unread in doc man locale info; do hidden+=("--dpkgopt=path-exclude=/usr/share/$unread/*"); done
debian() { # NAME PACKAGES
    mmdebstrap --quiet --mode=root --variant=essential --include="$2" "${hidden[@]}" \
        --essential-hook='mkdir -p "$1"/etc/postgresql-common; echo create_main_cluster=false >"$1"/etc/postgresql-common/createcluster.conf' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' bookworm "$work/$1-rootfs.tar"
}
debian databases postgresql-15,redis-server
image databases localhost/databases:1 true
debian python python3,curl,iproute2,procps,netcat-openbsd
image python localhost/python:3.11 python3
