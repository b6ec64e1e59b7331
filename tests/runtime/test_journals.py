"""What every journal promises its writer, its readers and its standby: in files, in memory, in NATS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exchange.runtime.journal import (
    FileJournal,
    Journal,
    JournalCorrupt,
    JournalError,
    JournalFenced,
    JournalRecordTooLarge,
    JournalTrimmed,
    MemoryJournal,
)
from exchange.runtime.journal import file as file_module
from exchange.runtime.journal import memory as memory_module
from exchange.runtime.journal import nats as nats_module
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.nats_servers import NatsServers

MACHINE = "shard-0"


@pytest.fixture(params=["file", "memory", "nats"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Journal]]:
    """Makes further objects for the same log."""
    made: list[Journal] = []
    shared = MemoryJournal(MACHINE)

    def make_another() -> Journal:
        journal: Journal = shared
        if request.param == "file":
            journal = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        elif request.param == "nats":
            servers: NatsServers = request.getfixturevalue("nats_servers")
            settings = servers.settings(prefix=tmp_path.name[:32])
            journal = NatsJournal.open(replace(settings, append_limit_s=1), MACHINE)
        made.append(journal)
        return journal

    yield make_another
    for journal in made:
        journal.close()


@pytest.fixture
def journal(make: Callable[[], Journal]) -> Journal:
    return make()


@pytest.fixture
def pair(make: Callable[[], Journal]) -> tuple[Journal, Journal]:
    return make(), make()


def append_all(journal: Journal, epoch: int, *payloads: bytes) -> None:
    for payload in payloads:
        journal.append(epoch, journal.last_sequence + 1, payload)


def payloads_of(journal: Journal, from_sequence: int = 1, to: int | None = None) -> list[bytes]:
    return [record.payload for record in journal.read(from_sequence, to)]


class TestEveryJournal:
    def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        assert journal.machine_name == MACHINE
        assert (journal.first_sequence, journal.last_sequence) == (1, 0)
        assert payloads_of(journal) == []
        assert journal.acquire() == 1
        assert (journal.first_sequence, journal.last_sequence) == (1, 0)
        assert payloads_of(journal) == []

    def test_records_are_read_as_they_were_appended(self, journal: Journal) -> None:
        epoch = journal.acquire()
        append_all(journal, epoch, b"one", b"", bytes(70_000))
        records = list(journal.read(1))
        assert [record.payload for record in records] == [b"one", b"", bytes(70_000)]
        assert [record.sequence for record in records] == [1, 2, 3]
        assert [record.epoch for record in records] == [epoch] * 3
        assert [record.previous_checksum for record in records] == [
            0,
            records[0].checksum,
            records[1].checksum,
        ]

    def test_a_range_is_read_with_both_ends(self, journal: Journal) -> None:
        append_all(journal, journal.acquire(), b"1", b"2", b"3", b"4")
        assert payloads_of(journal, 2, 3) == [b"2", b"3"]
        assert payloads_of(journal, 3, 2) == []
        assert payloads_of(journal, 4, 9) == [b"4"]
        assert payloads_of(journal, 5) == []

    def test_reading_beyond_the_next_record_says_that_records_are_missing(self, journal: Journal) -> None:
        append_all(journal, journal.acquire(), b"1", b"2")
        with pytest.raises(JournalCorrupt, match="ends before a record that was durable") as caught:
            payloads_of(journal, 5)
        assert (caught.value.sequence_expected, caught.value.sequence_found) == (4, 2)

    def test_reading_from_zero_is_a_mistake(self, journal: Journal) -> None:
        with pytest.raises(ValueError, match="expected 1 or more, was 0"):
            payloads_of(journal, 0)

    def test_only_the_current_epoch_and_the_next_sequence_are_taken(self, journal: Journal) -> None:
        with pytest.raises(JournalFenced):
            journal.append(0, 1, b"before acquire")
        epoch = journal.acquire()
        append_all(journal, epoch, b"1")
        for wrong_epoch, sequence in [(epoch - 1, 2), (epoch + 1, 2), (epoch, 1), (epoch, 3)]:
            with pytest.raises(JournalFenced):
                journal.append(wrong_epoch, sequence, b"no")
        append_all(journal, epoch, b"2")
        assert payloads_of(journal) == [b"1", b"2"]

    def test_a_record_over_the_limit_is_refused_and_the_next_is_taken(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_module, "PAYLOAD_BYTES_MAX", 10)
        monkeypatch.setattr(memory_module, "PAYLOAD_BYTES_MAX", 10)
        monkeypatch.setattr(nats_module, "PAYLOAD_BYTES_MAX", 10)
        epoch = journal.acquire()
        with pytest.raises(JournalRecordTooLarge):
            journal.append(epoch, 1, bytes(11))
        journal.append(epoch, 1, bytes(10))
        assert journal.last_sequence == 1

    def test_a_journal_that_is_well_can_be_reopened(self, journal: Journal) -> None:
        epoch = journal.acquire()
        epoch = journal.reopen()
        append_all(journal, epoch, b"1")
        epoch = journal.reopen()
        append_all(journal, epoch, b"2")
        assert payloads_of(journal) == [b"1", b"2"]

    def test_the_newest_record_survives_any_trim(self, journal: Journal) -> None:
        append_all(journal, journal.acquire(), b"1", b"2", b"3")
        journal.trim(100)
        assert payloads_of(journal, 3) == [b"3"]
        assert journal.last_sequence == 3

    def test_what_was_trimmed_is_said_and_the_rest_still_verifies(self, journal: Journal) -> None:
        append_all(journal, journal.acquire(), *[bytes([number]) * 300 for number in range(7)])
        journal.trim(5)
        first = journal.first_sequence
        assert 3 <= first <= 6
        with pytest.raises(JournalTrimmed) as caught:
            payloads_of(journal, 2)
        assert caught.value.first_sequence == first
        assert payloads_of(journal, first) == [bytes([number]) * 300 for number in range(first - 1, 7)]

    def test_epochs_rise_and_records_keep_those_they_were_written_in(self, journal: Journal) -> None:
        epochs = []
        for number in range(1, 4):
            epochs.append(journal.acquire())
            append_all(journal, epochs[-1], bytes([number]))
            journal.close()
        assert epochs == sorted(set(epochs))
        journal.acquire()
        assert [record.epoch for record in journal.read(1)] == epochs


class TestStandby:
    """Two objects, as two processes have them."""

    def test_it_gets_each_record_once_and_in_order(self, pair: tuple[Journal, Journal]) -> None:
        primary, standby = pair
        epoch = primary.acquire()
        at = 0
        for number in range(1, 8):
            append_all(primary, epoch, *[bytes([number])] * number)
            for record in standby.follow(at):
                at += 1
                assert record.sequence == at
        assert at >= primary.last_sequence - 1

    def test_it_takes_over_where_it_stood_and_reads_to_the_end(self, pair: tuple[Journal, Journal]) -> None:
        primary, standby = pair
        append_all(primary, primary.acquire(), b"1", b"2", b"3")
        seen = list(standby.follow(0))
        at = seen[-1].sequence
        assert list(standby.follow(at)) == []
        primary.close()
        epoch = standby.acquire()
        rest = list(standby.read(at + 1))
        assert [record.payload for record in seen + rest] == [b"1", b"2", b"3"]
        append_all(standby, epoch, b"4")
        assert payloads_of(standby, 3) == [b"3", b"4"]

    def test_it_sees_a_takeover_pass_by(self, pair: tuple[Journal, Journal]) -> None:
        primary, standby = pair
        append_all(primary, primary.acquire(), b"1", b"2")
        seen = list(standby.follow(0))
        primary.close()
        append_all(primary, primary.acquire(), b"3", b"4", b"5")
        seen += standby.follow(seen[-1].sequence)
        assert [record.payload for record in seen][:4] == [b"1", b"2", b"3", b"4"]

    def test_it_is_told_when_it_fell_behind_a_trim(self, pair: tuple[Journal, Journal]) -> None:
        primary, standby = pair
        append_all(primary, primary.acquire(), *[bytes(400)] * 9)
        primary.trim(6)
        with pytest.raises(JournalTrimmed):
            list(standby.follow(1))
        first = primary.first_sequence
        assert next(standby.follow(first - 1)).sequence == first

    def test_a_standby_ahead_of_the_log_is_told(self, pair: tuple[Journal, Journal]) -> None:
        primary, standby = pair
        append_all(primary, primary.acquire(), b"1")
        with pytest.raises(JournalCorrupt, match="ends before a record that was durable"):
            list(standby.follow(5))


def test_every_error_has_a_code_of_its_own() -> None:
    errors = JournalError.__subclasses__()
    assert len({error.code for error in errors}) == len(errors) == 7
    assert all(error.code.startswith("JOURNAL_") for error in errors)


def test_a_second_host_fences_the_first_in_memory() -> None:
    journal = MemoryJournal(MACHINE)
    old = journal.acquire()
    append_all(journal, old, b"1")
    new = journal.acquire()
    with pytest.raises(JournalFenced):
        journal.append(old, 2, b"zombie")
    append_all(journal, new, b"2")
    assert [record.epoch for record in journal.read(1)] == [old, new]


def test_memory_says_what_was_trimmed() -> None:
    journal = MemoryJournal(MACHINE)
    append_all(journal, journal.acquire(), b"1", b"2", b"3")
    journal.trim(2)
    assert journal.first_sequence == 3
    with pytest.raises(JournalTrimmed):
        payloads_of(journal, 2)
