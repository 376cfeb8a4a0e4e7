"""A demonstration that needs no cluster and no root: a small staging in namespaces, and a local service plugged into it.

`staging` is what runs there (service, database, DNS, clients), `local_service` is the version under development, run by
`sidestage exec`, and `story` tells it: what the local version saw, and what staging's clients saw of it (nothing).
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """The verb `sidestage demo`."""
    from sidestage.demo import story

    return story.main(argv)
