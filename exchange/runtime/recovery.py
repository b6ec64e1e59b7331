"""Bringing a machine back: newest snapshot, then the journal; and writing the next snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exchange.runtime.feed import Feed, FeedBatch
from exchange.runtime.journal import Journal
from exchange.runtime.machine import Machine, MachineType
from exchange.runtime.messages import RecordPayload, ReplyStatus, SegmentReply, pack, unpack, unpack_record
from exchange.runtime.snapshot import Snapshot, SnapshotStore

FEED_COMMANDS_IN_SNAPSHOT_MAX = 20_000
"""So that readers who were a little behind go on without a gap after a restart."""


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


@dataclass(slots=True)
class Recovered:
    """A machine with what its host keeps beside it. `record` is the journal's record that it stands at."""

    machine: Machine
    record: int = 0
    epoch: int = 0
    links: dict[str, LinkState] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    replayed_commands: int = 0


def apply_record(
    kind: MachineType,
    at: Recovered,
    record: int,
    epoch: int,
    payload: RecordPayload,
    decoded: list[list[list[Any]]] | None = None,
) -> list[bytes]:
    """Apply a record to the machine, publish its events, remember and return the packed replies to its batches.

    The same function serves live commands and replay. `decoded`: the commands by batch and segment, if the caller has
    them already.
    """
    machine = at.machine
    first_sequence = machine.sequence + 1
    if decoded is None:
        decoded = [[kind.decode(segment) for segment in batch.segments] for batch in payload.batches]
    applied = machine.apply(payload.time_ns, [c for batch in decoded for commands in batch for c in commands])
    results = applied.results
    start = 0
    answers = []
    for batch, commands_of in zip(payload.batches, decoded, strict=True):
        replies = []
        for segment, commands in zip(batch.segments, commands_of, strict=True):
            end = start + len(commands)
            data = kind.encode(segment, results[start:end])
            replies.append(SegmentReply(int(ReplyStatus.DONE), 0, data))
            start = end
        answer = pack(replies)
        answers.append(answer)
        if batch.link:
            at.links[batch.link] = LinkState(batch.incarnation, batch.n, answer)
    if machine.sequence >= first_sequence:
        events = list(applied.events)
        at.feed.publish(FeedBatch(epoch, first_sequence, machine.sequence, machine.time_ns, events))
    at.record, at.epoch = record, epoch
    return answers


def recover(
    kind: MachineType, journal: Journal, snapshots: SnapshotStore, *, to_record: int | None = None
) -> Recovered:
    """Return the machine as the newest good snapshot and the journal after it, up to `to_record`, make it.

    Raises:
        JournalCorrupt, JournalTrimmed, SnapshotCorrupt: what is stored is damaged or has a hole.
        MachineVersionMismatch, StateHashMismatch: the snapshot is not of this build.
    """
    snapshot = snapshots.latest()
    recovered = Recovered(kind.new()) if snapshot is None else _load(kind, snapshot)
    commands_before = recovered.machine.sequence
    for record in journal.read(recovered.record + 1, to_record):
        apply_record(kind, recovered, record.sequence, record.epoch, unpack_record(record.payload))
    recovered.replayed_commands = recovered.machine.sequence - commands_before
    return recovered


def take_snapshot(kind: MachineType, at: Recovered, snapshots: SnapshotStore) -> Snapshot:
    """Write the state down; afterwards the journal may be trimmed up to the older snapshot."""
    links = [(name, *link) for name, link in at.links.items()]
    tail = at.feed.tail(FEED_COMMANDS_IN_SNAPSHOT_MAX)
    payload = pack((kind.pack_state(at.machine), links, tail))
    snapshot = Snapshot(at.record, at.epoch, kind.version, kind.state_hash(at.machine), payload)
    snapshots.write(snapshot)
    return snapshot


def _load(kind: MachineType, snapshot: Snapshot) -> Recovered:
    if snapshot.machine_version != kind.version:
        raise MachineVersionMismatch(
            f"expected a snapshot of version {kind.version} of the {kind.name} machine, was "
            f"{snapshot.machine_version}: hand over with the old build, or restore its snapshot"
        )
    state, links, tail = unpack(snapshot.payload)
    machine = kind.unpack_state(state)
    found = kind.state_hash(machine)
    if found != snapshot.state_hash:
        raise StateHashMismatch(
            f"the snapshot at record {snapshot.sequence} says its state has hash {snapshot.state_hash.hex()}, "
            f"restored it has {found.hex()}"
        )
    return Recovered(
        machine,
        snapshot.sequence,
        snapshot.epoch,
        {name: LinkState(*link) for name, *link in links},
        Feed.resume(list(tail), machine.sequence),
    )
