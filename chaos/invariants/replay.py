"""The history of a machine: its journal, read by us and applied by the engine, command by command.

What clients were told is compared with what this replay says; what the replay says is compared with `book.Books`, and
its hashes with those that snapshots, primaries and standbys told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from chaos.invariants.commands import LATE, Command, read_record, read_segment
from chaos.invariants.findings import Findings
from chaos.invariants.journal_file import RawRecord
from chaos.invariants.naive_shard import NaiveShard
from exchange.runtime.codec import ShardType
from exchange.runtime.machine import MachineType, state_hash
from exchange.runtime.messages import Segment
from exchange.runtime.rows import ControlType, LedgerType

KINDS: Mapping[str, MachineType] = {kind.name: kind for kind in (ShardType(), LedgerType(), ControlType())}
LOOK_EVERY_COMMANDS = 25_000
_TELL = ("shard", "ledger")
"""The kinds whose events say what they did."""
_sequence_of = itemgetter(1)


class Step(NamedTuple):
    """One command of the history."""

    sequence: int
    epoch: int
    time_ns: int
    command: Command
    result: Any
    events: list[tuple[Any, ...]]
    place: str


class HashClaim(NamedTuple):
    """That the state after the command `sequence`, or after the record `record`, had a hash; `source` said so."""

    digest: str
    source: str
    sequence: int = 0
    record: int = 0


class _Naive:
    """The naive shard beside the engine's, while it is fast enough: it takes nothing on trust, money neither."""

    def __init__(self, commands_max: int) -> None:
        self._shard = NaiveShard()
        self._commands_max = commands_max

    def compare(self, time_ns: int, commands: Sequence[Any], applied: Any, place: str, findings: Findings) -> bool:
        """Apply the same; return whether to go on."""
        if self._shard.sequence + len(commands) > self._commands_max:
            return False
        before = self._shard.sequence
        results, events = self._shard.apply(time_ns, commands)
        findings.check("I5 commands that the naive shard did as well", len(commands))
        if (results, events) == (applied.results, applied.events):
            return True
        ours = [*zip(commands, results, applied.results, strict=True)]
        differing = [f"{command}: expected {a}, found {b}" for command, a, b in ours if a != b][:3]
        others = [f"event: expected {a}, found {b}" for a, b in zip(events, applied.events, strict=False) if a != b][:3]
        summary = f"after command {before} the naive shard does something else"
        findings.violate("I5", summary, place, *differing, *others)
        return False


def replay(
    machine: str,
    kind: MachineType,
    records: Iterable[RawRecord],
    claims: Iterable[HashClaim],
    findings: Findings,
    naive_commands_max: int = 0,
    look: Callable[[bytes, str], None] | None = None,
) -> Iterator[Step]:
    """Yield every command of a machine in order. Checks I6, and that no batch of a link is there twice (I2).

    The first `naive_commands_max` commands of a shard are done by the naive one, too. `look` is shown the packed state
    and its place now and then and at the end, after all commands up to it were yielded.
    """
    state = kind.new()
    naive = _Naive(naive_commands_max) if kind.name == "shard" else None
    by_sequence: Mapping[int, set[HashClaim]] = defaultdict(set)
    by_record: Mapping[int, set[HashClaim]] = defaultdict(set)
    for claim in claims:
        (by_record[claim.record] if claim.record else by_sequence[claim.sequence]).add(claim)
    stamps: dict[str, tuple[int, int]] = {}
    of_shard = kind.name == "shard"
    has_events = kind.name in _TELL
    next_look, place = LOOK_EVERY_COMMANDS, f"{machine}: no record"
    for record in records:
        time_ns, batches = read_record(record.payload)
        ours: list[Command] = []
        theirs: list[Any] = []
        for batch in batches:
            _check_stamp(machine, batch.link, (batch.incarnation, batch.n), stamps, record, findings)
            for segment in batch.segments:
                read = read_segment(segment, of_shard=of_shard)
                decoded = kind.decode(Segment(*segment)) if segment[0] != LATE else []
                if len(read) != len(decoded):
                    summary = f"{machine}: the engine reads {len(decoded)} commands where the bytes have {len(read)}"
                    findings.violate("I1", summary, record.place)
                    return
                ours += read
                theirs += decoded
        before = state.sequence
        applied = state.apply(time_ns, theirs)
        if naive is not None and not naive.compare(time_ns, theirs, applied, record.place, findings):
            naive = None
        events = (
            {sequence: list(rows) for sequence, rows in groupby(applied.events, _sequence_of)} if has_events else {}
        )
        for sequence, (command, result) in enumerate(zip(ours, applied.results, strict=True), before + 1):
            told = events.get(sequence, [])
            yield Step(sequence, record.epoch, time_ns, command, result, told, record.place)
        claimed = by_record.pop(record.sequence, set()) | by_sequence.pop(state.sequence, set())  # type: ignore[attr-defined]
        if claimed:
            digest = state_hash(kind, state).hex()
            for claim in sorted(claimed):
                findings.check("I6 hashes that were told")
                if claim.digest != digest:
                    summary = (
                        f"{machine}: after command {state.sequence} replay gives {digest}, told was {claim.digest}"
                    )
                    findings.violate("I6", summary, claim.source, record.place)
        findings.check(f"I7 records of {machine}")
        place = record.place
        if look is not None and state.sequence >= next_look:
            next_look = state.sequence + LOOK_EVERY_COMMANDS
            look(kind.pack_state(state), place)
    if look is not None and state.sequence:
        look(kind.pack_state(state), place)
    findings.check(f"I7 commands of {machine}", state.sequence)
    for claims_left in (*by_record.values(), *by_sequence.values()):
        for claim in claims_left:
            at = f"record {claim.record}" if claim.record else f"command {claim.sequence}"
            if claim.record or claim.sequence:
                findings.violate("I6", f"{machine}: a hash was told at {at}, where no record ends", claim.source)


def _check_stamp(
    machine: str,
    link: str,
    stamp: tuple[int, int],
    stamps: dict[str, tuple[int, int]],
    record: RawRecord,
    findings: Findings,
) -> None:
    """A link sends a batch again until it has an answer: in the journal it may be once, and in order."""
    if not link:
        return
    before = stamps.get(link, (0, 0))
    if stamp <= before:
        summary = f"{machine}: the batch {stamp[0]}.{stamp[1]} of {link} is there after {before[0]}.{before[1]}"
        findings.violate("I2", summary, record.place)
    stamps[link] = max(stamp, before)
    findings.check("I2 batches of links")
