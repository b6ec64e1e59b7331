"""Bringing a machine back: newest snapshot, then the journal; and writing the next snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exchange.engine.words import RejectReason
from exchange.runtime.aside import Aside, AsideFailed
from exchange.runtime.collector import collector_off
from exchange.runtime.feed import Feed, FeedBatch
from exchange.runtime.journal import Journal, Record
from exchange.runtime.machine import Machine, MachineType, hash_of, state_hash
from exchange.runtime.messages import (
    RecordPayload,
    ReplyStatus,
    SegmentKind,
    SegmentReply,
    pack,
    unpack,
    unpack_record,
)
from exchange.runtime.snapshot import Snapshot, SnapshotStore

FEED_COMMANDS_IN_SNAPSHOT_MAX = 20_000
"""So that readers who were a little behind go on without a gap after a restart."""
HASHED_ASIDE_BYTES = 4_000_000
"""A state from this size on is hashed by a process of its own: below, the fork costs what it saves."""
HASH_TIMEOUT_S = 120.0

_REFUSED = {
    int(SegmentKind.LATE): RejectReason.DEADLINE_EXCEEDED,
    int(SegmentKind.SHED): RejectReason.QUEUE_FULL,
}


class MachineVersionMismatch(Exception):
    """The snapshot was taken by another version of the machine."""

    code = "MACHINE_VERSION_MISMATCH"


class StateHashMismatch(Exception):
    """A restored state is not the one that was saved: the build differs, or the snapshot is not what it says."""

    code = "STATE_HASH_MISMATCH"


class LinkState(NamedTuple):
    """The last batch of a link that was applied, and what was answered."""

    incarnation: int
    n: int
    replies: bytes


class StateHash(NamedTuple):
    """The hash of a machine's whole state right after the command `sequence` (0 and b"": none was taken yet)."""

    sequence: int = 0
    digest: bytes = b""


@dataclass(slots=True)
class Recovered:
    """A machine with what its host keeps beside it. `record` is the journal's record that it stands at.

    `hashed` is of the newest snapshot: to hash what the machine is now would read all of it.
    """

    machine: Machine
    record: int = 0
    epoch: int = 0
    links: dict[str, LinkState] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    replayed_commands: int = 0
    hashed: StateHash = field(default_factory=StateHash)


def apply_record(
    kind: MachineType,
    at: Recovered,
    record: int,
    epoch: int,
    payload: RecordPayload,
    decoded: list[list[list[Any]]] | None = None,
) -> Sequence[Any]:
    """Apply a record to the machine and publish its events; return the results of its commands in order.

    The same function serves live commands and replay. Readers of the feed are woken by its `settle`. `decoded`: the
    commands by batch and segment, if the caller has them already.
    """
    machine = at.machine
    first_sequence = machine.sequence + 1
    if decoded is None:
        decoded = decode_record(kind, payload)
    applied = machine.apply(payload.time_ns, [c for batch in decoded for commands in batch for c in commands])
    if machine.sequence >= first_sequence:
        events = list(applied.events)
        at.feed.publish(FeedBatch(epoch, first_sequence, machine.sequence, machine.time_ns, events))
    at.record, at.epoch = record, epoch
    return applied.results


def decode_record(kind: MachineType, payload: RecordPayload) -> list[list[list[Any]]]:
    """Return a record's commands by batch and segment."""
    return [[kind.decode(segment) for segment in batch.segments] for batch in payload.batches]


def answer_record(
    kind: MachineType, at: Recovered, payload: RecordPayload, decoded: list[list[list[Any]]], results: Sequence[Any]
) -> list[bytes]:
    """Return the packed replies to a record's batches, and remember them for links that send a batch again."""
    start = 0
    answers = []
    for batch, commands_of in zip(payload.batches, decoded, strict=True):
        replies = []
        for segment, commands in zip(batch.segments, commands_of, strict=True):
            refusal = _REFUSED.get(segment.kind)
            if refusal is not None:
                replies.append(SegmentReply(int(ReplyStatus.REFUSED), int(refusal), b""))
                continue
            end = start + len(commands)
            results_of = results[start:end]
            status = ReplyStatus.PARKED if kind.waits(results_of) else ReplyStatus.DONE
            replies.append(SegmentReply(int(status), 0, kind.encode(segment, results_of)))
            start = end
        answer = pack(replies)
        answers.append(answer)
        if batch.link:
            at.links[batch.link] = LinkState(batch.incarnation, batch.n, answer)
    return answers


