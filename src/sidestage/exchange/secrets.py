"""Which headers and parameters carry secrets, going by their names; what is shared of an exchange leaves their values out."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote_plus

from sidestage.exchange.model import Headers

HIDDEN = "[redacted]"
_SECRET = re.compile(
    r"authorization|proxy-authorization|cookie|set-cookie|.*(token|secret|passw|api[-_]?key|credential|signature|session[-_]?id).*"
    r"|x-auth.*|auth|key|sig|code|jwt",
    re.IGNORECASE,
)


def secret(name: str) -> bool:
    return bool(_SECRET.fullmatch(name))


def headers(found: Headers) -> Headers:
    return [(name, HIDDEN if secret(name) else value) for name, value in found]


def path(found: str) -> str:
    """With its query."""
    front, mark, query = found.partition("?")
    if not mark or not any(secret(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        return found
    parts = (part.partition("=") for part in query.split("&"))
    shown = (f"{name}={quote_plus(HIDDEN)}" if secret(name) else name + mark + value for name, mark, value in parts)
    return f"{front}?{'&'.join(shown)}"
