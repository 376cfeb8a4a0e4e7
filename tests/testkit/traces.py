"""All that a session could leave behind in the cluster: objects of all kinds, and on each node processes, rules, sockets, mounts.

Not compared is what the cluster writes down or renews by itself: events, leases, status, versions, and a node's records of
containers that have ended, which kubelet clears once a minute, and its groups for a class of pods, made with the first of them.
"""

from __future__ import annotations

import json
from typing import Any

from tests.testkit.cluster import NODES, Cluster, eventually

OWN_RECORDS = {"events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses"}
# In the node's namespaces: all but the shell and its children; every network namespace by its name; -s: without counters.
NODE = """
ps -eo pid,ppid,args --no-headers | awk -v me=$$ '$1 != me && $2 != me { print "process", $0 }'
ctr -a STATE/NODE/run/containerd.sock -n k8s.io tasks ls -q | sed 's/^/container /'
find /sys/fs/cgroup/*/NAME/NODE /sys/fs/cgroup/NAME/NODE -type d 2>&- | grep -Ev '/(burstable|besteffort)$' | sed 's/^/cgroup /'
cut -d' ' -f4-5 /proc/1/mountinfo | sed 's/^/mount /'
for net in /proc/1/ns/net /run/netns/*; do
    enter="nsenter --net=$net"
    for what in 'nft -s list ruleset' 'ip -o link' 'ip -o addr' 'ip route' 'ip rule'; do
        $enter $what | sed "s|^|$net $what: |"
    done
    $enter ss -Hltu0x | awk -v net=$net '{ print net, "socket", $1, $2, $5, $6 }' # without the lengths of queues
done
"""


def objects(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Of the namespace, of the cluster itself and of its system; other namespaces are others' business."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    found: dict[str, str] = {}
    for item in cluster.get(",".join(kind for kind in kinds if kind not in OWN_RECORDS), "-A")["items"]:
        meta: dict[str, Any] = item["metadata"]
        place = meta.get("namespace", "")
        if place not in ("", namespace, "default", "kube-system") or item["kind"] in ("Namespace", "Node"):
            continue
        for volatile in ("resourceVersion", "managedFields"):
            meta.pop(volatile, None)
        status = item.pop("status", {})
        restarts = [container["restartCount"] for container in status.get("containerStatuses", [])]
        found[f"{item['kind']} {place}/{meta['name']}"] = json.dumps([item, restarts], sort_keys=True)
    return found


def traces(cluster: Cluster, namespace: str) -> set[str]:
    found = {f"{name} {content}" for name, content in objects(cluster, namespace).items()}
    # Not ours; but who comes or goes meanwhile is the reason for all else that differs, and should be read first.
    found |= {f"(namespace {item['metadata']['name']})" for item in cluster.get("namespaces")["items"]}
    for node in NODES:
        code = NODE.replace("STATE", str(cluster.state)).replace("NODE", node).replace("NAME", cluster.state.name)
        found |= {f"{node} {line}" for line in cluster.enter(node, "bash", "-c", code).splitlines()}
    return found


def settled(cluster: Cluster, namespace: str, seconds: float = 150) -> set[str]:
    """The traces when nothing changes any more of itself: others' namespaces are gone, not going; pods have started, not start."""
    last: set[str] = set()

    def calm() -> bool:
        nonlocal last
        before, last = last, traces(cluster, namespace)
        going = [item for item in cluster.get("namespaces")["items"] if item["status"]["phase"] == "Terminating"]
        return before == last and not going

    eventually("a calm cluster", calm, seconds)
    return last


def as_before(cluster: Cluster, namespace: str, before: set[str], seconds: float = 30) -> None:
    """Waits until nothing differs; else fails with what does."""
    differs: set[str] = set()

    def same() -> bool:
        nonlocal differs
        differs = traces(cluster, namespace) ^ before
        return not differs

    try:
        eventually("the cluster as it was before", same, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n" + "\n".join(line[:300] for line in sorted(differs)[:40])) from None
