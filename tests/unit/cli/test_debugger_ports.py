"""Which ports of a command line are a debugger's own, and which are the program's."""

from __future__ import annotations

import pytest

from sidestage.cli.incoming import debugger_ports


@pytest.mark.parametrize(
    "command, ports",
    [
        ("node --inspect app.js", {9229}),
        ("node --inspect-brk=9333 app.js", {9333}),
        ("node --inspect=0.0.0.0:9333 app.js", {9333}),
        ("java -agentlib:jdwp=transport=dt_socket,server=n,suspend=y,address=localhost:40123 App", {40123}),
        ("java -agentlib:jdwp=transport=dt_socket,server=y,address=*:5005 -jar app.jar", {5005}),
        ("python -m debugpy --listen 5678 app.py", {5678}),
        ("/venv/python /x/site-packages/debugpy --connect 127.0.0.1:41231 --adapter-access-token t app.py", {41231}),
        ("/venv/python /x/debugpy/adapter/../../debugpy/launcher/../../debugpy --connect 127.0.0.1:41231 app.py", {41231}),
        ("python /x/pydevd.py --client 127.0.0.1 --port 45123 --file app.py", {45123}),
        ("/wrap/dlv dap --listen=127.0.0.1:38697 --log-dest=3", {38697}),
        ("dlv dap --client-addr=127.0.0.1:38697", {38697}),
        ("waitress-serve --listen=*:8080 app:app", set()),
        ("python app.py --port 8080 --listen 0.0.0.0:80", set()),
        ("node app.js --inspector", set()),
    ],
)
def test_ports(command: str, ports: set[int]) -> None:
    assert debugger_ports(command.split()) == ports
