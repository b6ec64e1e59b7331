"""Writers and standbys that race for one stream, over links that lose, delay and repeat: ten thousands of histories.

What must hold whatever happens: a record that was acknowledged is in the log, once, at its place; one that was said to
be surely absent never is; and whoever applied records applied a part of the log from its beginning.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from exchange.runtime.journal import JournalCorrupt, JournalFenced, JournalUnavailable
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.journal.nats_link import Stored, Unanswered
from exchange.runtime.journal.nats_log import LEADER_ONLY_S
from exchange.runtime.journal.nats_settings import NatsSettings
from tests.runtime.nats_model import StreamModel, UnreliableLink

SETTINGS = NatsSettings(servers=("nats://a:1", "nats://b:1", "nats://c:1"), append_limit_s=0.5)
ACTORS = 3
STEPS = 60


@dataclass
class Actor:
    """A host that is a standby until it acquires, and a standby again, with a new object, once it was fenced."""

    journal: NatsJournal
    link: UnreliableLink
    applied: list[bytes] = field(default_factory=list)
    epoch: int = 0
    has_failed: bool = False


class Race:
    def __init__(self, seed: int, trouble: float) -> None:
        self.rng = random.Random(seed)
        self.trouble = trouble
        self.model = StreamModel()
        self.acknowledged: dict[bytes, int] = {}
        self.absent: set[bytes] = set()
        self.busy: set[int] = set()
        self.count = 0
        self.takeovers = 0
        self.fenced = 0
        self.unknown = 0
        self.late = 0
        self.actors = [Actor(*self.new_journal(number)) for number in range(ACTORS)]

    def new_journal(self, number: int) -> tuple[NatsJournal, UnreliableLink]:
        link = UnreliableLink(self.model, self.rng, lambda: self.meanwhile(number), self.trouble)
        return NatsJournal(SETTINGS, "shard-0", link), link

    def meanwhile(self, number: int) -> None:
        """Somebody else acts while this one's request is under way."""
        others = [other for other in range(ACTORS) if other not in self.busy]
        if others and self.rng.random() < 0.1:
            self.step(self.rng.choice(others))

    def step(self, number: int) -> None:
        self.busy.add(number)
        actor = self.actors[number]
        try:
            if not actor.epoch:
                self.as_standby(actor)
            elif actor.has_failed:
                actor.epoch = actor.journal.reopen()
                actor.has_failed = False
                self.late += self.catch_up(actor)
            else:
                self.append(actor)
        except JournalFenced:
            self.fenced += 1
            actor.epoch, actor.has_failed = 0, False
            actor.journal, actor.link = self.new_journal(number)
        except JournalUnavailable:
            pass  # to be tried again
        finally:
            self.busy.discard(number)

    def as_standby(self, actor: Actor) -> None:
        if self.rng.random() < 0.9:
            for record in actor.journal.follow(len(actor.applied)):
                actor.applied.append(record.payload)
            return
        epoch = actor.journal.acquire()
        self.takeovers += 1
        try:
            self.catch_up(actor)
        except JournalUnavailable:
            actor.journal.close()
            raise
        actor.epoch = epoch

    def catch_up(self, actor: Actor) -> int:
        records = list(actor.journal.read(len(actor.applied) + 1))
        actor.applied += [record.payload for record in records]
        assert len(actor.applied) == actor.journal.last_sequence
        return len(records)

    def append(self, actor: Actor) -> None:
        if len(actor.applied) > 10 and self.rng.random() < 0.03:
            actor.journal.trim(min(len(other.applied) for other in self.actors) - 2)
            return
        self.count += 1
        payload = f"record {self.count}".encode()
        sequence = len(actor.applied) + 1
        if self.trouble and self.rng.random() < 0.2:
            actor.link.publish_trouble = 0.98  # for longer than the limit
        try:
            actor.journal.append(actor.epoch, sequence, payload)
        except JournalUnavailable as error:
            actor.has_failed = True
            if error.surely_absent:
                self.absent.add(payload)
            else:
                self.unknown += 1
            raise
        finally:
            actor.link.publish_trouble = self.trouble
        assert payload not in self.acknowledged
        self.acknowledged[payload] = sequence
        actor.applied.append(payload)

    def check(self) -> None:
        data = [message for message in self.model.messages if message.subject.endswith(".d")]
        log = [message.data[48:] for message in data]
        assert len(set(log)) == len(log), "a record is in the log twice"
        for payload, sequence in self.acknowledged.items():
            assert log[sequence - 1] == payload, f"{payload!r} was acknowledged as {sequence}"
        assert not self.absent.intersection(log)
        for actor in self.actors:
            assert actor.applied == log[: len(actor.applied)]


