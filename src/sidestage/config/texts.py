"""Texts of a configuration that mean more than themselves: can they be read?

What a filter means is the views' matter (views/outgoing.py, views/dns.py); they are asked, so that a mistake is told with file,
line and key by whatever reads the configuration, not by a session that starts.
"""

from __future__ import annotations

import re

from sidestage.config.schema import Address, Name, Pattern

_NAMED = re.compile(r"(\\.)|\(\?<(?![=!])", re.DOTALL)


def python_pattern(text: str) -> str:
    """`(?<name>...)`, as Rust and JavaScript have it, is `(?P<name>...)` in Python."""
    return _NAMED.sub(lambda found: found[1] or "(?P<", text)


def readable(kind: type[str], text: str) -> str:
    """The text as `kind`, for Python. Raises ValueError."""
    if kind is Pattern:
        try:
            re.compile(found := python_pattern(text))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {text!r}: {error}") from None
        return found
    if kind is Address:
        from sidestage.views.outgoing import AddressFilter

        AddressFilter.parse(text)
    elif kind is Name:
        from sidestage.views.dns import NameFilter

        NameFilter.parse(text)
    return text
