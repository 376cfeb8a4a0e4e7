"""What a deployment depends on, asked by its usual clients: PostgreSQL by a headless name, Redis by a ClusterIP; DNS filters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.plug import plugged
from tests.matrix.test_databases import SQL
from tests.testkit.build import need
from tests.testkit.cluster import Cluster

REDIS = """
ask="redis-cli -h cache"
$ask flushall; $ask set key value; $ask get key; $ask incr n; $ask lpush list a b c; $ask lrange list 0 -1
for n in $(seq 500); do echo "set key-$n $(printf %0100d $n)"; done | $ask --pipe 2>&1 | tail -1
$ask dbsize; head -c 300000 /dev/zero | tr '\\0' x | $ask -x set big; $ask get big | md5sum
$ask nonsense; $ask -p 6380 ping 2>&1; echo status $?
(sleep 1; $ask publish news hello >/dev/null) & timeout 3 $ask subscribe news | cat
"""
PSQL = f"""
psql -X -q -h db -U app postgres <<'END' 2>&1
{SQL}
END
echo status $?; psql -h db -p 5433 -U app postgres 2>&1; echo status $?
"""
LOOK_UP = """
import socket
for name in ("ledger", "ledger-0.ledger", "catalog"):
    try: print(name, socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError: print(name, "unknown")
"""


@pytest.fixture(scope="module")
def shop(cluster: Cluster, namespace: str) -> str:
    cluster.apply(namespace, "shop", "databases")
    return namespace


@pytest.mark.parametrize("client, target, script", [("redis-cli", "cache", REDIS), ("psql", "db", PSQL)])
def test_a_client_is_answered_as_in_the_pod(client: str, target: str, script: str, cluster: Cluster, shop: str) -> None:
    need(client)
    inside = cluster.kubectl("exec", "-n", shop, f"deployment/{target}", "--", "sh", "-c", script)
    found = plugged(cluster, shop, f"deployment/{target}", ["sh", "-c", script])
    assert found.code == 0, found
    assert found.out == inside
    assert "status 1" in inside or "status 2" in inside, "the script refuses nothing"


@pytest.mark.parametrize("which, known", [("remote", {"ledger", "ledger-0.ledger"}), ("local", {"catalog"})])
def test_a_headless_service_by_a_filter_of_names(
    which: str, known: set[str], cluster: Cluster, shop: str, tmp_path: Path
) -> None:
    """Who is not the target's is asked for here, where nobody knows it."""
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps({"feature": {"network": {"dns": {"filter": {which: ["ledger", "ledger-0.ledger"]}}}}}))
    found = plugged(cluster, shop, "deployment/orders", ["python3", "-c", LOOK_UP], "-f", str(config))
    (ledger,) = cluster.pods(shop, "app=ledger")
    headless = ledger["status"]["podIP"]
    addresses = {"ledger": headless, "ledger-0.ledger": headless}
    addresses["catalog"] = cluster.get("service", "catalog", "-n", shop)["spec"]["clusterIP"]
    told = dict(line.split() for line in found.out.splitlines())
    assert told == {name: address if name in known else "unknown" for name, address in addresses.items()}, found
