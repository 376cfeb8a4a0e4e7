"""Errors of the protocol: whose fault it is, in the type's field."""

from __future__ import annotations


class ProtocolError(Exception):
    """`remote` is True when the peer broke the protocol, False when our own code did."""

    def __init__(self, text: str, remote: bool = True) -> None:
        super().__init__(text)
        self.remote = remote
