"""A machine comes back as it was, or says that it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exchange.engine.commands import AddInstrument, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import Stage
from exchange.runtime import recovery
from exchange.runtime.aside import Aside
from exchange.runtime.codec import ShardType
from exchange.runtime.journal import FileJournal
from exchange.runtime.machine import MachineType, state_hash
from exchange.runtime.recovery import Recovered, StateHashMismatch, load_latest, recover, take_snapshot
from exchange.runtime.snapshot import Snapshot, SnapshotStore

INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)
KIND: MachineType = ShardType()


class Stored:
    """What is on disk: an empty journal, and a snapshot of a shard with some orders."""

    def __init__(self, directory: Path) -> None:
        self.journal = FileJournal.open(directory / "journal", "shard-0")
        self.journal.acquire()
        self.snapshots = SnapshotStore(directory / "snapshots")
        at = Recovered(KIND.new())
        at.machine.apply(1, [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN))])
        at.machine.apply(2, [PlaceOrder(1, f"o{n}", "BTC-USDT", 1, 1, 1, 100 + n, 5) for n in range(50)])
        self.snapshot = take_snapshot(KIND, at, self.snapshots)

    def spoil(self) -> None:
        """Have the snapshot claim another hash than its state has."""
        self.snapshots.write(replace(self.snapshot, state_hash=bytes(len(self.snapshot.state_hash))))


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


@pytest.fixture(params=["here", "aside"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a restored state is hashed."""
    monkeypatch.setattr(recovery, "HASHED_ASIDE_BYTES", 0 if request.param == "aside" else 1 << 40)
    return str(request.param)


@pytest.mark.usefixtures("where")
def test_a_state_that_has_the_hash_of_its_snapshot_is_taken(stored: Stored) -> None:
    recovered = recover(KIND, stored.journal, stored.snapshots)
    assert state_hash(KIND, recovered.machine) == stored.snapshot.state_hash == recovered.hashed.digest


@pytest.mark.usefixtures("where")
def test_a_state_that_has_another_hash_is_refused(stored: Stored) -> None:
    stored.spoil()
    with pytest.raises(StateHashMismatch, match="says its state has hash 0000"):
        recover(KIND, stored.journal, stored.snapshots)


def test_a_standby_refuses_it_before_it_follows(stored: Stored) -> None:
    stored.spoil()
    with pytest.raises(StateHashMismatch):
        load_latest(KIND, stored.snapshots)


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_hash_that_the_child_does_not_bring_is_taken_here(
    stored: Stored, spoilt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "HASHED_ASIDE_BYTES", 0)
    if spoilt:
        stored.spoil()
    begun: list[Aside] = []

    class Killed(Aside):
        def result(self, timeout_s: float) -> bytes:
            begun.append(self)
            self.kill()
            return super().result(timeout_s) and b""

    monkeypatch.setattr(recovery, "Aside", Killed)
    if spoilt:
        with pytest.raises(StateHashMismatch):
            recover(KIND, stored.journal, stored.snapshots)
    else:
        recover(KIND, stored.journal, stored.snapshots)
    assert begun


def test_a_journal_that_cannot_be_read_ends_the_hashing_too(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "HASHED_ASIDE_BYTES", 0)
    abandoned: list[Aside] = []

    class Watched(Aside):
        def abandon(self) -> None:
            super().abandon()
            abandoned.append(self)

    monkeypatch.setattr(recovery, "Aside", Watched)
    monkeypatch.setattr(FileJournal, "read", lambda *_: iter([None]))
    with pytest.raises(AttributeError):
        recover(KIND, stored.journal, stored.snapshots)
    assert len(abandoned) == 1


def test_a_snapshot_of_another_version_is_refused(stored: Stored) -> None:
    older: Snapshot = replace(stored.snapshot, machine_version=KIND.version - 1)
    stored.snapshots.write(older)
    with pytest.raises(recovery.MachineVersionMismatch, match=f"expected a snapshot of version {KIND.version}"):
        recover(KIND, stored.journal, stored.snapshots)
