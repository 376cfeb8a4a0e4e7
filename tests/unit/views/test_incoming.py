"""Which listeners are plugged into the target."""

from __future__ import annotations

import pytest

from sidestage.views.incoming import IncomingRules


@pytest.mark.parametrize(
    ("rules", "host", "port", "want"),
    [
        (IncomingRules(), "0.0.0.0", 8080, True),
        (IncomingRules(), "127.0.0.1", 8080, True),
        (IncomingRules(), "::", 0, False),
        (IncomingRules(mode="off"), "::", 80, False),
        (IncomingRules(ignore_localhost=True), "127.0.0.1", 80, False),
        (IncomingRules(ignore_localhost=True), "0.0.0.0", 80, True),
        (IncomingRules(ports=frozenset({80})), "::", 81, False),
        (IncomingRules(ports=frozenset({80}), port_mapping={8080: 80}), "::", 8080, True),
        (IncomingRules(ignore_ports=frozenset({80}), port_mapping={8080: 80}), "::", 8080, False),
        (IncomingRules(debugger_ports=frozenset({5678})), "127.0.0.1", 5678, False),
    ],
)
def test_listen(rules: IncomingRules, host: str, port: int, want: bool) -> None:
    assert rules.listen(host, port) is want