def recover(
    kind: MachineType, journal: Journal, snapshots: SnapshotStore, *, to_record: int | None = None
) -> Recovered:
    """Return the machine as the newest good snapshot and the journal after it, up to `to_record`, make it.

    Raises:
        JournalCorrupt, JournalTrimmed, SnapshotCorrupt: what is stored is damaged or has a hole.
        MachineVersionMismatch, StateHashMismatch: the snapshot is not of this build.
    """
    with collector_off():
        snapshot = snapshots.latest()
        recovered = Recovered(kind.new()) if snapshot is None else _restore(kind, snapshot)
        commands_before = recovered.machine.sequence
        replay = Replay(kind, recovered)
        with nullcontext() if snapshot is None else _checking(kind, recovered.machine, snapshot):
            for record in journal.read(recovered.record + 1, to_record):
                replay.apply(record)
    replay.settle()
    recovered.replayed_commands = recovered.machine.sequence - commands_before
    return recovered


class Replay:
    """Applies records that were written before, or by another. `settle` answers the last batch of each link."""

    def __init__(self, kind: MachineType, at: Recovered) -> None:
        self.at = at
        self._kind = kind
        self._last_of_link: dict[str, tuple[RecordPayload, list[list[list[Any]]], Sequence[Any]]] = {}

    def apply(self, record: Record) -> None:
        payload = unpack_record(record.payload)
        decoded = decode_record(self._kind, payload)
        results = apply_record(self._kind, self.at, record.sequence, record.epoch, payload, decoded)
        for batch in payload.batches:
            if batch.link:
                self._last_of_link[batch.link] = payload, decoded, results

    def settle(self) -> None:
        """Make the answers that links may ask for again."""
        for payload, decoded, results in self._last_of_link.values():
            before = dict(self.at.links)
            answer_record(self._kind, self.at, payload, decoded, results)
            for batch in payload.batches:
                known = before.get(batch.link)
                if known is not None and (known.incarnation, known.n) > (batch.incarnation, batch.n):
                    self.at.links[batch.link] = known
        self._last_of_link.clear()


def take_snapshot(kind: MachineType, at: Recovered, snapshots: SnapshotStore) -> Snapshot:
    """Write the state down; afterwards the journal may be trimmed up to the older snapshot."""
    links = [(name, *link) for name, link in at.links.items()]
    tail = at.feed.tail(FEED_COMMANDS_IN_SNAPSHOT_MAX)
    state = kind.pack_state(at.machine)
    payload = pack((state, links, tail, at.feed.checksum))
    snapshot = Snapshot(at.record, at.epoch, kind.version, hash_of(state), payload)
    snapshots.write(snapshot)
    at.hashed = StateHash(at.machine.sequence, snapshot.state_hash)
    return snapshot


def load_latest(kind: MachineType, snapshots: SnapshotStore) -> Recovered:
    """Return the machine as the newest good snapshot has it, or a new one. Raises as `recover` does."""
    snapshot = snapshots.latest()
    if snapshot is None:
        return Recovered(kind.new())
    with collector_off():
        recovered = _restore(kind, snapshot)
        _check(state_hash(kind, recovered.machine), snapshot)
    return recovered


def _restore(kind: MachineType, snapshot: Snapshot) -> Recovered:
    if snapshot.machine_version != kind.version:
        raise MachineVersionMismatch(
            f"expected a snapshot of version {kind.version} of the {kind.name} machine, was "
            f"{snapshot.machine_version}: hand over with the old build, or restore its snapshot"
        )
    state, links, tail, checksum = unpack(snapshot.payload)
    machine = kind.unpack_state(state)
    return Recovered(
        machine,
        snapshot.sequence,
        snapshot.epoch,
        {name: LinkState(*link) for name, *link in links},
        Feed.resume(list(tail), machine.sequence, checksum),
        hashed=StateHash(machine.sequence, snapshot.state_hash),
    )


def _check(found: bytes, snapshot: Snapshot) -> None:
    if found != snapshot.state_hash:
        raise StateHashMismatch(
            f"the snapshot at record {snapshot.sequence} says its state has hash {snapshot.state_hash.hex()}, "
            f"restored it has {found.hex()}"
        )


@contextmanager
def _checking(kind: MachineType, machine: Machine, snapshot: Snapshot) -> Iterator[None]:
    """Hash a machine as it was just restored, and at the end raise `StateHashMismatch` if the snapshot says otherwise.

    To hash a large state takes as long as to restore it, so a forked process does it while the journal is replayed.
    """
    aside = _hash_aside(kind, machine) if len(snapshot.payload) >= HASHED_ASIDE_BYTES else None
    found = b"" if aside is not None else state_hash(kind, machine)
    try:
        yield
    except BaseException:
        if aside is not None:
            aside.abandon()
        raise
    if aside is not None:
        try:
            found = aside.result(HASH_TIMEOUT_S)
        except AsideFailed:
            found = state_hash(kind, _restore(kind, snapshot).machine)
    _check(found, snapshot)


def _hash_aside(kind: MachineType, machine: Machine) -> Aside | None:
    try:
        return Aside(lambda: state_hash(kind, machine))
    except AsideFailed:
        return None
