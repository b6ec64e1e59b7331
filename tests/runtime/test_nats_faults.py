"""Servers of a cluster that die, stop or have damaged disks while a journal is written: nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exchange.runtime.journal import JournalFenced, JournalUnavailable
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.nats_servers import NatsServers

MACHINE = "shard-0"

pytestmark = pytest.mark.slow


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    with NatsServers.start(tmp_path) as started:
        yield started


def leader_of(journal: NatsJournal, servers: NatsServers) -> int:
    return servers.names.index(journal.leader or "")


class Writer:
    """Appends, reopens where it must, and knows what was acknowledged and what is in doubt."""

    def __init__(self, journal: NatsJournal) -> None:
        self.journal = journal
        self.epoch = journal.acquire()
        self.log: list[bytes] = []
        self.reopened = 0

    def append(self, payload: bytes) -> None:
        """Append until it is acknowledged, at most once."""
        while True:
            try:
                self.journal.append(self.epoch, len(self.log) + 1, payload)
            except JournalUnavailable:
                if self.reopen() and self.journal.last_sequence > len(self.log):
                    break
            else:
                break
        self.log.append(payload)

    def reopen(self) -> bool:
        for _ in range(20):
            try:
                self.epoch = self.journal.reopen()
            except JournalUnavailable:
                continue
            self.reopened += 1
            return True
        raise AssertionError("it did not come back")


@pytest.mark.parametrize("fault", ["kill", "pause", "stop"])
@pytest.mark.timeout(180)
def test_nothing_is_lost_and_it_goes_on_by_itself_when_the_leader_goes(servers: NatsServers, fault: str) -> None:
    journal = NatsJournal.open(servers.settings(), MACHINE)
    writer = Writer(journal)
    for number in range(50):
        writer.append(b"before %d" % number)
    victim = leader_of(journal, servers)
    if fault == "pause":
        servers.signal_server(victim, signal.SIGSTOP)
    else:
        servers.stop_server(victim, kill=fault == "kill")
    for number in range(50):
        writer.append(b"without it %d" % number)
    if fault == "pause":
        servers.signal_server(victim, signal.SIGCONT)
    else:
        servers.start_server(victim)
    servers.wait_until_ready()
    for number in range(50):
        writer.append(b"with it again %d" % number)
    reader = NatsJournal.open(servers.settings(), MACHINE)
    assert [record.payload for record in reader.read(1)] == writer.log
    reader.close()
    journal.close()


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.timeout(180)
def test_flipped_bits_on_one_disk_are_got_over_with_a_good_copy(servers: NatsServers, is_leader: bool) -> None:
    journal = NatsJournal.open(servers.settings(), MACHINE)
    writer = Writer(journal)
    for number in range(100):
        writer.append(b"payload %03d " % number + bytes(1000))
    victim = leader_of(journal, servers)
    if not is_leader:
        victim = (victim + 1) % 3
    servers.stop_server(victim)
    flipped = 0
    for block in servers.store_of(victim).glob("jetstream/*/streams/*/msgs/*.blk"):
        content = bytearray(block.read_bytes())
        for number in (20, 50, 51, 80):
            found = content.find(b"payload %03d " % number)
            assert found >= 0
            content[found + 500] ^= 1
            flipped += 1
        block.write_bytes(content)
    assert flipped == 4
    servers.start_server(victim)
    servers.wait_until_ready()
    reader = NatsJournal.open(servers.settings(), MACHINE)
    limit_s = time.monotonic() + 90
    with capture_logs() as events:
        # Any server answers, and the one that came back only after some seconds.
        while not any(event["event"] == "journal.copy_damaged" for event in events):
            assert [record.payload for record in reader.read(1)] == writer.log
            assert [record.payload for record in reader.follow(40)] == writer.log[40:]
            assert time.monotonic() < limit_s, "the damage was never met"
    successor = Writer(reader)
    successor.log = writer.log
    successor.append(b"and on")
    reader.close()
    journal.close()


@pytest.mark.timeout(180)
def test_a_paused_process_that_goes_on_after_another_took_over_gets_nothing_in(servers: NatsServers) -> None:
    program = (
        "import sys\n"
        "from exchange.runtime.journal.nats import NatsJournal\n"
        "from exchange.runtime.journal.nats_settings import NatsSettings\n"
        f"journal = NatsJournal.open({servers.settings()!r}, {MACHINE!r})\n"
        "epoch = journal.acquire()\n"
        "sequence = 0\n"
        "while True:\n"
        "    sequence += 1\n"
        "    try:\n"
        "        journal.append(epoch, sequence, b'zombie %d' % sequence)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, sequence, flush=True)\n"
        "        break\n"
        "    if sequence == 20:\n"
        "        print('writing', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as zombie:
        try:
            assert zombie.stdout
            assert zombie.stdout.readline() == b"writing\n"
            zombie.send_signal(signal.SIGSTOP)
            successor = NatsJournal.open(servers.settings(), MACHINE)
            epoch = successor.acquire()
            last = successor.last_sequence
            successor.append(epoch, last + 1, b"successor")
            zombie.send_signal(signal.SIGCONT)
            # The record that was in flight is either the last before the fence, or it is refused.
            name, sequence = next(line for line in zombie.stdout if not line.startswith(b"20")).split()
            assert name.decode() == JournalFenced.__name__
            assert int(sequence) in (last, last + 1)
        finally:
            zombie.kill()
    payloads = [record.payload for record in successor.read(1)]
    assert payloads == [*(b"zombie %d" % n for n in range(1, last + 1)), b"successor"]
    successor.close()