def run(seeds: range) -> None:
    seen = {"takeovers": 0, "fenced": 0, "unknown": 0, "late": 0, "acknowledged": 0}
    for seed in seeds:
        race = Race(seed, trouble=(0.0, 0.1, 0.3, 0.5)[seed % 4])
        try:
            for _ in range(STEPS):
                race.step(race.rng.randrange(ACTORS))
            race.check()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        for name in ("takeovers", "fenced", "unknown", "late"):
            seen[name] += getattr(race, name)
        seen["acknowledged"] += len(race.acknowledged)
    # Else this would prove nothing.
    assert all(count > len(seeds) / 20 for count in seen.values()), seen


def test_whatever_the_network_does_nothing_is_lost_doubled_or_falsely_acknowledged() -> None:
    run(range(300))


def reliable(model: StreamModel) -> tuple[NatsJournal, UnreliableLink]:
    link = UnreliableLink(model, random.Random(1), lambda: None, trouble=0.0)
    return NatsJournal(SETTINGS, "shard-0", link), link


def test_servers_that_lost_what_they_acknowledged_are_found_out_by_everybody() -> None:
    model = StreamModel()
    (writer, _), (standby, _) = reliable(model), reliable(model)
    epoch = writer.acquire()
    for sequence in range(1, 6):
        writer.append(epoch, sequence, b"%d" % sequence)
    assert len(list(standby.follow(0))) == 5
    del model.messages[-2:]
    with pytest.raises(JournalUnavailable):
        writer.append(epoch, 6, b"6")
    with pytest.raises(JournalCorrupt, match="ends before a record that was acknowledged") as caught:
        writer.reopen()
    assert (caught.value.sequence_expected, caught.value.sequence_found) == (5, 3)
    with pytest.raises(JournalCorrupt, match="ends before a record that was durable") as caught:
        list(reliable(model)[0].follow(5))
    assert (caught.value.sequence_expected, caught.value.sequence_found) == (5, 3)


def test_records_that_were_replaced_are_found_out_by_the_chain() -> None:
    model = StreamModel()
    (writer, _), (standby, _) = reliable(model), reliable(model)
    epoch = writer.acquire()
    for sequence in range(1, 4):
        writer.append(epoch, sequence, b"%d" % sequence)
    assert len(list(standby.follow(0))) == 3
    del model.messages[-1:]
    writer.acquire()
    other, _ = reliable(model)
    epoch = other.acquire()
    other.append(epoch, 3, b"another 3")
    with pytest.raises(JournalCorrupt):
        list(standby.follow(3))


def test_a_server_that_hangs_is_not_asked_for_a_while() -> None:
    class Hanging(UnreliableLink):
        asked = 0

        def batch(self, from_sequence: int) -> list[Stored]:
            self.asked += 1
            raise Unanswered("no answer in time", was_sent=False)

    model = StreamModel()
    writer, _ = reliable(model)
    epoch = writer.acquire()
    link = Hanging(model, random.Random(1), lambda: None, trouble=0.0)
    standby = NatsJournal(SETTINGS, "shard-0", link)
    at = 0
    for sequence in range(1, 50):
        writer.append(epoch, sequence, b"")
        at += len(list(standby.follow(at)))
    assert (at, link.asked) == (49, 1)
    while link.now_s() < LEADER_ONLY_S * 1.5:
        link.pause()
    assert list(standby.follow(at)) == []
    assert link.asked == 2


@pytest.mark.slow
def test_nor_in_ten_thousands_of_histories() -> None:
    run(range(1_000, 21_000))
