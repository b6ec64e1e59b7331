"""What the runtime asks of a machine, and how each machine's commands, results and state become bytes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol

from exchange.runtime.messages import Segment


class Applied(Protocol):
    @property
    def results(self) -> Sequence[Any]: ...
    @property
    def events(self) -> Sequence[Any]: ...


class Machine(Protocol):
    """A deterministic state machine. `sequence` counts its commands."""

    sequence: int
    time_ns: int

    def apply(self, time_ns: int, batch: Sequence[Any]) -> Applied:
        """Apply commands in order at one time."""
        ...

    def next_timer_ns(self) -> int | None:
        """When a tick is due next, or None."""
        ...


class MachineType(Protocol):
    """A kind of machine: how to make one, and its encodings. `version` changes whenever replay would differ."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def new(self) -> Machine: ...

    def decode(self, segment: Segment) -> list[Any]:
        """Return the commands of a segment; none if its data cannot be read."""
        ...

    def encode(self, segment: Segment, results: Sequence[Any]) -> bytes:
        """Return the answer to a segment, given the results of its commands."""
        ...

    def waits(self, results: Sequence[Any]) -> bool:
        """Whether events will tell what became of some of these commands."""
        ...

    def tick(self) -> Segment | None:
        """The segment that lets timers fire, if the machine has any."""
        ...

    def pack_state(self, machine: Any) -> bytes:
        """Return the whole state: equal ones, and no others, are the same bytes."""
        ...

    def unpack_state(self, data: bytes) -> Machine: ...

    def dump(self, machine: Any, epoch: int) -> bytes:
        """Return what a reader of the feed starts with."""
        ...

    def query(self, machine: Any, request: bytes) -> bytes:
        """Answer a question about the state."""
        ...

    def first_segment(self) -> Segment | None:
        """What the host journals first after every start, if anything."""
        ...


def state_hash(kind: MachineType, machine: Any) -> bytes:
    """Return the hash of a machine's whole state, of 16 bytes."""
    return hash_of(kind.pack_state(machine))


def hash_of(packed_state: bytes) -> bytes:
    """Return the hash of a state that was packed already."""
    return blake2b(packed_state, digest_size=16).digest()
