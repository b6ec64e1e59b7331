"""Real machines with feeds in memory, what carries money between them, and an auditor that listens."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask, AskFunds, RecallFunds, ReturnFunds
from exchange.engine.commands import AddInstrument, PlaceOrder, SetStage, Tick
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import CreateAccount, CreateAsset, Deposit, EndWaits
from exchange.engine.words import Stage
from exchange.runtime.codec import ShardType
from exchange.runtime.feed import Feed, FeedBatch, FeedGap
from exchange.runtime.machine import MachineType
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import LedgerType
from exchange.supervisor.audit.auditor import Auditor
from exchange.supervisor.audit.words import AuditReport

S = 1_000_000_000
START_NS = 1_700_000_000 * S
HOUSE = 1
BUY, SELL = 1, 2
LIMIT = 1
GTC = 1
ASSETS = {"BTC": 6, "ETH": 4, "USDT": 6}
"""By scale."""
INSTRUMENTS = {
    "shard-0": [
        # Fees, and a base asset with more digits than quantities have.
        Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6, 5, 5, 5, 10**9, 0, 0, 1_000, 2_500, base_scale=6),
        # A rebate; more digits in price and quantity than the quote asset has.
        Instrument("ETH-BTC", "ETH", "BTC", 4, 4, 6, 10, 10, 10, 10**9, 0, 0, -900, 1_700, base_scale=4),
    ],
    "shard-1": [Instrument("ETH-USDT", "ETH", "USDT", 1, 3, 6, 1, 1, 1, 10**9, 0, 0, 0, 333, base_scale=4)],
}


class Node:
    """A machine with its feed, as a host has them; what a follower asks it is answered here too. `is_away`: not now."""

    def __init__(self, kind: MachineType) -> None:
        self.kind = kind
        self.machine: Any = kind.new()
        self.feed_of: Feed = Feed()
        self.is_away = False
        self.incarnation = 1

    def apply(self, time_ns: int, commands: Sequence[Any]) -> Sequence[Any]:
        first = self.machine.sequence + 1
        applied = self.machine.apply(time_ns, commands)
        events = self.tell(list(applied.events))
        self.feed_of.publish(FeedBatch(1, first, self.machine.sequence, self.machine.time_ns, events))
        return list(applied.results)

    def tell(self, events: list[Any]) -> list[Any]:
        """Return the events that the world is told: in a test, perhaps others."""
        return events

    def restart(self, *, tail: int | None = None) -> None:
        """Come back from a snapshot, with so many commands of the feed in it (None: with all)."""
        batches = self.feed_of.tail(1 << 30 if tail is None else tail)
        self.machine = self.kind.unpack_state(self.kind.pack_state(self.machine))
        self.feed_of = Feed.resume(batches, self.machine.sequence)
        self.incarnation += 1

    def _check(self) -> None:
        if self.is_away:
            raise PeerUnavailable("away")

    async def submit(self, batch: bytes) -> bytes:
        raise AssertionError("the auditor commands nobody")

    async def feed(self, after_sequence: int, timeout_s: float) -> list[bytes] | None:
        self._check()
        try:
            return self.feed_of.read(after_sequence)
        except FeedGap:
            return None

    async def dump(self) -> bytes:
        self._check()
        return self.kind.dump(self.machine, 1)

    async def query(self, request: bytes) -> bytes:
        self._check()
        return self.kind.query(self.machine, request)


class Books:
    """A ledger, two shards, and the messages between them, which go when a test says so.

    `traffic`: what is under way, as (machine to tell, command); each may come later, never or twice.
    """

    def __init__(self, accounts: int = 4, deposit: int = 10**9) -> None:
        self.time_ns = START_NS
        self.ledger = Node(LedgerType())
        self.shards = {name: Node(ShardType()) for name in INSTRUMENTS}
        self.nodes = {"ledger": self.ledger, **self.shards}
        self.now_s = 0.0
        self._names = 0
        self.begin_auditor()
        self.ledger.apply(self.time_ns, [CreateAsset(*asset) for asset in ASSETS.items()])
        for account in range(1, accounts + 1):
            self.ledger.apply(self.time_ns, [CreateAccount(f"a{account}")])
            if account != HOUSE:
                self.deposit(account, *((asset, deposit) for asset in ASSETS))
        for name, instruments in INSTRUMENTS.items():
            commands = [AddInstrument(instrument) for instrument in instruments]
            self.shards[name].apply(self.time_ns, [*commands, SetStage(int(Stage.OPEN), 0, "start")])

    def begin_auditor(self) -> None:
        """Have an auditor that knows nothing yet."""
        self.auditor = Auditor(list(self.shards), 30.0, monotonic_s=lambda: self.now_s, clock_ns=lambda: self.time_ns)
        self.auditor.set_peers(self.nodes)

    # ---------------------------------------------------------------- what people do

    def deposit(self, account: int, *amounts: tuple[str, int]) -> None:
        for asset, amount in amounts:
            self._names += 1
            self.ledger.apply(self.time_ns, [Deposit(account, asset, amount, f"d{self._names}")])

    def order(self, symbol: str, account: int, side: int, price: int, quantity: int, **more: Any) -> PlaceOrder:
        self._names += 1
        return PlaceOrder(account, f"o{self._names}", symbol, side, LIMIT, GTC, price, quantity, **more)

    def place(self, shard: str, symbol: str, account: int, side: int, price: int, quantity: int, **more: Any) -> None:
        """Place an order, and carry until all that it brought about has come to rest."""
        self.shards[shard].apply(self.time_ns, [self.order(symbol, account, side, price, quantity, **more)])
        self.settle()

    # ---------------------------------------------------------------- what is carried

    def to_ledger(self, shard: str) -> list[Any]:
        """Return the messages in a shard's outbox as commands for the ledger."""
        funds = self.shards[shard].machine.funds
        return [
            (AskFunds if isinstance(message, Ask) else ReturnFunds)(shard, funds.low, *message)
            for message in funds.outbox.values()
        ]

    def to_shard(self, shard: str) -> list[Any]:
        """Return all that the ledger has to say to a shard."""
        grants = self.ledger.machine.grants
        answers: list[Any] = [AnswerFunds(*answer) for answer in grants.answers_to(shard)]
        return answers + list(grants.open_recalls(shard))

    def settle(self) -> None:
        """Carry until nothing is under way any more."""
        for _ in range(50):
            is_quiet = True
            for name, node in self.shards.items():
                if messages := self.to_ledger(name):
                    self.ledger.apply(self.time_ns, messages)
                    is_quiet = False
                    node.apply(self.time_ns, self.to_shard(name) or [Tick()])
                elif recalls := self.ledger.machine.grants.open_recalls(name):
                    node.apply(self.time_ns, recalls)
                    is_quiet = False
            if is_quiet:
                return

    def pass_time(self, ns: int = S) -> None:
        """Let time pass, and timers fire that are due."""
        self.time_ns += ns
        for node in self.nodes.values():
            due_ns = node.machine.next_timer_ns()
            if due_ns is not None and due_ns <= self.time_ns:
                node.apply(self.time_ns, [EndWaits() if node is self.ledger else Tick()])

    def carry_some(self, chance: Random) -> None:
        """Carry some of what is open, in any order; what is left comes later, what comes may come again."""
        shard = chance.choice(list(self.shards))
        if chance.random() < 0.5:
            messages = self.to_ledger(shard)
            to = self.ledger
        else:
            messages = self.to_shard(shard)
            to = self.shards[shard]
        chosen = [message for message in messages if chance.random() < 0.7]
        chance.shuffle(chosen)
        # What the machines cannot stand is a recall before the grants that it counts on: a carrier tells these first.
        chosen.sort(key=lambda message: isinstance(message, RecallFunds))
        if chosen:
            to.apply(self.time_ns, chosen)

    # ---------------------------------------------------------------- audits

    async def audit(self) -> AuditReport:
        return await self.auditor.audit()

    async def balanced(self) -> AuditReport:
        """Audit, and expect that all is well."""
        report = await self.audit()
        assert report.breaks == [], "\n".join(found.describe() for found in report.breaks)
        assert not self.auditor.breaks
        assert report.is_balanced, report.unavailable
        assert all(line.difference == 0 for line in report.assets)
        return report


GRANTED = int(AnswerStatus.GRANTED)
