"""A snapshot is whole or not there, and a damaged one falls back to the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.runtime.journal.filesystem import OsFilesystem
from exchange.runtime.snapshot import (
    Snapshot,
    SnapshotCorrupt,
    SnapshotStore,
    SnapshotUnavailable,
)
from tests.runtime.filesystems import Crash, CrashingFilesystem, Trouble


def snapshot_at(sequence: int, payload: bytes = b"books and balances") -> Snapshot:
    return Snapshot(
        sequence=sequence,
        epoch=2,
        machine_version=1,
        state_hash=bytes([sequence % 256]) * 32,
        payload=payload,
    )


def file_of(directory: Path, sequence: int) -> Path:
    return directory / f"{sequence:020d}-{2:020d}.snapshot"


def test_a_new_store_has_none(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "deep" / "down")
    assert store.latest() is None
    assert store.sequences == ()


@pytest.mark.parametrize("size", [0, 1, 70_000, 9_000_000])
def test_the_newest_is_read_as_it_was_written(tmp_path: Path, size: int) -> None:
    store = SnapshotStore(tmp_path)
    store.write(snapshot_at(10))
    newest = snapshot_at(25, b"x" * size)
    store.write(newest)
    assert SnapshotStore(tmp_path).latest() == newest
    assert store.damages == ()


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for sequence in (5, 900, 70, 1000):
        store.write(snapshot_at(sequence))
    assert store.sequences == (1000, 900)


def test_the_later_epoch_is_the_newer_of_two_at_one_sequence(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.write(Snapshot(7, 10, 1, b"h", b"later"))
    store.write(Snapshot(7, 9, 1, b"h", b"earlier"))
    latest = store.latest()
    assert latest
    assert latest.payload == b"later"


def test_any_flipped_bit_falls_back_to_the_older_and_is_reported(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    older, newer = snapshot_at(10), snapshot_at(20, b"abc")
    store.write(older)
    store.write(newer)
    path = file_of(tmp_path, 20)
    data = path.read_bytes()
    for byte in range(len(data)):
        damaged = bytearray(data)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        assert store.latest() == older
        assert [(damage.file, damage.sequence) for damage in store.damages] == [(str(path), 20)]
    path.write_bytes(data)
    assert store.latest() == newer
    assert store.damages == ()


def test_any_cut_falls_back_to_the_older(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.write(snapshot_at(10))
    store.write(snapshot_at(20, b"abc"))
    path = file_of(tmp_path, 20)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert store.latest() == snapshot_at(10)


def test_a_file_under_a_wrong_name_is_passed_over(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.write(snapshot_at(10))
    file_of(tmp_path, 30).write_bytes(file_of(tmp_path, 10).read_bytes())
    assert store.latest() == snapshot_at(10)
    assert [damage.reason for damage in store.damages] == ["the file has a wrong name"]


def test_if_none_verifies_it_says_so(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for sequence in (10, 20):
        store.write(snapshot_at(sequence))
        file_of(tmp_path, sequence).write_bytes(b"")
    with pytest.raises(SnapshotCorrupt, match="found none") as caught:
        store.latest()
    assert [damage.sequence for damage in caught.value.damages] == [20, 10]


@pytest.mark.parametrize("trouble", Trouble)
def test_trouble_at_any_operation_leaves_the_last_or_the_new_snapshot(trouble: Trouble) -> None:
    directory = Path("/snapshots")
    for operation in range(16):
        for seed in range(10):
            filesystem = CrashingFilesystem(seed)
            store = SnapshotStore(directory, filesystem)
            for sequence in (1, 2, 3):
                store.write(snapshot_at(sequence))
            completed = False
            with filesystem.trouble(trouble, operation):
                try:
                    store.write(snapshot_at(4, bytes(300)))
                    completed = True
                except (Crash, SnapshotUnavailable):
                    pass
            filesystem.cut_power()
            again = SnapshotStore(directory, filesystem)
            latest = again.latest()
            assert latest in (
                {snapshot_at(4, bytes(300))} if completed else {snapshot_at(3), snapshot_at(4, bytes(300))}
            )
            assert again.damages == ()
            again.write(snapshot_at(5))
            filesystem.cut_power()
            assert SnapshotStore(directory, filesystem).latest() == snapshot_at(5)
            assert len(filesystem.list_directory(directory)) <= 5


def test_a_failing_disk_is_reported_and_the_last_snapshot_stays() -> None:
    filesystem = CrashingFilesystem()
    store = SnapshotStore(Path("/snapshots"), filesystem)
    store.write(snapshot_at(1))
    with (
        filesystem.trouble(Trouble.NO_SPACE, 2),
        pytest.raises(SnapshotUnavailable, match="No space left on device"),
    ):
        store.write(snapshot_at(2))
    assert store.latest() == snapshot_at(1)
    store.write(snapshot_at(3))
    assert store.latest() == snapshot_at(3)


def test_one_that_is_pruned_while_it_is_looked_at_is_no_loss(tmp_path: Path) -> None:
    writer = SnapshotStore(tmp_path)
    writer.write(snapshot_at(1))

    class Interrupted(OsFilesystem):
        """The writer goes on between listing and reading."""

        def list_directory(self, path: Path) -> list[str]:
            names = super().list_directory(path)
            if not writer.sequences[0] > 1:
                for sequence in (2, 3):
                    writer.write(snapshot_at(sequence))
            return names

    assert SnapshotStore(tmp_path, Interrupted()).latest() == snapshot_at(3)
