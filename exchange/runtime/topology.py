"""Where everything is, as the active supervisor tells it to whoever calls others."""

from __future__ import annotations

from typing import NamedTuple

from exchange.runtime.messages import pack, unpack


class Topology(NamedTuple):
    """`version` is the supervisor's incarnation and a count, so that what an earlier supervisor says late is older.

    `machines`: by name the incarnation of the primary (0: away) and that of its standby (0: none).
    """

    version: tuple[int, int]
    supervisor: str
    machines: dict[str, tuple[int, int]]

    def pack(self) -> bytes:
        return pack(tuple(self))

    def is_newer_than(self, other: Topology | None) -> bool:
        return other is None or self.version > other.version


def unpack_topology(data: bytes) -> Topology:
    """Return what `Topology.pack` packed."""
    return Topology(*unpack(data))
