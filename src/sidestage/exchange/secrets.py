"""Which headers, parameters and variables carry secrets, by their names; what is shared of an exchange leaves their values out."""

from __future__ import annotations

import re

from sidestage.exchange.model import Headers

HIDDEN = "[redacted]"
_SECRET = re.compile(
    r"authoriz|auth(?!or|enticate)|cookie|token|secret|(?<!by)pass(?!port|ive)|credential|private|signature"
    r"|(?:api|access)[-_]?key|session[-_]?id|\A(?:key|sig|code|jwt)\Z",
    re.IGNORECASE,
)


def secret(name: str) -> bool:
    return bool(_SECRET.search(name))


def headers(found: Headers) -> Headers:
    return [(name, HIDDEN if secret(name) else value) for name, value in found]


def path(found: str) -> str:
    """With its query."""
    from urllib.parse import parse_qsl, quote_plus  # dear, and a session that shows nothing needs it not

    front, mark, query = found.partition("?")
    if not mark or not any(secret(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        return found
    parts = (part.partition("=") for part in query.split("&"))
    shown = (f"{name}={quote_plus(HIDDEN)}" if secret(name) else name + mark + value for name, mark, value in parts)
    return f"{front}?{'&'.join(shown)}"
