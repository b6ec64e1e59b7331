"""A torn tail is cut, damage is reported and nothing is cut; each at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.runtime.journal import FileJournal, JournalCorrupt
from exchange.runtime.journal.record import HEADER_BYTES, encode, machine_identity

MACHINE = "shard-0"


def append_all(journal: FileJournal, epoch: int, *payloads: bytes) -> None:
    for payload in payloads:
        journal.append(epoch, journal.last_sequence + 1, payload)


def payloads_of(journal: FileJournal, from_sequence: int = 1) -> list[bytes]:
    return [record.payload for record in journal.read(from_sequence)]


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    journal = FileJournal.open(tmp_path, MACHINE)
    append_all(journal, journal.acquire(), b"first " * 10, b"second " * 10, b"third " * 10)
    journal.close()
    return tmp_path / f"{1:020d}.journal"


def reacquire(segment: Path) -> FileJournal:
    journal = FileJournal.open(segment.parent, MACHINE)
    journal.acquire()
    return journal


@pytest.mark.parametrize("kept", [1, 47, 48, 60, 107])
def test_a_record_cut_short_is_cut_away_and_reported(segment: Path, kept: int) -> None:
    data = segment.read_bytes()
    third = len(data) - HEADER_BYTES - 60
    segment.write_bytes(data[: third + kept])
    journal = reacquire(segment)
    assert journal.tail_cut
    assert (journal.tail_cut.offset, journal.tail_cut.bytes_cut) == (third, kept)
    assert journal.tail_cut.file == str(segment)
    assert segment.read_bytes() == data[:third]
    append_all(journal, 2, b"third again")
    assert payloads_of(journal, 3) == [b"third again"]


def test_zeros_where_the_last_record_was_are_cut_away(segment: Path) -> None:
    data = segment.read_bytes()
    segment.write_bytes(data[:-108] + bytes(108))
    assert reacquire(segment).last_sequence == 2


def test_zeros_where_an_earlier_record_was_are_damage(segment: Path) -> None:
    data = segment.read_bytes()
    segment.write_bytes(data[:-226] + bytes(118) + data[-108:])
    with pytest.raises(JournalCorrupt, match="another record") as caught:
        reacquire(segment)
    assert caught.value.offset == len(data) - 226
    assert caught.value.sequence_expected == 2
    assert segment.stat().st_size == len(data), "nothing may be cut"


def test_damage_before_a_torn_tail_is_still_damage(segment: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[-200] ^= 1
    segment.write_bytes(data[:-20])
    with pytest.raises(JournalCorrupt, match="another record"):
        reacquire(segment)


def test_bytes_put_in_between_are_damage(segment: Path) -> None:
    data = segment.read_bytes()
    segment.write_bytes(data[:-108] + b"noise" + data[-108:])
    with pytest.raises(JournalCorrupt, match="another record"):
        reacquire(segment)


def test_bytes_lost_in_between_are_damage(segment: Path) -> None:
    data = segment.read_bytes()
    segment.write_bytes(data[:-226] + data[-108:])
    with pytest.raises(JournalCorrupt, match="gap") as caught:
        reacquire(segment)
    assert (caught.value.sequence_expected, caught.value.sequence_found) == (2, 3)


def test_a_sound_record_from_another_history_is_damage(segment: Path) -> None:
    with segment.open("ab") as file:
        file.write(encode(machine_identity(MACHINE), 1, 4, 0xBAD, b"from elsewhere"))
    with pytest.raises(JournalCorrupt, match="does not go on from the one before"):
        reacquire(segment)


def test_a_record_of_an_older_epoch_is_damage(segment: Path) -> None:
    journal = reacquire(segment)
    append_all(journal, 2, b"fourth")
    checksum = next(journal.read(4)).checksum
    journal.close()
    with segment.open("ab") as file:
        file.write(encode(machine_identity(MACHINE), 1, 5, checksum, b"zombie"))
    with pytest.raises(JournalCorrupt, match="epoch goes back from 2 to 1"):
        reacquire(segment)


def test_a_torn_record_that_carries_a_record_in_its_payload_is_a_torn_tail(segment: Path) -> None:
    data = segment.read_bytes()
    forged = encode(machine_identity(MACHINE), 1, 9, 0, b"made by a client")
    journal = reacquire(segment)
    checksum = next(journal.read(3)).checksum
    journal.close()
    torn = encode(machine_identity(MACHINE), 1, 4, checksum, forged + bytes(100))
    for written in (torn[:-1], torn[:-50] + bytes(50 - 1) + b"x"):
        segment.write_bytes(data + written)
        journal = reacquire(segment)
        assert journal.last_sequence == 3
        journal.close()


def test_damage_in_a_segment_that_is_not_the_last_is_never_cut(tmp_path: Path) -> None:
    journal = FileJournal.open(tmp_path, MACHINE, segment_bytes=200)
    append_all(journal, journal.acquire(), bytes(100), bytes(100))
    journal.close()
    first = tmp_path / f"{1:020d}.journal"
    first.write_bytes(first.read_bytes()[:-1])
    journal.acquire()
    with pytest.raises(JournalCorrupt, match="a later segment follows"):
        payloads_of(journal)
