"""Whatever fails, and wherever it crashes: what was acknowledged is there, and nothing else."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.runtime.journal import (
    FileJournal,
    JournalCorrupt,
    JournalLocked,
    JournalUnavailable,
)
from tests.runtime.filesystems import Crash, CrashingFilesystem, Trouble

DIRECTORY = Path("/journal")
SEGMENT_BYTES = 600


class Venue:
    """A machine that writes its journal, dies and comes back, and what it knows to be true."""

    def __init__(self, seed: int) -> None:
        self.filesystem = CrashingFilesystem(seed)
        self.acknowledged: list[bytes] = []
        self.in_doubt: bytes | None = None  # not acknowledged, but not surely absent either
        self.epoch = 0
        self.appends = 0
        self.trimmed = 0
        self.start()

    def start(self) -> None:
        """Acquire, again after every failure, and check what is there."""
        epoch = 0
        while not epoch:
            self.journal = FileJournal.open(
                DIRECTORY, "shard-0", segment_bytes=SEGMENT_BYTES, filesystem=self.filesystem
            )
            try:
                epoch = self.journal.acquire()
            except Crash:
                self.filesystem.cut_power()
            except JournalUnavailable:
                pass
        assert epoch > self.epoch
        self.epoch = epoch
        if self.journal.last_sequence > len(self.acknowledged):
            assert self.in_doubt is not None, "a record that surely was not written is there"
            self.acknowledged.append(self.in_doubt)
        self.in_doubt = None
        self.check()

    def check(self) -> None:
        """Everything acknowledged is there, byte for byte, from the oldest that is kept."""
        first = self.journal.first_sequence
        assert first <= self.trimmed + 1
        assert self.journal.last_sequence == len(self.acknowledged)
        records = list(self.journal.read(first))
        assert [record.payload for record in records] == self.acknowledged[first - 1 :]
        assert [record.sequence for record in records] == list(range(first, len(self.acknowledged) + 1))

    def append(self, size: int) -> None:
        self.appends += 1
        payload = b"%d:" % self.appends + bytes([self.appends % 256]) * size
        was_failed = self.journal.failure is not None
        try:
            self.journal.append(self.epoch, len(self.acknowledged) + 1, payload)
            assert not was_failed
            self.acknowledged.append(payload)
        except JournalUnavailable as error:
            if not error.surely_absent:
                self.in_doubt = payload
        except Crash:
            self.in_doubt = payload
            self.come_back(power_cut=True)

    def reopen(self) -> None:
        try:
            self.journal.reopen()
        except JournalUnavailable:
            return
        except Crash:
            self.come_back(power_cut=True)
            return
        self.in_doubt = None
        self.check()

    def trim(self, back: int) -> None:
        up_to = max(0, len(self.acknowledged) - back)
        self.trimmed = max(self.trimmed, up_to)
        try:
            self.journal.trim(up_to)
        except JournalUnavailable:
            return
        except Crash:
            self.come_back(power_cut=True)

    def come_back(self, *, power_cut: bool) -> None:
        if power_cut:
            self.filesystem.cut_power()
        else:
            self.filesystem.kill_processes()
        self.start()


Step = tuple[str, int]
STEPS = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([0, 1, 30, 100, 300, 700])),
    st.tuples(st.sampled_from(["append", "trim"]), st.integers(0, 8)),
    st.tuples(st.sampled_from(["reopen", "kill", "power cut", "hand over"]), st.just(0)),
)
TROUBLES = st.none() | st.tuples(st.sampled_from(Trouble), st.integers(0, 12), st.integers(1, 4))


def take(venue: Venue, step: Step) -> None:
    action, size = step
    match action:
        case "append":
            venue.append(size)
        case "trim":
            venue.trim(size)
        case "reopen":
            venue.reopen()
        case "kill":
            venue.come_back(power_cut=False)
        case "power cut":
            venue.come_back(power_cut=True)
        case "hand over":
            venue.journal.close()
            venue.start()


@settings(max_examples=1200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.tuples(STEPS, TROUBLES), max_size=30),
)
def test_acknowledged_records_survive_any_run_of_troubles(
    seed: int, steps: list[tuple[Step, tuple[Trouble, int, int] | None]]
) -> None:
    venue = Venue(seed)
    for step, trouble in steps:
        if trouble:
            with venue.filesystem.trouble(*trouble):
                take(venue, step)
        else:
            take(venue, step)
    venue.come_back(power_cut=True)


SCRIPT: list[Step] = [
    ("append", 100),
    ("append", 300),
    ("append", 250),
    ("append", 0),
    ("trim", 0),
    ("reopen", 0),
    ("append", 700),
    ("hand over", 0),
    ("append", 30),
    ("append", 500),
    ("reopen", 0),
    ("append", 10),
]


@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("ending", ["kill", "power cut"])
@pytest.mark.parametrize("lasting", [1, 3])
def test_acknowledged_records_survive_trouble_at_every_single_operation(
    trouble: Trouble, ending: str, lasting: int
) -> None:
    rehearsal = Venue(0)
    for step in SCRIPT:
        take(rehearsal, step)
    for operation in range(rehearsal.filesystem.operations + 10):
        for seed in range(4):
            venue = Venue(seed)
            with venue.filesystem.trouble(trouble, operation, lasting):
                for step in SCRIPT:
                    take(venue, step)
                    if venue.journal.failure and seed % 2:
                        take(venue, (ending, 0))
            take(venue, (ending, 0))
            venue.append(5)
            assert venue.journal.failure is None
            take(venue, ("power cut", 0))


@pytest.mark.parametrize("trouble", [Trouble.NO_SPACE, Trouble.IO_ERROR])
def test_trading_goes_on_once_the_storage_does(trouble: Trouble) -> None:
    for operation in range(12):
        for seed in range(12):
            venue = Venue(seed)
            venue.append(100)
            with venue.filesystem.trouble(trouble, operation):
                venue.append(500)
            venue.reopen()
            assert venue.journal.failure is None
            # Small enough for the segment that the failed record was too large for: a segment
            # that was begun for that one must not come back after the crash.
            venue.append(10)
            assert venue.acknowledged[-1].startswith(b"3:")
            venue.come_back(power_cut=True)


def make_log(filesystem: CrashingFilesystem) -> list[bytes]:
    """Write seven records in two segments; the records that a reader must find."""
    journal = FileJournal.open(DIRECTORY, "shard-0", segment_bytes=400, filesystem=filesystem)
    epoch = journal.acquire()
    payloads = [bytes([65 + number]) * (10 * number + 5) for number in range(7)]
    for number, payload in enumerate(payloads, start=1):
        journal.append(epoch, number, payload)
    journal.close()
    filesystem.settle()
    return payloads


def segments_of(filesystem: CrashingFilesystem) -> list[Path]:
    names = filesystem.list_directory(DIRECTORY)
    return [DIRECTORY / name for name in names if name.endswith(".journal")]


def test_a_flipped_bit_anywhere_is_damage_or_at_the_very_end_a_torn_tail() -> None:
    filesystem = CrashingFilesystem()
    last_record_bytes = 48 + len(make_log(filesystem)[-1])
    segments = segments_of(filesystem)
    assert len(segments) == 2
    for path in segments:
        size = len(filesystem.content(path))
        for byte in range(size):
            fresh = CrashingFilesystem(byte)
            payloads = make_log(fresh)
            fresh.content(path)[byte] ^= 1 << byte % 8
            fresh.settle()
            journal = FileJournal.open(DIRECTORY, "shard-0", filesystem=fresh)
            if path == segments[-1] and byte >= size - last_record_bytes:
                journal.acquire()
                assert journal.tail_cut
                assert journal.tail_cut.bytes_cut == last_record_bytes
                assert [record.payload for record in journal.read(1)] == payloads[:-1]
            else:
                with pytest.raises(JournalCorrupt) as caught:
                    read_all(journal)
                assert caught.value.file == str(path)
                assert caught.value.offset <= byte


def read_all(journal: FileJournal) -> None:
    journal.acquire()
    try:
        for _ in journal.read(1):
            pass
    finally:
        journal.close()


@settings(deadline=None, derandomize=True)
@given(noise=st.binary(min_size=1, max_size=300), zeros=st.integers(0, 300))
def test_bytes_after_the_end_that_are_no_record_are_a_torn_tail(noise: bytes, zeros: int) -> None:
    filesystem = CrashingFilesystem()
    payloads = make_log(filesystem)
    filesystem.content(segments_of(filesystem)[-1]).extend(noise + bytes(zeros))
    journal = FileJournal.open(DIRECTORY, "shard-0", filesystem=filesystem)
    journal.acquire()
    assert journal.tail_cut
    assert journal.tail_cut.bytes_cut == len(noise) + zeros
    assert [record.payload for record in journal.read(1)] == payloads


@pytest.mark.parametrize("seed", range(20))
def test_two_writers_never_hold_the_journal_at_once(seed: int) -> None:
    filesystem = CrashingFilesystem(seed)
    random = Random(seed)
    journals = [FileJournal.open(DIRECTORY, "shard-0", filesystem=filesystem) for _ in range(3)]
    holder: FileJournal | None = None
    epochs: list[int] = []
    for _ in range(50):
        journal = random.choice(journals)
        if journal is holder:
            journal.close()
            holder = None
        elif holder:
            with pytest.raises(JournalLocked):
                journal.acquire()
        else:
            epochs.append(journal.acquire())
            holder = journal
    assert epochs == list(range(1, len(epochs) + 1))
