"""Which experiments a suite has."""

from __future__ import annotations

from collections import Counter

from chaos.experiment import library
from chaos.experiment.library import Source

ALL, INCIDENTS = "all", "incidents"


class SuiteEmpty(LookupError):
    """No experiment is in a suite: a gate that checks nothing must not let anything through."""

    code = "SUITE_EMPTY"


def suite_of(name: str) -> list[Source]:
    """Return the shipped experiments of a suite: `all`, `incidents`, or a tag such as `ci`. Raises `SuiteEmpty`."""
    sources = [library.read(path) for path in library.shipped().values()]
    chosen = [
        source
        for source in sources
        if name == ALL or (name == INCIDENTS and source.is_incident) or name in source.experiment.tags
    ]
    if not chosen:
        tags = sorted(Counter(tag for source in sources for tag in source.experiment.tags))
        raise SuiteEmpty(f"expected {ALL}, {INCIDENTS} or a tag ({', '.join(tags)}), found no experiment in {name!r}")
    return chosen
