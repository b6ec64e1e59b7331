"""The journal in files: taking over, segments, following, and storage that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from exchange.runtime.journal import (
    FileJournal,
    Journal,
    JournalCorrupt,
    JournalFenced,
    JournalLocked,
    JournalTrimmed,
    JournalUnavailable,
)
from exchange.runtime.journal.filesystem import OsFilesystem, write_all
from exchange.runtime.journal.record import encode, machine_identity
from tests.runtime.filesystems import CrashingFilesystem, Trouble

MACHINE = "shard-0"


def append_all(journal: Journal, epoch: int, *payloads: bytes) -> None:
    for payload in payloads:
        journal.append(epoch, journal.last_sequence + 1, payload)


def payloads_of(journal: Journal, from_sequence: int = 1, to: int | None = None) -> list[bytes]:
    return [record.payload for record in journal.read(from_sequence, to)]


class TestTakingOver:
    def test_epochs_rise_with_each_writer_even_if_it_wrote_nothing(self, tmp_path: Path) -> None:
        for expected in range(1, 6):
            journal = FileJournal.open(tmp_path, MACHINE)
            assert journal.acquire() == expected
            journal.close()

    def test_a_new_writer_goes_on_after_the_old_one(self, tmp_path: Path) -> None:
        first = FileJournal.open(tmp_path, MACHINE)
        append_all(first, first.acquire(), b"1", b"2")
        first.close()
        second = FileJournal.open(tmp_path, MACHINE)
        append_all(second, second.acquire(), b"3")
        assert [(record.epoch, record.payload) for record in second.read(1)] == [
            (1, b"1"),
            (1, b"2"),
            (2, b"3"),
        ]
        assert second.tail_cut is None

    def test_a_journal_that_was_closed_is_fenced(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path, MACHINE)
        epoch = journal.acquire()
        journal.close()
        journal.close()
        with pytest.raises(JournalFenced):
            journal.append(epoch, 1, b"late")

    def test_a_lock_that_is_held_names_its_process(self, tmp_path: Path) -> None:
        holder = FileJournal.open(tmp_path, MACHINE)
        holder.acquire()
        for contender in (holder, FileJournal.open(tmp_path, MACHINE)):
            with pytest.raises(JournalLocked) as caught:
                contender.acquire()
            assert caught.value.holder_pid == os.getpid()
        holder.append(1, 1, b"still the writer")

    def test_the_lock_of_another_process_is_free_once_it_is_killed(self, tmp_path: Path) -> None:
        program = (
            "import sys; from exchange.runtime.journal import FileJournal\n"
            f"journal = FileJournal.open({str(tmp_path)!r}, {MACHINE!r})\n"
            "journal.append(journal.acquire(), 1, b'from the other process')\n"
            "print('held', flush=True); sys.stdin.read()\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"held\n"
            journal = FileJournal.open(tmp_path, MACHINE)
            with pytest.raises(JournalLocked) as caught:
                journal.acquire()
            assert caught.value.holder_pid == other.pid
            other.kill()
            other.wait()
        assert journal.acquire() == 2
        assert payloads_of(journal) == [b"from the other process"]

    def test_a_paused_process_keeps_the_journal_until_it_is_killed_and_writes_nothing_after(
        self, tmp_path: Path
    ) -> None:
        program = (
            "from exchange.runtime.journal import FileJournal\n"
            f"journal = FileJournal.open({str(tmp_path)!r}, {MACHINE!r})\n"
            "epoch = journal.acquire()\n"
            "while True:\n"
            "    journal.append(epoch, journal.last_sequence + 1, b'zombie')\n"
            "    print('wrote', flush=True)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as zombie:
            assert zombie.stdout
            assert zombie.stdout.readline() == b"wrote\n"
            zombie.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, zombie.pid, os.WSTOPPED | os.WNOWAIT)
            journal = FileJournal.open(tmp_path, MACHINE)
            with pytest.raises(JournalLocked) as caught:
                journal.acquire()
            assert caught.value.holder_pid == zombie.pid
            # Ending it is final: it does not come to write again, although it is never resumed.
            zombie.kill()
            zombie.wait()
            epoch = journal.acquire()
            last = journal.last_sequence
            append_all(journal, epoch, b"successor")
            assert payloads_of(journal) == [b"zombie"] * last + [b"successor"]

    def test_a_journal_of_another_machine_is_refused(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path, "shard-1")
        append_all(journal, journal.acquire(), b"1")
        journal.close()
        stranger = FileJournal.open(tmp_path, MACHINE)
        with pytest.raises(JournalCorrupt, match="directory is the right one"):
            stranger.acquire()
        with pytest.raises(JournalCorrupt, match="directory is the right one"):
            payloads_of(stranger)

    @pytest.mark.parametrize("name", ["", "a/b", "..", "ä", "x" * 65])
    def test_a_machine_name_that_could_not_be_a_file_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match="machine name"):
            FileJournal.open(tmp_path, name)


class TestSegments:
    def test_a_full_segment_is_followed_by_one_named_by_its_first_record(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path / "deep" / "down", MACHINE, segment_bytes=1000)
        append_all(journal, journal.acquire(), *[bytes([number]) * 300 for number in range(7)])
        names = sorted(path.name for path in (tmp_path / "deep" / "down").glob("*.journal"))
        assert names == [f"{first:020d}.journal" for first in (1, 3, 5, 7)]
        assert payloads_of(journal) == [bytes([number]) * 300 for number in range(7)]
        assert payloads_of(journal, 4, 5) == [bytes([3]) * 300, bytes([4]) * 300]

    def test_a_record_larger_than_a_segment_has_one_for_itself(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path, MACHINE, segment_bytes=100)
        append_all(journal, journal.acquire(), bytes(500), bytes(500))
        assert payloads_of(journal) == [bytes(500)] * 2
        assert len(list(tmp_path.glob("*.journal"))) == 2

    def test_trim_deletes_whole_segments_and_the_rest_still_verifies(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        payloads = [bytes([number]) * 300 for number in range(7)]
        epoch = journal.acquire()
        append_all(journal, epoch, *payloads)
        journal.trim(3)
        assert journal.first_sequence == 3
        journal.trim(4)
        assert journal.first_sequence == 5
        with pytest.raises(JournalTrimmed) as caught:
            payloads_of(journal, 4)
        assert caught.value.first_sequence == 5
        assert payloads_of(journal, 5) == payloads[4:]
        journal.close()
        again = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        append_all(again, again.acquire(), b"more")
        assert payloads_of(again, 5) == [*payloads[4:], b"more"]

    def test_a_missing_segment_is_found(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        append_all(journal, journal.acquire(), *[bytes(300)] * 7)
        journal.close()
        (tmp_path / f"{3:020d}.journal").unlink()
        with pytest.raises(JournalCorrupt, match="records are missing") as caught:
            payloads_of(journal)
        assert (caught.value.sequence_expected, caught.value.sequence_found) == (3, 5)

    def test_a_missing_last_segment_is_found_if_an_epoch_began_after_it(self, tmp_path: Path) -> None:
        journal = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        append_all(journal, journal.acquire(), *[bytes(300)] * 3)
        journal.close()
        journal.acquire()
        journal.close()
        (tmp_path / f"{3:020d}.journal").unlink()
        with pytest.raises(JournalCorrupt, match="ends before a record that was durable"):
            journal.acquire()

    @pytest.mark.parametrize("damage", [b"", b"evenkeel-epoch-1 shard-0 0 0 00000000\n", b"\xff"])
    def test_a_damaged_epoch_file_is_found(self, tmp_path: Path, damage: bytes) -> None:
        journal = FileJournal.open(tmp_path, MACHINE)
        append_all(journal, journal.acquire(), b"1")
        journal.close()
        (tmp_path / "epoch").write_bytes(damage)
        with pytest.raises(JournalCorrupt, match="epoch file does not match"):
            journal.acquire()
        (tmp_path / "epoch").unlink()
        with pytest.raises(JournalCorrupt, match="epoch file is missing"):
            journal.acquire()


class TestFollowing:
    def test_a_follower_reads_on_where_it_stopped(self, tmp_path: Path) -> None:
        writer = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        follower = FileJournal.open(tmp_path, MACHINE)
        epoch = writer.acquire()
        expected: list[bytes] = []
        seen: list[bytes] = []
        for number in range(1, 30):
            expected.append(bytes([number]) * 200)
            append_all(writer, epoch, expected[-1])
            if number % 3:
                seen += payloads_of(follower, len(seen) + 1)
                assert seen == expected
            writer.trim(number - 10)
        assert follower.last_sequence == writer.last_sequence

    def test_a_follower_reads_only_what_is_new(self, tmp_path: Path) -> None:
        class Counting(OsFilesystem):
            reads = 0

            def read(self, descriptor: int, size: int, offset: int) -> bytes:
                data = super().read(descriptor, size, offset)
                self.reads += len(data)
                return data

        writer = FileJournal.open(tmp_path, MACHINE)
        counting = Counting()
        follower = FileJournal.open(tmp_path, MACHINE, filesystem=counting)
        epoch = writer.acquire()
        append_all(writer, epoch, bytes(500_000))
        assert len(payloads_of(follower)) == 1
        append_all(writer, epoch, b"new")
        counting.reads = 0
        assert payloads_of(follower, 2) == [b"new"]
        assert counting.reads < 200

    def test_a_follower_meets_the_end_while_a_record_is_being_written(self, tmp_path: Path) -> None:
        writer = FileJournal.open(tmp_path, MACHINE)
        append_all(writer, writer.acquire(), b"1")
        follower = FileJournal.open(tmp_path, MACHINE)
        segment = tmp_path / f"{1:020d}.journal"
        with segment.open("ab") as file:
            file.write(encode(machine_identity(MACHINE), 1, 2, 0, b"half")[:20])
        assert payloads_of(follower) == [b"1"]
        assert follower.last_sequence == 1

    def test_the_newest_record_is_held_back_because_it_may_be_taken_back(self) -> None:
        filesystem = CrashingFilesystem(3)
        directory = Path("/journal")
        writer = FileJournal.open(directory, MACHINE, filesystem=filesystem)
        epoch = writer.acquire()
        append_all(writer, epoch, b"1")
        standby = FileJournal.open(directory, MACHINE, filesystem=filesystem)
        path = directory / f"{1:020d}.journal"
        size = len(filesystem.content(path))
        filesystem.content(path).extend(
            encode(machine_identity(MACHINE), epoch, 2, next(writer.read(1)).checksum, b"no")
        )
        assert [record.payload for record in standby.follow(0)] == [b"1"]
        assert [record.payload for record in standby.follow(1)] == []
        del filesystem.content(path)[size:]
        append_all(writer, epoch, b"2!", b"3!")
        assert [record.payload for record in standby.follow(1)] == [b"2!"]

    def test_a_standby_that_polls_in_vain_reads_nothing(self, tmp_path: Path) -> None:
        class Counting(OsFilesystem):
            reads = 0

            def read(self, descriptor: int, size: int, offset: int) -> bytes:
                self.reads += 1
                return super().read(descriptor, size, offset)

        writer = FileJournal.open(tmp_path, MACHINE, segment_bytes=1000)
        counting = Counting()
        standby = FileJournal.open(tmp_path, MACHINE, filesystem=counting)
        append_all(writer, writer.acquire(), *[bytes(300)] * 5)
        assert [record.sequence for record in standby.follow(0)] == [1, 2, 3, 4]
        counting.reads = 0
        assert list(standby.follow(4)) == []
        assert counting.reads == 0

    def test_a_record_that_is_finished_while_it_is_read_is_no_damage(self, tmp_path: Path) -> None:
        segment = tmp_path / f"{1:020d}.journal"
        writer = FileJournal.open(tmp_path, MACHINE)
        append_all(writer, writer.acquire(), b"1", b"2" * 100, b"3")
        finished = segment.read_bytes()
        start = finished.index(b"2" * 100)

        class Racing(OsFilesystem):
            def read(self, descriptor: int, size: int, offset: int) -> bytes:
                if offset >= start:  # the search for a later record
                    segment.write_bytes(finished)
                return super().read(descriptor, size, offset)

        segment.write_bytes(finished[: start + 10] + bytes(90))
        follower = FileJournal.open(tmp_path, MACHINE, filesystem=Racing())
        assert payloads_of(follower) == [b"1", b"2" * 100, b"3"]

    def test_a_follower_that_fell_behind_a_trim_is_told(self, tmp_path: Path) -> None:
        writer = FileJournal.open(tmp_path, MACHINE, segment_bytes=200)
        follower = FileJournal.open(tmp_path, MACHINE)
        append_all(writer, writer.acquire(), *[bytes(150)] * 5)
        assert len(payloads_of(follower, 1, 2)) == 2
        writer.trim(2)
        assert len(payloads_of(follower, 3, 3)) == 1
        writer.trim(4)
        with pytest.raises(JournalTrimmed):
            payloads_of(follower, 4)

    def test_a_follower_that_read_a_record_which_was_taken_back_is_told(self) -> None:
        filesystem = CrashingFilesystem(3)
        directory = Path("/journal")
        writer = FileJournal.open(directory, MACHINE, filesystem=filesystem)
        epoch = writer.acquire()
        append_all(writer, epoch, b"1")
        follower = FileJournal.open(directory, MACHINE, filesystem=filesystem)
        path = directory / f"{1:020d}.journal"
        size = len(filesystem.content(path))
        checksum = next(follower.read(1)).checksum
        taken_back = encode(machine_identity(MACHINE), epoch, 2, checksum, b"no")
        filesystem.content(path).extend(taken_back)
        assert payloads_of(follower) == [b"1", b"no"]
        del filesystem.content(path)[size:]
        append_all(writer, epoch, b"2!", b"3!")
        with pytest.raises(JournalCorrupt, match="does not go on"):
            payloads_of(follower, 3)


class TestFailingStorage:
    @pytest.fixture
    def filesystem(self) -> CrashingFilesystem:
        return CrashingFilesystem(1)

    @pytest.fixture
    def make(self, filesystem: CrashingFilesystem) -> Callable[[], FileJournal]:
        return lambda: FileJournal.open(Path("/journal"), MACHINE, filesystem=filesystem)

    def test_after_a_failed_write_everything_is_refused_until_reopen(
        self, filesystem: CrashingFilesystem, make: Callable[[], FileJournal]
    ) -> None:
        journal = make()
        epoch = journal.acquire()
        append_all(journal, epoch, b"1")
        with (
            filesystem.trouble(Trouble.NO_SPACE, 0),
            pytest.raises(JournalUnavailable, match="No space left on device") as caught,
        ):
            journal.append(epoch, 2, bytes(500))
        assert caught.value.surely_absent
        assert journal.failure
        assert payloads_of(journal) == [b"1"]
        with pytest.raises(JournalUnavailable, match="call reopen"):
            journal.append(epoch, 2, b"too early")
        journal.reopen()
        journal.append(epoch, 2, b"2")
        assert payloads_of(journal) == [b"1", b"2"]

    def test_a_record_whose_cut_failed_too_is_in_doubt_until_reopen(
        self, make: Callable[[], FileJournal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = make()
        epoch = journal.acquire()

        def fail(*_: object) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(CrashingFilesystem, "sync", fail)
            with pytest.raises(JournalUnavailable) as caught:
                journal.append(epoch, 1, b"in doubt")
            assert not caught.value.surely_absent
            assert caught.value.errno == 5
            with pytest.raises(JournalUnavailable) as reopening:
                journal.reopen()
            assert not reopening.value.surely_absent
        journal.reopen()
        assert journal.last_sequence == 0
        journal.append(epoch, 1, b"another")
        assert payloads_of(journal) == [b"another"]

    def test_an_append_that_is_interrupted_leaves_the_journal_failed(
        self, make: Callable[[], FileJournal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = make()
        epoch = journal.acquire()

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(CrashingFilesystem, "sync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                journal.append(epoch, 1, b"interrupted")
        with pytest.raises(JournalUnavailable, match="call reopen"):
            journal.append(epoch, 1, b"1")
        journal.reopen()
        journal.append(epoch, 1, b"1")
        assert payloads_of(journal) == [b"1"]

    def test_reopen_finds_that_the_last_acknowledged_record_is_gone(
        self, filesystem: CrashingFilesystem, make: Callable[[], FileJournal]
    ) -> None:
        journal = make()
        append_all(journal, journal.acquire(), b"1", b"2")
        filesystem.content(Path("/journal") / f"{1:020d}.journal")[-1] ^= 1
        with pytest.raises(JournalCorrupt, match="not on the disk any more"):
            journal.reopen()
        with pytest.raises(JournalUnavailable):
            journal.append(1, 3, b"3")

    def test_acquire_that_fails_lets_go_of_the_lock(
        self, filesystem: CrashingFilesystem, make: Callable[[], FileJournal]
    ) -> None:
        for after in range(10):
            journal = make()
            with filesystem.trouble(Trouble.IO_ERROR, after), pytest.raises(JournalUnavailable):
                journal.acquire()
        assert make().acquire() >= 1

    def test_short_writes_are_completed(self, tmp_path: Path) -> None:
        class Dribbling(OsFilesystem):
            def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
                data = b"".join(buffers)
                return os.pwrite(descriptor, data[:7], offset)

        filesystem = Dribbling()
        descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        assert write_all(filesystem, descriptor, [b"header", b"", b"payload" * 9], 3) == 72
        assert os.pread(descriptor, 100, 3) == b"header" + b"payload" * 9
        os.close(descriptor)
