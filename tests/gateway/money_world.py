"""A ledger and two shards without hosts, and a gateway's copies of them; a test carries the messages itself.

So money can be stopped anywhere on its way, and feeds can lag behind what they tell of.
"""

from __future__ import annotations

from typing import Any

from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask, AskFunds, RecallFunds, ReturnFunds
from exchange.engine.commands import AddInstrument, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.ledger import Ledger
from exchange.engine.ledger_words import CreateAccount, CreateAsset, Deposit, LedgerEventKind
from exchange.engine.shard import Shard
from exchange.engine.words import Stage
from exchange.gateway.balance_stream import BalanceHub
from exchange.gateway.executions import ExecutionHub
from exchange.gateway.ledger import LedgerReplica
from exchange.gateway.links import Link
from exchange.gateway.replica import ShardReplica
from exchange.runtime.codec import ShardType, unpack_dump
from exchange.runtime.feed import FeedBatch, unpack_batch
from exchange.runtime.messages import pack
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import LedgerType

HOUSE, ALICE, BOB = 1, 2, 3
MARKETS = {"shard-0": "BTC-USDT", "shard-1": "ETH-USDT"}
SCALES = {"BTC": 8, "ETH": 8, "USDT": 6}


class ShardPeer:
    """Answers questions from the shard itself, which may be ahead of its feed. `is_away`: it does not."""

    incarnation = 1

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.is_away = False

    async def query(self, request: bytes) -> bytes:
        if self.is_away:
            raise PeerUnavailable("away")
        return ShardType().query(self._shard, request)

    async def submit(self, batch: bytes) -> bytes:
        raise NotImplementedError

    async def feed(self, after_sequence: int, timeout_s: float) -> None:
        raise NotImplementedError

    async def dump(self) -> bytes:
        raise NotImplementedError


class World:
    def __init__(self, **limits: Any) -> None:
        self.now_ns = 1
        self.ledger = Ledger()
        self.ledger_copy = LedgerReplica()
        self.shards = {name: Shard() for name in MARKETS}
        self.copies = {name: ShardReplica(name) for name in MARKETS}
        self.executions = ExecutionHub(self.copies)
        self.peers = {name: ShardPeer(shard) for name, shard in self.shards.items()}
        self.links = {name: Link(name, "gateway-0", 1) for name in MARKETS}
        for name, link in self.links.items():
            link.set_peer(self.peers[name])
        self.hub = BalanceHub(self.ledger_copy, self.links, self.executions, **{"progress_s": 0.0, **limits})
        self.said: dict[str, list[Any]] = {name: [] for name in MARKETS}
        """What the ledger has told each shard of its own accord, and it has not got yet."""
        self._feeds: dict[str, list[bytes]] = {name: [] for name in ("ledger", *MARKETS)}
        self._orders = 0
        self.does_ledger(*(CreateAccount(name) for name in ("operator", "alice", "bob")))
        self.ledger_copy.load(LedgerType().dump(self.ledger, 1))
        self.does_ledger(*(CreateAsset(*asset) for asset in SCALES.items()))
        for name, symbol in MARKETS.items():
            base, quote = symbol.split("-")
            scales = 2, 4, SCALES[quote]
            fees = {"maker_fee_ppm": -200, "taker_fee_ppm": 1_000}
            instrument = Instrument(symbol, base, quote, *scales, base_scale=SCALES[base], **fees)
            self.shards[name].apply(1, [AddInstrument(instrument), SetStage(int(Stage.OPEN))])
            self.copies[name].load(unpack_dump(ShardType().dump(self.shards[name], 1)))
            self.executions.reset(name)

    # ---------------------------------------------------------------- what happens

    def does_ledger(self, *commands: Any, fed: bool = True) -> list[Any]:
        first = self.ledger.sequence + 1
        applied = self.ledger.apply(self.now_ns, commands)
        self.ledger.validate()
        for event in applied.events:
            if event.kind == LedgerEventKind.ANSWER:
                self.said[event.body.shard].append(AnswerFunds(*event.body[1:]))  # type: ignore[union-attr]
            elif event.kind == LedgerEventKind.RECALL:
                self.said[event.body.shard].append(RecallFunds(*event.body[1:]))  # type: ignore[union-attr]
        batch = FeedBatch(1, first, self.ledger.sequence, self.ledger.time_ns, list(applied.events))
        self._feeds["ledger"].append(pack(batch))
        if fed and self.ledger_copy.is_loaded:
            self.feed("ledger")
        return applied.results

    def does(self, name: str, *commands: Any, fed: bool = True) -> list[Any]:
        shard = self.shards[name]
        first = shard.sequence + 1
        applied = shard.apply(self.now_ns, commands)
        shard.validate()
        self._feeds[name].append(pack(FeedBatch(1, first, shard.sequence, shard.time_ns, list(applied.events))))
        if fed:
            self.feed(name)
        return applied.results

    def feed(self, name: str) -> None:
        """Let the gateway have what it was not told yet."""
        batches, self._feeds[name] = self._feeds[name], []
        for data in batches:
            if name == "ledger":
                if self.ledger_copy.is_loaded:
                    self.ledger_copy.apply(data)
            else:
                self.copies[name].apply(unpack_batch(data))

    def deposit(self, account: int, asset: str, units: int) -> None:
        self.does_ledger(Deposit(account, asset, units, f"d{self.ledger.sequence}"))

    def places(self, name: str, account: int, side: int, price: int, quantity: int, **how: bool) -> Any:
        self._orders += 1
        order = PlaceOrder(account, f"o{self._orders}", MARKETS[name], side, 1, 1, price, quantity)
        return self.does(name, order, **how)[0]

    # ---------------------------------------------------------------- messages between shards and ledger

    def asks(self, name: str, **how: bool) -> list[Any]:
        """Bring the ledger what a shard says; return its answers, which the shard has not got yet."""
        funds = self.shards[name].funds
        messages = [
            (AskFunds if isinstance(message, Ask) else ReturnFunds)(name, funds.low, *message)
            for message in funds.outbox.values()
        ]
        results = self.does_ledger(*messages, **how) if messages else []
        return [AnswerFunds(*r.answer) for r in results if r.answer.status != AnswerStatus.WAITING]

    def hears(self, name: str, answers: list[Any], **how: bool) -> None:
        """Bring a shard what the ledger says."""
        said, self.said[name] = self.said[name], []
        if answers or said:
            self.does(name, *answers, *said, **how)

    def settle(self) -> None:
        """Carry everything until nothing is left to carry."""
        while any(shard.funds.outbox for shard in self.shards.values()) or any(self.said.values()):
            for name in MARKETS:
                self.hears(name, self.asks(name))
