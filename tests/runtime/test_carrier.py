"""The carrier takes each message over once while all is well, and again, whatever went wrong, until both have it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exchange.engine.channel import AskFunds, ReturnFunds
from exchange.engine.commands import AddInstrument, CancelOrder, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import CreateAccount, CreateAsset, Deposit
from exchange.engine.words import Stage
from exchange.runtime import carrier, host
from exchange.runtime.carrier import Carrier
from exchange.runtime.codec import ShardType
from exchange.runtime.feed import FeedGap
from exchange.runtime.host import Host
from exchange.runtime.journal import JournalUnavailable, MemoryJournal
from exchange.runtime.messages import LinkBatch, ReplyStatus, unpack, unpack_batch, unpack_replies
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import LEDGER_COMMANDS, LedgerType, rows_segment, unpack_commands, unpack_ledger_result
from exchange.runtime.snapshot import SnapshotStore

ALICE = 2
INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 0, 0, 0)
START_NS = 1_700_000_000_000_000_000


class FullJournal(MemoryJournal):
    """Has no room as long as it is told so. `refused`: it has said so."""

    is_full = False

    def __init__(self, machine_name: str) -> None:
        super().__init__(machine_name)
        self.loop = asyncio.get_running_loop()
        self.refused = asyncio.Event()

    def append(self, epoch: int, sequence: int, payload: bytes) -> None:
        if self.is_full:
            self.loop.call_soon_threadsafe(self.refused.set)
            raise JournalUnavailable("no space left", surely_absent=True, errno=errno.ENOSPC)
        super().append(epoch, sequence, payload)

    def reopen(self) -> int:
        if self.is_full:
            raise JournalUnavailable("still no space left", surely_absent=True, errno=errno.ENOSPC)
        return super().reopen()


class LedgerPeer:
    """An incarnation of the ledger in this process. `sent` are the messages of each batch that reached it."""

    def __init__(self, ledger: Host, incarnation: int) -> None:
        self.incarnation = incarnation
        self.sent: list[list[int]] = []
        self.is_away = False
        self.loses_replies = False
        self.has_gap = False
        """The next events are lost to who reads the feed."""
        self.open = asyncio.Event()
        """While it is not set, batches arrive and wait."""
        self.open.set()
        self.arrived = asyncio.Event()
        self.asked = asyncio.Event()
        self._ledger = ledger

    async def submit(self, batch: bytes) -> bytes:
        self._check()
        letter = unpack_batch(unpack(batch))
        self.sent.append([c.n for s in letter.segments for c in unpack_commands(s.data, LEDGER_COMMANDS)])
        self.arrived.set()
        await self.open.wait()
        answer = await self._ledger.submit(letter)
        if self.loses_replies:
            raise PeerUnavailable("the reply is lost")
        return answer

    async def feed(self, after_sequence: int, timeout_s: float) -> list[bytes] | None:
        self._check()
        try:
            batches = await self._ledger.at.feed.wait(after_sequence, timeout_s)
        except FeedGap:
            return None
        if self.has_gap:
            self.has_gap = False
            return None
        return batches

    async def query(self, request: bytes) -> bytes:
        self._check()
        self.asked.set()
        return self._ledger.kind.query(self._ledger.machine, request)

    async def dump(self) -> bytes:
        raise NotImplementedError

    def _check(self) -> None:
        if self.is_away:
            raise PeerUnavailable("away")


class Setting:
    """A ledger where Alice has 1,000 USDT, a shard with a market, and the carrier between them."""

    def __init__(self, directory: Path) -> None:
        self.ledger_journal, self.shard_journal = FullJournal("ledger"), FullJournal("shard-0")
        clock: dict[str, Any] = {"clock_ns": lambda: START_NS}
        self.ledger = Host(LedgerType(), self.ledger_journal, SnapshotStore(directory / "ledger"), **clock)
        self.shard = Host(ShardType(), self.shard_journal, SnapshotStore(directory / "shard"), **clock)
        self.carrier = Carrier("shard-0", self.shard)
        self.peer = LedgerPeer(self.ledger, 1)

    async def start(self) -> None:
        await self.ledger.start()
        await self.shard.start()
        accounts = [CreateAccount("house"), CreateAccount("alice")]
        await self.tell(self.ledger, *accounts, CreateAsset("USDT", 0), Deposit(ALICE, "USDT", 1_000, "d"))
        await self.tell(self.shard, AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN)))

    async def tell(self, machine: Host, *commands: Any) -> bytes:
        batch = LinkBatch("", 0, 0, [rows_segment(commands, remaining_ms=600_000)])
        reply = unpack_replies(await machine.submit(batch))[0]
        assert reply.status in (ReplyStatus.DONE, ReplyStatus.PARKED), reply
        return reply.data

    async def place(self, name: str, price: int) -> None:
        await self.tell(self.shard, PlaceOrder(ALICE, name, "BTC-USDT", 1, 1, 1, price, 1))

    async def cancel(self, name: str) -> None:
        await self.tell(self.shard, CancelOrder(ALICE, "BTC-USDT", name))

    async def other_shard_asks(self, n: int, amount: int) -> int:
        """Let a shard that has no carrier ask for money; return the status of the answer."""
        data = await self.tell(self.ledger, AskFunds("shard-1", n, n, ALICE, "USDT", amount, True))
        answer = unpack_ledger_result(data).answer
        assert answer is not None
        return answer.status

    def connect(self, incarnation: int = 1) -> LedgerPeer:
        if incarnation != self.peer.incarnation:
            self.peer = LedgerPeer(self.ledger, incarnation)
        self.carrier.set_ledger(self.peer)
        return self.peer

    @property
    def names(self) -> list[str]:
        """Of the orders that rest."""
        return [order.request.client_order_id for order in self.shard.machine.books["BTC-USDT"].orders()]

    @property
    def escrow(self) -> int:
        """What the shard has of Alice's money, by the ledger's count, which must be its own when nothing is open."""
        out: int = self.ledger.machine.grants.out["shard-0"][ALICE]["USDT"]
        assert self.shard.machine.funds.purse(ALICE, "USDT").received == out
        return out

    async def until(self, machine: Host, seen: Callable[[], bool]) -> None:
        """Wait until something is so after a record of a machine."""
        while not seen():
            assert await machine.at.feed.wait(machine.at.feed.last_sequence, 60), "nothing happened for a minute"

    async def quiet(self) -> None:
        await self.until(self.shard, lambda: not self.shard.machine.funds.outbox)

    async def stop(self) -> None:
        await self.carrier.stop()
        self.ledger_journal.is_full = self.shard_journal.is_full = False
        await self.shard.stop()
        await self.ledger.stop()


@pytest.fixture
async def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setting]:
    monkeypatch.setattr(carrier, "RETRY_S", 0.0)
    monkeypatch.setattr(host, "REOPEN_INTERVAL_S", 0.0)
    setting = Setting(tmp_path)
    await setting.start()
    yield setting
    await setting.stop()


async def test_nothing_is_sent_twice_while_all_is_well(setting: Setting) -> None:
    peer = setting.connect()
    for number in range(5):
        await setting.place(f"o{number}", 150)
        await setting.until(setting.shard, lambda: not setting.shard.machine.parked)
    await setting.quiet()
    assert len(setting.names) == 5
    sent = [n for batch in peer.sent for n in batch]
    assert sent == list(range(1, setting.shard.machine.funds.next_n))
    assert setting.escrow >= 750


async def test_messages_go_in_order_one_batch_in_flight(setting: Setting) -> None:
    peer = setting.connect()
    peer.open.clear()
    await setting.place("a", 10)
    await peer.arrived.wait()
    await setting.place("b", 20)
    await setting.place("c", 30)
    assert peer.sent == [[1]]
    peer.open.set()
    await setting.quiet()
    assert peer.sent[:2] == [[1], [2, 3]]
    assert sorted(setting.names) == ["a", "b", "c"]


async def test_the_same_incarnation_again_changes_nothing(setting: Setting) -> None:
    peer = setting.connect()
    peer.open.clear()
    await setting.place("a", 10)
    await peer.arrived.wait()
    setting.connect()
    peer.open.set()
    await setting.quiet()
    assert [n for batch in peer.sent for n in batch].count(1) == 1


async def test_what_is_open_is_sent_again_to_the_next_incarnation(setting: Setting) -> None:
    first = setting.connect()
    first.open.clear()
    await setting.place("a", 10)
    await first.arrived.wait()
    setting.carrier.set_ledger(None)
    await setting.place("b", 20)
    second = setting.connect(2)
    await setting.quiet()
    assert second.sent[0] == [1, 2]
    assert sorted(setting.names) == ["a", "b"]
    assert first.sent == [[1]]


async def test_a_message_whose_reply_is_lost_moves_money_once(setting: Setting) -> None:
    peer = setting.connect()
    peer.loses_replies = True
    await setting.place("a", 10)
    while len(peer.sent) < 3:
        peer.arrived.clear()
        await peer.arrived.wait()
    peer.loses_replies = False
    await setting.quiet()
    assert setting.escrow + setting.ledger.machine.balances.of(ALICE, "USDT") == 1_000


async def test_a_ledger_that_is_away_gets_the_messages_when_it_is_back(setting: Setting) -> None:
    peer = setting.connect()
    peer.is_away = True
    await setting.place("a", 10)
    peer.is_away = False
    await setting.quiet()
    assert setting.names == ["a"]


async def test_an_answer_that_comes_late_comes_by_the_feed(setting: Setting) -> None:
    peer = setting.connect()
    await peer.asked.wait()
    assert await setting.other_shard_asks(1, 1_000) == 1
    await setting.place("a", 400)
    await setting.until(setting.ledger, lambda: bool(setting.ledger.machine.grants.lines))
    assert setting.names == []
    await setting.tell(setting.ledger, ReturnFunds("shard-1", 2, 2, ALICE, "USDT", 500, 1))
    await setting.until(setting.shard, lambda: setting.names == ["a"])
    await setting.quiet()
    assert setting.escrow == 500


async def test_a_recall_comes_by_the_feed_and_is_answered_once(setting: Setting) -> None:
    setting.connect()
    await setting.place("a", 700)
    await setting.cancel("a")
    await setting.quiet()
    held = setting.escrow
    assert await setting.other_shard_asks(1, 600) == 0
    await setting.until(setting.ledger, lambda: not setting.ledger.machine.grants.lines)
    await setting.quiet()
    left = held - (600 - (1_000 - held))
    assert setting.escrow == left - left // 2


async def test_a_carrier_that_starts_asks_what_it_missed(setting: Setting) -> None:
    setting.connect()
    await setting.place("a", 700)
    await setting.cancel("a")
    await setting.quiet()
    setting.carrier.set_ledger(None)
    assert await setting.other_shard_asks(1, 600) == 0
    setting.connect(2)
    await setting.until(setting.ledger, lambda: not setting.ledger.machine.grants.lines)
    await setting.quiet()
    assert setting.ledger.machine.grants.out["shard-1"][ALICE]["USDT"] >= 600


async def test_what_a_gap_of_the_feed_has_swallowed_is_asked_for(setting: Setting) -> None:
    peer = setting.connect()
    await setting.place("a", 700)
    await setting.cancel("a")
    await setting.quiet()
    peer.has_gap = True
    assert await setting.other_shard_asks(1, 600) == 0
    await setting.until(setting.ledger, lambda: not setting.ledger.machine.grants.lines)
    assert not peer.has_gap


async def test_answers_that_the_shard_cannot_journal_come_again(setting: Setting) -> None:
    peer = setting.connect()
    peer.open.clear()
    await setting.place("a", 10)
    await peer.arrived.wait()
    setting.shard_journal.is_full = True
    peer.open.set()
    await setting.shard_journal.refused.wait()
    assert setting.names == []
    setting.shard_journal.is_full = False
    await setting.quiet()
    assert setting.names == ["a"]
    assert setting.escrow + setting.ledger.machine.balances.of(ALICE, "USDT") == 1_000


async def test_messages_that_the_ledger_cannot_journal_are_sent_again(setting: Setting) -> None:
    setting.ledger_journal.is_full = True
    setting.connect()
    await setting.place("a", 10)
    await setting.ledger_journal.refused.wait()
    setting.ledger_journal.is_full = False
    await setting.quiet()
    assert setting.names == ["a"]


async def test_a_carrier_that_was_stopped_carries_nothing_and_what_is_open_stays(setting: Setting) -> None:
    peer = setting.connect()
    await setting.carrier.stop()
    await setting.place("a", 10)
    assert peer.sent == []
    assert list(setting.shard.machine.funds.outbox) == [1]
    setting.connect(2)
    await setting.quiet()
    assert setting.names == ["a"]


async def test_a_carrier_that_breaks_says_so_and_goes_on_with_the_next_incarnation(setting: Setting) -> None:
    class Nonsense(LedgerPeer):
        async def submit(self, batch: bytes) -> bytes:
            await super().submit(batch)
            return b"nonsense"

    with capture_logs() as logs:
        setting.peer = Nonsense(setting.ledger, 1)
        setting.carrier.set_ledger(setting.peer)
        await setting.place("a", 10)
        await asyncio.wait(setting.carrier._tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [log["event"] for log in logs] == ["carrier.broken"]
    setting.connect(2)
    await setting.quiet()
    assert setting.names == ["a"]
