"""A WSGI application for gunicorn; importing it says that a worker is about to serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

print("listening", flush=True)


def app(environ: dict[str, Any], start: Callable[..., object]) -> list[bytes]:
    client = environ["REMOTE_ADDR"].removeprefix("::ffff:")
    print(environ["PATH_INFO"], client, client, flush=True)
    start("200 OK", [])
    return [b"local"]
