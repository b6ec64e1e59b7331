"""Where the machines are, as a supervisor tells everybody."""

from __future__ import annotations

from typing import NamedTuple

from exchange.runtime.messages import pack, unpack


class Hosts(NamedTuple):
    """The incarnations that host a machine; 0: there is none."""

    primary: int
    standby: int = 0


class Topology(NamedTuple):
    """`version` is (incarnation of the supervisor, its count of changes): what a replaced supervisor says comes late.

    `supervisor` is the name of the actor to ask.
    """

    version: tuple[int, int]
    supervisor: str
    machines: dict[str, Hosts]

    def is_newer_than(self, version: tuple[int, int]) -> bool:
        return self.version > version

    def pack(self) -> bytes:
        return pack(self._asdict())

    @classmethod
    def unpack(cls, data: bytes) -> Topology:
        fields = unpack(data)
        incarnation, count = fields["version"]
        machines = {machine: Hosts(*hosts) for machine, hosts in fields["machines"].items()}
        return cls((incarnation, count), fields["supervisor"], machines)
