"""An ASGI application for uvicorn; importing it says that the server is about to listen."""

from __future__ import annotations

from typing import Any

print("listening", flush=True)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    client = scope["client"][0].removeprefix("::ffff:")
    print(scope["path"], client, client, flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"local"})
