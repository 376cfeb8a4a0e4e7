"""The exchanges of a session as a HAR file, as its clients saw them."""

from __future__ import annotations

import os
import time
from typing import Any

from sidestage import __version__
from sidestage.exchange import har
from sidestage.exchange.model import Answer, Exchange


class HarFile:
    """Readable by its owner only; whole after each entry. Raises OSError."""

    def __init__(self, path: str, secrets: bool) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._secrets = secrets
        self._writer = har.Writer(self._fd, __version__)

    def keep(self, where: dict[str, Any], exchange: Exchange, answer: Answer) -> None:
        """`where` is the connection: {peer, local, ...}."""
        peer, local = (tuple(where[name]) for name in ("peer", "local"))
        self._writer.add(har.entry(exchange, answer, peer=peer, local=local, ended=time.monotonic(), keep=self._secrets))
