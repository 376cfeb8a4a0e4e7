"""From the configuration to the rules of names: session must know them before the program runs, and so before trap's policy."""

from __future__ import annotations

from collections.abc import Callable

from sidestage.cli.errors import UserError
from sidestage.config import Config
from sidestage.views import dns
from sidestage.views.outgoing import AddressFilter, FilterError

CURE = "correct the filter; docs/network.md shows all forms"


def name_rules(config: Config, say: Callable[[str], None]) -> tuple[dns.NameRules, bool]:
    """Who is asked for which name; and do connections depend on names? Raises UserError for a filter that can't be read."""
    network = config.feature.network
    chosen, outgoing = network.dns.filter, network.outgoing.filter
    try:
        there, here = (
            [one.name for one in map(AddressFilter.parse, side) if one.name] for side in (outgoing.remote, outgoing.local)
        )
    except FilterError as error:
        raise UserError(f"feature.network.outgoing.filter: {error}", CURE) from error
    if not network.dns.enabled:
        return dns.NameRules(), bool(there or here)
    try:
        found, notes = dns.rules(chosen.remote, chosen.local, there, here)
    except dns.NameFilterError as error:
        raise UserError(f"feature.network.dns.filter: {error}", CURE) from error
    for note in notes:
        say(note)
    return found, bool(there or here)
