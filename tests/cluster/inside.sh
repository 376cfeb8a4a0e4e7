#!/bin/bash
# `./run cluster` for a cluster that is up: status, paths, kubectl ARGS..., enter NODE [COMMAND...]
. "$(dirname "$0")/lib.sh"
verb=$1
shift
case $verb in
    status)
        [ -e "$STATE/up" ] || die 'not up: ./run cluster up'
        "$KUBECTL" get nodes -o wide
        say "for kubectl and sidestage: export KUBECONFIG=$KUBECONFIG"
        ;;
    paths) printf '%s\n' "$KUBECTL" "$KUBECONFIG" "$STATE" ;; # for the tests
    kubectl) exec "$KUBECTL" "$@" ;;
    enter) # a node's namespaces, all of them
        init=$(node_init "${1#node}")
        [ -n "$init" ] || die "no such node: ${1:-}; nodes are: ${NODES[*]}"
        shift
        [ $# -gt 0 ] || set -- bash
        exec nsenter --target "$init" --all -- "$@"
        ;;
    *) die "no such verb: $verb; there are: up, down, status, kubectl, enter" ;;
esac
