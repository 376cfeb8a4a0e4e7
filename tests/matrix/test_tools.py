"""Small tools of every day, those of busybox with musl's or glibc's resolver among them."""

from __future__ import annotations

import pytest

from tests.testkit.build import need
from tests.testkit.target import Target, same

TOOLS = {
    "curl": "curl -sS http://orders.staging.internal:8080/{a,b,c}; curl -sS -w '%{http_code} %{remote_ip}' db:7999 >&1; echo $?; "
    "curl -sS -o /dev/null -w '%{remote_ip} %{local_ip}' 10.77.0.10:8080",
    "curl, parallel": "curl -sS -Z --parallel-max 20 'http://10.77.0.10:8080/[1-60]' | sort | md5sum",
    "curl, six": "curl -sS -g 'http://[fd77::10]:8080/six'; curl -sS --interface 10.77.0.10 http://10.77.0.10:8080/bound",
    "dig": "dig +short db.staging.internal; dig +tcp +short db.staging.internal; "
    "dig +short orders.staging.internal db.staging.internal",
    "dig, no such name": "dig nowhere.staging.internal | grep -E 'status|flags' | sed 's/id: [0-9]*//'",
    "dig, by name of the server": "dig +short @10.77.0.2 db.staging.internal; dig +short -b 10.77.0.10 db.staging.internal",
    "getent": "getent hosts db; getent ahostsv4 db.staging.internal; getent hosts orders-7f9c; getent hosts nowhere; echo $?",
    "host": "hostname; uname -n; cat /etc/hosts /etc/resolv.conf",
    "busybox": "busybox hostname; busybox cat /srv/config.txt; busybox ls -l /srv/folder; "
    "busybox stat -c %s /srv/big; busybox uname -n",
    "busybox wget": "busybox wget -q -O - http://10.77.0.10:8080/busybox; "
    "busybox wget -O - http://10.77.0.20:7999/ 2>&1; echo $?",
    "busybox nc": "echo hello | busybox nc -w 2 10.77.0.20 7002",
    "busybox nslookup": "busybox nslookup -type=a db.staging.internal 10.77.0.2 2>&1; "
    "busybox nslookup -type=a nowhere.staging.internal 2>&1; echo $?",
    "busybox find": "busybox find /srv | sort; busybox grep -r remote /srv/config.txt; busybox md5sum /srv/big",
    "bash": "exec 3<>/dev/tcp/db.staging.internal/7002; "
    "read line <&3; echo $line; echo me >&3; cat <&3; echo >/dev/udp/10.77.0.20/7000",
    "perl": "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); "
    "connect(S, sockaddr_in(7002, inet_aton(\"db.staging.internal\"))) or die; "
    "print scalar <S>; open F, \"/srv/config.txt\"; print <F>; print((stat \"/srv/big\")[7], \"\\n\")'",
    "pipes": "cat /srv/big | gzip | gunzip | wc -c; "
    "tar cf - /srv/folder 2>/dev/null | tar tf -; xargs -n1 cat </srv/folder/a 2>&1 | wc -l",
}  # fmt: skip


@pytest.mark.parametrize("name", TOOLS)
def test_tool(staging: Target, name: str) -> None:
    need({"bash": "bash", "host": "hostname", "pipes": "gzip"}.get(name, TOOLS[name].split()[0]))
    same(staging, ["bash", "-c", TOOLS[name]])
