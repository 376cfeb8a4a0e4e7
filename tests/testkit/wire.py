"""A connection to the API server that a test can make go bad: a port on loopback, and a kubeconfig that leads through it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.testkit.cluster import Cluster
from tests.testkit.toxic import Relay

SERVER = re.compile(r'server: "https://([0-9.]+):([0-9]+)"')


class Wire:
    """Every connection through it is a Relay; `toxic` holds for those there are and those to come."""

    def __init__(self, listener: socket.socket, to: tuple[str, int], kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._listener, self._to = listener, to
        self._relays: list[Relay] = []
        self._toxics: dict[str, float | bool] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def toxic(self, **toxics: float | bool) -> None:
        self._toxics |= toxics
        for relay in self._relays:
            for name, value in toxics.items():
                setattr(relay, name, value)

    def cut(self) -> None:
        for relay in self._relays:
            relay.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    relay = Relay(near, socket.create_connection(self._to, 10))
                except OSError:
                    near.close()
                    continue
                for name, value in self._toxics.items():
                    setattr(relay, name, value)
                self._relays.append(relay)


@contextlib.contextmanager
def wire(cluster: Cluster, folder: Path) -> Iterator[Wire]:
    text = cluster.kubeconfig.read_text()
    found = SERVER.search(text)
    assert found
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kubeconfig = folder / "through-the-wire.conf"
        port = listener.getsockname()[1]
        kubeconfig.write_text(SERVER.sub(f'server: "https://127.0.0.1:{port}"', text))
        made = Wire(listener, (found[1], int(found[2])), kubeconfig)
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            made.cut()
