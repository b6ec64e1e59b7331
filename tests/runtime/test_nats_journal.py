"""The journal on real NATS servers: its fence, appends without an answer, damage, and servers that are not safe."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from exchange.runtime.codec import ShardType
from exchange.runtime.host import Host
from exchange.runtime.journal import (
    JournalCorrupt,
    JournalFenced,
    JournalRecordTooLarge,
    JournalUnavailable,
    JournalUnsafe,
    nats_stream,
)
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.journal.nats_fence import encode_fence
from exchange.runtime.journal.nats_link import NatsLink
from exchange.runtime.journal.nats_settings import NatsSettings
from exchange.runtime.journal.record import encode, machine_identity
from exchange.runtime.machine import state_hash
from exchange.runtime.messages import LinkBatch, ReplyStatus, unpack_replies
from exchange.runtime.nats_servers import NatsServers
from exchange.runtime.recovery import recover
from exchange.runtime.snapshot import SnapshotStore
from tests.runtime.proxy import Proxy

MACHINE = "shard-0"
ID = machine_identity(MACHINE)


@pytest.fixture
def settings(nats_servers: NatsServers, tmp_path: Path) -> NatsSettings:
    return nats_servers.settings(prefix=tmp_path.name[:32])


@pytest.fixture
def opened() -> Iterator[Callable[[NatsSettings], NatsJournal]]:
    made: list[NatsJournal] = []

    def make(settings: NatsSettings) -> NatsJournal:
        made.append(NatsJournal.open(settings, MACHINE))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


@pytest.fixture
def proxy(nats_servers: NatsServers) -> Iterator[Proxy]:
    with Proxy(int(nats_servers.urls[0].rpartition(":")[2])) as made:
        yield made


@pytest.fixture
def proxied(settings: NatsSettings, proxy: Proxy) -> NatsSettings:
    """Only through the proxy. Short limits, so that a lost answer is soon missed."""
    return replace(settings, servers=(proxy.url,), replicas=3, try_timeout_s=0.5)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def append_all(journal: NatsJournal, epoch: int, *payloads: bytes) -> None:
    for payload in payloads:
        journal.append(epoch, journal.last_sequence + 1, payload)


def payloads_of(journal: NatsJournal, from_sequence: int = 1) -> list[bytes]:
    return [record.payload for record in journal.read(from_sequence)]


def link_to(settings: NatsSettings) -> NatsLink:
    link = NatsLink(settings, "test", f"{settings.prefix}-{MACHINE}")
    link.open()
    return link


class TestFence:
    def test_a_writer_that_was_taken_over_from_is_refused_for_good(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        zombie, successor = opened(settings), opened(settings)
        old = zombie.acquire()
        append_all(zombie, old, b"1")
        new = successor.acquire()
        assert new > old
        for _ in range(3):
            with pytest.raises(JournalFenced, match="another writer took over"):
                zombie.append(old, 2, b"zombie")
        with pytest.raises(JournalFenced):
            zombie.reopen()
        append_all(successor, new, b"2")
        assert payloads_of(successor) == [b"1", b"2"]

    def test_a_zombie_finds_out_also_when_it_reopens(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        zombie, successor = opened(settings), opened(settings)
        append_all(zombie, zombie.acquire(), b"1")
        successor.acquire()
        with pytest.raises(JournalFenced):
            zombie.reopen()

    def test_a_record_in_flight_while_another_takes_over_is_refused_when_it_arrives(
        self,
        settings: NatsSettings,
        proxied: NatsSettings,
        proxy: Proxy,
        opened: Callable[[NatsSettings], NatsJournal],
        thread: ThreadPoolExecutor,
    ) -> None:
        zombie, successor = opened(replace(proxied, try_timeout_s=20)), opened(settings)
        old = zombie.acquire()
        append_all(zombie, old, b"1")
        proxy.hold("up")
        late = thread.submit(zombie.append, old, 2, b"zombie in flight")
        proxy.wait_held("up", b"zombie in flight")
        append_all(successor, successor.acquire(), b"2")
        proxy.release()
        with pytest.raises(JournalFenced):
            late.result(60)
        assert payloads_of(successor) == [b"1", b"2"]

    def test_a_record_that_got_in_before_the_fence_counts(
        self,
        settings: NatsSettings,
        proxied: NatsSettings,
        proxy: Proxy,
        opened: Callable[[NatsSettings], NatsJournal],
        thread: ThreadPoolExecutor,
    ) -> None:
        zombie, successor = opened(proxied), opened(settings)
        old = zombie.acquire()
        proxy.hold("down")
        late = thread.submit(zombie.append, old, 1, b"in before")
        wait_until_stored(successor, 1)
        successor.acquire()
        assert payloads_of(successor) == [b"in before"]
        proxy.cut()
        proxy.release()
        with pytest.raises(JournalFenced):
            late.result(60)


def wait_until_stored(journal: NatsJournal, sequence: int) -> None:
    poll = threading.Event()
    for _ in range(600):
        if journal.last_sequence >= sequence:
            return
        poll.wait(0.05)
    raise AssertionError(f"record {sequence} never came")


class TestUnansweredAppend:
    def test_lost_on_its_way_there_it_is_sent_again(
        self,
        proxied: NatsSettings,
        proxy: Proxy,
        opened: Callable[[NatsSettings], NatsJournal],
        thread: ThreadPoolExecutor,
    ) -> None:
        journal = opened(proxied)
        epoch = journal.acquire()
        proxy.hold("up")
        append = thread.submit(journal.append, epoch, 1, b"lost on its way")
        proxy.wait_held("up", b"lost on its way")
        proxy.cut()
        proxy.release()
        append.result(60)
        append_all(journal, epoch, b"2")
        assert payloads_of(journal) == [b"lost on its way", b"2"]

    @pytest.mark.parametrize("is_cut", [True, False])
    def test_stored_without_an_answer_it_is_found_and_not_stored_twice(
        self,
        settings: NatsSettings,
        proxied: NatsSettings,
        proxy: Proxy,
        opened: Callable[[NatsSettings], NatsJournal],
        thread: ThreadPoolExecutor,
        is_cut: bool,
    ) -> None:
        journal, witness = opened(proxied), opened(settings)
        epoch = journal.acquire()
        proxy.hold("down")
        append = thread.submit(journal.append, epoch, 1, b"stored")
        wait_until_stored(witness, 1)
        if is_cut:
            proxy.cut()
        proxy.release()
        append.result(60)
        append_all(journal, epoch, b"2")
        assert payloads_of(journal) == [b"stored", b"2"]

    @pytest.mark.parametrize("arrives", [True, False])
    def test_beyond_the_limit_it_is_unknown_and_reopen_settles_it(
        self,
        settings: NatsSettings,
        proxied: NatsSettings,
        proxy: Proxy,
        opened: Callable[[NatsSettings], NatsJournal],
        arrives: bool,
    ) -> None:
        journal, witness = opened(replace(proxied, try_timeout_s=0.1, append_limit_s=0.3)), opened(settings)
        epoch = journal.acquire()
        append_all(journal, epoch, b"1")
        proxy.hold("up")
        with pytest.raises(JournalUnavailable) as caught:
            journal.append(epoch, 2, b"unknown")
        assert not caught.value.surely_absent
        with pytest.raises(JournalUnavailable, match="call reopen") as refused:
            journal.append(epoch, 2, b"too early")
        assert refused.value.surely_absent
        with pytest.raises(JournalUnavailable):
            journal.reopen()
        if not arrives:
            proxy.cut()
        proxy.release()
        if arrives:
            wait_until_stored(witness, 2)
        again = reopen_until_it_works(journal)
        expected = [b"1", b"unknown"] if arrives else [b"1"]
        assert journal.last_sequence == len(expected)
        assert payloads_of(journal) == expected
        append_all(journal, again, b"next")
        assert payloads_of(witness) == [*expected, b"next"]

    def test_a_client_that_gave_up_for_good_is_replaced(
        self, proxied: NatsSettings, proxy: Proxy, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        journal = opened(proxied)
        epoch = journal.acquire()
        proxy.say(b"-ERR 'Authentication Expired'\r\n")
        poll = threading.Event()
        while journal.is_connected:
            poll.wait(0.01)
        append_all(journal, epoch, b"1")
        assert payloads_of(journal) == [b"1"]

    def test_never_sent_it_is_surely_absent(
        self, proxied: NatsSettings, proxy: Proxy, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        journal = opened(replace(proxied, append_limit_s=0.3))
        epoch = journal.acquire()
        proxy.__exit__(None, None, None)
        poll = threading.Event()
        while journal.is_connected:
            poll.wait(0.01)
        with pytest.raises(JournalUnavailable) as caught:
            journal.append(epoch, 1, b"1")
        assert caught.value.surely_absent


def reopen_until_it_works(journal: NatsJournal) -> int:
    poll = threading.Event()
    for _ in range(600):
        try:
            return journal.reopen()
        except JournalUnavailable:
            poll.wait(0.05)  # its connection is not back yet
    raise AssertionError("the journal did not come back")


class TestDamage:
    """Records put into the stream by hand, as a faulty writer or an operator might."""

    @pytest.fixture
    def link(self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]) -> Iterator[NatsLink]:
        journal = opened(settings)
        append_all(journal, journal.acquire(), b"1", b"2")
        made = link_to(settings)
        yield made
        made.close()

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("bit", "does not match its checksum"),
            ("chain", "does not go on from the one before it"),
            ("epoch", "expected the epoch of its fence, 1, found 2"),
            ("gap", "the sequence has a gap"),
            ("machine", "expected machine"),
            ("longer", "expected 52 bytes, found 53"),
            ("no record", "there is no record here"),
        ],
    )
    def test_a_wrong_record_is_named_with_its_place(
        self,
        settings: NatsSettings,
        link: NatsLink,
        opened: Callable[[NatsSettings], NatsJournal],
        fault: str,
        reason: str,
    ) -> None:
        reader = opened(settings)
        checksum = list(reader.read(1))[-1].checksum
        good = encode(ID, 1, 3, checksum, b"3333")
        bad = {
            "bit": good[:-1] + b"2",
            "chain": encode(ID, 1, 3, checksum ^ 1, b"3333"),
            "epoch": encode(ID, 2, 3, checksum, b"3333"),
            "gap": encode(ID, 1, 4, checksum, b"3333"),
            "machine": encode(ID + 1, 1, 3, checksum, b"3333"),
            "longer": good + b"!",
            "no record": bytes(60),
        }[fault]
        assert link.publish(f"{settings.prefix}.{MACHINE}.d", bad, {}) == 4
        place = f"stream {settings.prefix}-{MACHINE} at message 4"
        with pytest.raises(JournalCorrupt, match=f"^{place}[,:].*{reason}"):
            list(reader.follow(2))
        with pytest.raises(JournalCorrupt, match=f"^{place}[,:]"):
            list(opened(settings).follow(2))

    def test_a_wrong_fence_is_named_with_its_place(
        self, settings: NatsSettings, link: NatsLink, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        reader = opened(settings)
        link.publish(f"{settings.prefix}.{MACHINE}.fence", encode_fence(ID, 3, 1, bytes(16)), {})
        with pytest.raises(JournalCorrupt, match="expected the fence 2 after 1, found 3 after 1"):
            list(reader.follow(0))

    def test_a_foreign_message_stops_the_writer_and_the_next_one(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        writer = opened(settings)
        epoch = writer.acquire()
        append_all(writer, epoch, b"1")
        link = link_to(settings)
        link.publish(f"{settings.prefix}.{MACHINE}.d", b"hello", {})
        link.close()
        with pytest.raises(JournalCorrupt, match="did not write"):
            writer.append(epoch, 2, b"2")
        with pytest.raises(JournalCorrupt, match="the header is cut short"):
            opened(settings).acquire()


class TestLimits:
    def test_a_record_up_to_what_the_servers_take_is_stored_and_a_larger_one_refused(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        journal = opened(settings)
        epoch = journal.acquire()
        largest = (8 << 20) - 512 - 48
        with pytest.raises(JournalRecordTooLarge, match=f"expected at most {largest} bytes, was {largest + 1}"):
            journal.append(epoch, 1, bytes(largest + 1))
        journal.append(epoch, 1, bytes(largest))
        append_all(journal, epoch, b"2")
        assert [len(payload) for payload in payloads_of(opened(settings))] == [largest, 1]

    def test_fences_before_what_is_kept_are_trimmed_too(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        journal = opened(settings)
        for number in range(1, 6):
            append_all(journal, journal.acquire(), bytes([number]))
        journal.trim(3)
        link = link_to(settings)
        first = link.first(f"{settings.prefix}.{MACHINE}.fence")
        link.close()
        assert first is not None
        assert first.sequence == 7  # 1 fence and 1 record each: the fence before record 4
        assert payloads_of(opened(settings), 4) == [bytes([4]), bytes([5])]

    @pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", ">", "ä", "x" * 65])
    def test_a_machine_name_that_could_not_be_a_subject_is_refused(self, settings: NatsSettings, name: str) -> None:
        with pytest.raises(ValueError, match="machine name"):
            NatsJournal.open(settings, name)


async def test_a_host_comes_back_with_the_same_state(
    settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal], tmp_path: Path
) -> None:
    from tests.runtime.test_host import opened as with_market
    from tests.runtime.test_host import place, results

    host = await with_market(Host(ShardType(), opened(settings), SnapshotStore(tmp_path)))
    answer = b""
    for n in range(1, 20):
        answer = await host.submit(LinkBatch("gateway-0", 1, n, [place(f"o{n}", side=1 + n % 2)]))
        assert len(results(answer)) == 1
    expected = state_hash(host.kind, host.machine)
    sequence = host.machine.sequence
    await host.stop()
    for snapshots in (tmp_path, tmp_path / "without"):
        reader = await asyncio.to_thread(opened, settings)
        recovered = await asyncio.to_thread(recover, host.kind, reader, SnapshotStore(snapshots))
        assert recovered.machine.sequence == sequence
        assert state_hash(host.kind, recovered.machine) == expected
    again = Host(ShardType(), await asyncio.to_thread(opened, settings), SnapshotStore(tmp_path))
    await again.start()
    again_answer = await again.submit(LinkBatch("gateway-0", 1, 19, [place("o19", side=2)]))
    assert unpack_replies(again_answer) == unpack_replies(answer)
    await again.stop()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_host_goes_on_by_itself_after_an_append_without_an_answer(
    proxied: NatsSettings,
    proxy: Proxy,
    opened: Callable[[NatsSettings], NatsJournal],
    tmp_path: Path,
    arrives: bool,
) -> None:
    from tests.runtime.test_host import opened as with_market
    from tests.runtime.test_host import place, results

    journal = await asyncio.to_thread(opened, replace(proxied, try_timeout_s=0.2, append_limit_s=0.4))
    host = await with_market(Host(ShardType(), journal, SnapshotStore(tmp_path)))
    epoch = host.epoch
    proxy.hold("up")
    batch = LinkBatch("gateway-0", 1, 1, [place("a", remaining_ms=60_000)])
    (reply,) = unpack_replies(await host.submit(batch))
    assert reply.status == ReplyStatus.UNKNOWN
    if not arrives:
        proxy.cut()
    proxy.release()
    answer = b""
    while reply.status != ReplyStatus.DONE:
        await asyncio.sleep(0.02)  # the host tries again at intervals of its own
        answer = await host.submit(batch)
        (reply,) = unpack_replies(answer)
        assert reply.status in (ReplyStatus.DONE, ReplyStatus.UNKNOWN)
    (result,) = results(answer)
    assert result.client_order_id == "a"
    assert host.epoch > epoch
    assert [o.request.client_order_id for o in host.machine.books["BTC-USDT"].orders()] == ["a"]
    await host.stop()


class TestSync:
    def test_a_server_that_syncs_lazily_is_refused(self, tmp_path: Path) -> None:
        with NatsServers.start(tmp_path, servers=1, sync_interval="2m") as lazy:
            for settings in (lazy.settings(), replace(lazy.settings(), trust_sync=True)):
                with pytest.raises(JournalUnsafe, match="set `sync_interval: always`") as caught:
                    NatsJournal.open(settings, MACHINE)
                assert caught.value.code == "JOURNAL_UNSAFE"
                assert "nats-0" in str(caught.value)
                assert "sync_interval is 120 s" in str(caught.value)

    def test_what_cannot_be_asked_is_refused_unless_it_is_trusted(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        for unproven in (
            replace(settings, monitoring_urls=()),
            replace(settings, monitoring_urls=settings.monitoring_urls[:1]),
            replace(settings, monitoring_urls=("http://127.0.0.1:1",)),
        ):
            with pytest.raises(JournalUnsafe, match="expected proof that 2 of the NATS servers"):
                opened(unproven)
            opened(replace(unproven, trust_sync=True)).close()

    def test_a_majority_is_proof_enough_because_a_server_may_be_away(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        opened(replace(settings, monitoring_urls=(*settings.monitoring_urls[:2], "http://127.0.0.1:1")))

    def test_servers_that_are_too_old_are_refused(
        self,
        settings: NatsSettings,
        opened: Callable[[NatsSettings], NatsJournal],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(nats_stream, "VERSION_MIN", (3, 0))
        with pytest.raises(JournalUnsafe, match=r"expected version 3\.0 or newer, was 2\."):
            opened(settings)

    def test_a_stream_that_forgets_is_refused(
        self, settings: NatsSettings, opened: Callable[[NatsSettings], NatsJournal]
    ) -> None:
        link = link_to(settings)
        subject = f"{settings.prefix}.{MACHINE}"
        link.create_stream({"subjects": [f"{subject}.d", f"{subject}.fence"], "storage": "memory", "num_replicas": 1})
        link.close()
        with pytest.raises(JournalUnsafe, match="expected storage 'file', was 'memory'"):
            opened(settings)
