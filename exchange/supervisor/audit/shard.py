"""What accounts own in one shard and what their open orders need, from the shard's events alone.

NOTE: an event costs about 1 us here, because the auditor follows the events of every shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from exchange.engine.channel import HOUSE
from exchange.engine.events import EventKind, EventRow, event_of
from exchange.engine.instrument import Instrument
from exchange.engine.words import Side
from exchange.runtime.feed import FeedBatch, ShardDump
from exchange.supervisor.audit.market import AuditedOrder, Market, Owner, Pocket, fee
from exchange.supervisor.audit.words import Break, BreakKind, Change, Key, ShardCut

_ACCEPTED: Final = int(EventKind.ACCEPTED)
_TRADED: Final = int(EventKind.TRADED)
_CLOSED: Final = int(EventKind.CLOSED)
_AMENDED: Final = int(EventKind.AMENDED)
_INSTRUMENT: Final = int(EventKind.INSTRUMENT)
_ESCROW: Final = int(EventKind.ESCROW)
_BUY: Final = int(Side.BUY)
BATCHES_KEPT: Final = 64
"""For evidence."""
EVENTS_SHOWN: Final = 8
EVIDENCE_MAX: Final = 100
"""Breaks between two audits that come with events: to look for them takes a while."""


class FeedMissed(Exception):
    """A batch does not follow on what was seen last: what is between cannot be known any more."""


class ShardAccount:
    """The account of one shard. `start` gives it the open orders, `base` what accounts own, both from the shard itself;
    from then on `apply` alone changes it, and `compare` says where the shard's own books differ.

    Between `start` and `base` it follows orders only. `on_break` gets what is found while following.
    """

    def __init__(self, shard: str, on_break: Callable[[Break], None]) -> None:
        self.shard = shard
        self.sequence = 0
        self.since = 0
        self.generation = 0
        self.is_started = False
        self.is_based = False
        self.trades = 0
        self.markets: dict[str, Market] = {}
        self.pockets: dict[Key, Pocket] = {}
        self.changes: list[Change] = []
        """Since the last cut."""
        self.unpaired: list[Change] = []
        """Before it, and not accounted for yet."""
        self._on_break = on_break
        self._recent: deque[Sequence[EventRow]] = deque(maxlen=BATCHES_KEPT)
        self._negative: set[Key] = set()
        self._evidence_left = EVIDENCE_MAX

    # ---------------------------------------------------------------- begin

    def start(self, dump: ShardDump) -> None:
        """Take the open orders of a dump."""
        self.sequence = dump.sequence
        self.is_started, self.is_based = True, False
        self.generation += 1
        self.markets, self.pockets, self.changes, self.unpaired = {}, {}, [], []
        self._recent.clear()
        self._negative.clear()
        for fields, _, _, orders in dump.books:
            market = self._market(Instrument(*fields))
            for order_id, account, _, side, price, _, open_ in orders:
                order = AuditedOrder(order_id, self._owner(market, account), side == _BUY, price, open_)
                self._rest(market, order)

    def lose(self) -> None:
        """Forget it all: what follows cannot be followed."""
        self.is_started = self.is_based = False

    # ---------------------------------------------------------------- follow

    def apply(self, batch: FeedBatch) -> None:
        """Go on with a batch; what is known already changes nothing. Raises `FeedMissed`."""
        if batch.last_sequence <= self.sequence:
            return
        if batch.first_sequence != self.sequence + 1:
            raise FeedMissed(f"{self.shard}: expected {self.sequence + 1}, was {batch.first_sequence}")
        self._recent.append(batch.events)
        try:
            self._apply_events(batch.events)
        except KeyError as error:
            self.lose()
            self._on_break(
                self._break(BreakKind.FEED, "", (), 0, 1, f"order or instrument {error}", batch.first_sequence)
            )
            raise FeedMissed(f"{self.shard}: no order or instrument {error} is known") from error
        self.sequence = batch.last_sequence

    def _apply_events(self, events: Sequence[EventRow]) -> None:
        markets = self.markets
        sequence = 0
        # The order of the command at hand: what is left of it when the command ends rests in its market.
        taker: AuditedOrder | None = None
        taker_market: Market | None = None
        for row in events:
            kind = row[0]
            if row[1] != sequence:
                if taker is not None:
                    self._rest_left(taker_market, taker)
                    taker = None
                sequence = row[1]
            if kind == _ACCEPTED:
                if taker is not None:
                    self._rest_left(taker_market, taker)
                _, _, symbol, order_id, account, _, side, price, quantity = row
                taker_market = market = markets[symbol]
                owner = market.owners.get(account) or self._owner(market, account)
                taker = AuditedOrder(order_id, owner, side == _BUY, price, quantity)
            elif kind == _CLOSED:
                if taker is not None and taker.order_id == row[3]:
                    taker = None
                else:
                    market = markets[row[2]]
                    self._release(market.orders.pop(row[3]), 0)
            elif kind == _TRADED:
                market = markets[row[2]]
                if taker is None or taker.order_id != row[5]:
                    raise KeyError(row[5])
                self._trade(market, market.orders[row[4]], taker, row)
            elif kind == _AMENDED:
                if taker is not None:
                    self._rest_left(taker_market, taker)
                    taker = None
                _, _, symbol, order_id, price, _, open_, kept_place = row
                market = markets[symbol]
                order = market.orders[order_id]
                order.price, order.open = price, open_
                if kept_place:
                    self._release(order, market.need(order.is_buy, price, open_))
                else:
                    del market.orders[order_id]
                    self._release(order, 0)
                    taker, taker_market = order, market
            elif kind == _ESCROW:
                _, _, account, asset, change, n = row
                pocket = self._pocket(account, asset)
                pocket.free += change
                pocket.received += change
                self.changes.append(Change(n, account, asset, change, sequence))
                if pocket.free < 0:
                    self._less_than_nothing(pocket, sequence)
            elif kind == _INSTRUMENT:
                instrument = Instrument(*row[2])
                if instrument.symbol not in markets:
                    self._market(instrument)
        if taker is not None:
            self._rest_left(taker_market, taker)

    def _trade(self, market: Market, maker: AuditedOrder, taker: AuditedOrder, row: EventRow) -> None:
        """Settle a trade, with the fees that it says it cost, and check those."""
        _, sequence, _, _, maker_id, _, price, quantity, maker_fee, taker_fee = row
        self.trades += 1
        amount = price * quantity * market.multiplier // market.divisor
        if maker_fee != fee(amount, market.maker_ppm) or taker_fee != fee(amount, market.taker_ppm):
            self._wrong_fee(market, maker, taker, row, amount)
        base = quantity * market.base_unit
        giver, owner = maker.owner, taker.owner
        left = maker.open - quantity
        maker.open = left
        taker.open -= quantity
        if taker.is_buy:
            maker.need -= base
            giver.base_need -= base
            giver.quote.free += amount - maker_fee
            owner.base.free += base
            pocket = owner.quote
            pocket.free -= amount + taker_fee
        else:
            released = maker.need - (market.need(True, maker.price, left) if left else 0)
            maker.need -= released
            giver.quote_need -= released
            giver.base.free += base
            giver.quote.free += released - amount - maker_fee
            owner.quote.free += amount - taker_fee
            pocket = owner.base
            pocket.free -= base
        if maker_fee or taker_fee:
            self._pocket(HOUSE, market.instrument.quote_asset).free += maker_fee + taker_fee
        if left <= 0:
            del market.orders[maker_id]
        if pocket.free < 0:
            self._less_than_nothing(pocket, sequence)
        if giver.quote.free < 0:
            self._less_than_nothing(giver.quote, sequence)

    def _rest_left(self, market: Market | None, order: AuditedOrder) -> None:
        assert market is not None
        if order.open:
            self._rest(market, order)

    def _rest(self, market: Market, order: AuditedOrder) -> None:
        """Let an order rest, and its owner's free money be less by what it needs."""
        order.need = need = market.need(order.is_buy, order.price, order.open)
        market.orders[order.order_id] = order
        owner = order.owner
        if order.is_buy:
            owner.quote_need += need
            pocket = owner.quote
        else:
            owner.base_need += need
            pocket = owner.base
        pocket.free -= need
        if pocket.free < 0 and self.is_based:
            self._less_than_nothing(pocket, self.sequence + 1)

    def _release(self, order: AuditedOrder, need: int) -> None:
        """Let a resting order need so much from now on."""
        released = order.need - need
        order.need = need
        owner = order.owner
        if order.is_buy:
            owner.quote_need -= released
            owner.quote.free += released
        else:
            owner.base_need -= released
            owner.base.free += released

    def _market(self, instrument: Instrument) -> Market:
        market = self.markets[instrument.symbol] = Market(instrument)
        return market

    def _owner(self, market: Market, account: int) -> Owner:
        owner = market.owners.get(account)
        if owner is None:
            i = market.instrument
            owner = Owner(account, self._pocket(account, i.base_asset), self._pocket(account, i.quote_asset))
            market.owners[account] = owner
        return owner

    def _pocket(self, account: int, asset: str) -> Pocket:
        pocket = self.pockets.get((account, asset))
        if pocket is None:
            pocket = self.pockets[account, asset] = Pocket(account, asset)
        return pocket

    # ---------------------------------------------------------------- compare

    def compare(self, claim: Sequence[Any]) -> ShardCut:
        """Hold the shard's own books of this sequence (`money_of`) against the account; return the cut.

        The first time, what accounts own is taken from the claim. A difference in what they own is told once, and the
        account then goes on from the claim.
        """
        sequence, purses, holds, parked, outbox, next_n = claim
        assert sequence == self.sequence, f"expected the claim of {self.sequence}, was {sequence}"
        bound: dict[tuple[str, int, bool], int] = {}
        for symbol, account, is_buy, part in parked:
            bound[symbol, account, is_buy] = bound.get((symbol, account, is_buy), 0) + part
        owned: dict[Key, int] = {}
        received: dict[Key, int] = {}
        for account, asset, available, came in purses:
            owned[account, asset] = available
            received[account, asset] = came
            if available < 0:
                self._on_break(self._break(BreakKind.NEGATIVE, asset, (account,), 0, available, "available"))
        for symbol, account, base_held, quote_held in holds:
            owner = self._owner(self.markets[symbol], account)
            for pocket, held, need, is_buy in (
                (owner.base, base_held, owner.base_need, False),
                (owner.quote, quote_held, owner.quote_need, True),
            ):
                key = account, pocket.asset
                owned[key] = owned.get(key, 0) + held
                of_orders = held - bound.get((symbol, account, is_buy), 0)
                if of_orders != need:
                    self._on_break(self._break(BreakKind.HOLD, pocket.asset, (account,), need, of_orders, symbol))
        self._compare_owned(owned, received)
        totals = self._compare_totals(owned, received)
        self.unpaired += self.changes
        self.changes = []
        self._evidence_left = EVIDENCE_MAX
        return ShardCut(
            self.shard,
            sequence,
            self.since,
            self.generation,
            totals,
            received,
            self.unpaired,
            {row[1]: Change(row[1], row[2], row[3], -row[4] if row[0] else 0, sequence) for row in outbox},
            next_n,
            len({account for account, _ in owned}),
            sum(len(market.orders) for market in self.markets.values()),
            self.trades,
        )

    def _compare_owned(self, owned: dict[Key, int], received: dict[Key, int]) -> None:
        needs: dict[Key, int] = {}
        for market in self.markets.values():
            for owner in market.owners.values():
                for pocket, need in ((owner.base, owner.base_need), (owner.quote, owner.quote_need)):
                    key = owner.account, pocket.asset
                    needs[key] = needs.get(key, 0) + need
        for key in {**owned, **self.pockets}:
            pocket = self._pocket(*key)
            claimed, came, need = owned.get(key, 0), received.get(key, 0), needs.get(key, 0)
            if self.is_based:
                account, asset = key
                kept = pocket.free + need
                if claimed != kept:
                    self._on_break(self._break(BreakKind.OWNED, asset, (account,), kept, claimed))
                if came != pocket.received:
                    self._on_break(self._break(BreakKind.RECEIVED, asset, (account,), pocket.received, came))
            pocket.free, pocket.received = claimed - need, came
        if not self.is_based:
            self.is_based = True
            self.since = self.sequence
            self.changes = []
            self.trades = 0
        self._negative.clear()
        for pocket in self.pockets.values():
            if pocket.free < 0:
                self._less_than_nothing(pocket, self.sequence)

    def _compare_totals(self, owned: dict[Key, int], received: dict[Key, int]) -> dict[str, int]:
        totals: dict[str, int] = {}
        came: dict[str, int] = {}
        for (_, asset), units in owned.items():
            totals[asset] = totals.get(asset, 0) + units
        for (_, asset), units in received.items():
            came[asset] = came.get(asset, 0) + units
        for asset, units in totals.items():
            if units != came.get(asset, 0):
                self._on_break(self._break(BreakKind.ESCROW, asset, (), came.get(asset, 0), units))
        return totals

    # ---------------------------------------------------------------- what is wrong

    def _wrong_fee(self, market: Market, maker: AuditedOrder, taker: AuditedOrder, row: EventRow, amount: int) -> None:
        asset = market.instrument.quote_asset
        _, sequence, symbol, trade_id, *_, maker_fee, taker_fee = row
        for whose, account, ppm, charged in (
            ("maker", maker.owner.account, market.maker_ppm, maker_fee),
            ("taker", taker.owner.account, market.taker_ppm, taker_fee),
        ):
            if charged != fee(amount, ppm):
                subject = f"{symbol} trade {trade_id} {whose} fee"
                found = self._break(BreakKind.FEE, asset, (account,), fee(amount, ppm), charged, subject, sequence)
                self._on_break(found)

    def _less_than_nothing(self, pocket: Pocket, sequence: int) -> None:
        """Tell that an account owns less than its orders need, once until the next audit."""
        key = pocket.account, pocket.asset
        if self.is_based and key not in self._negative:
            self._negative.add(key)
            free = pocket.free
            self._on_break(self._break(BreakKind.NEGATIVE, pocket.asset, (pocket.account,), 0, free, "free", sequence))

    def _break(
        self,
        kind: BreakKind,
        asset: str,
        accounts: tuple[int, ...],
        expected: int,
        found: int,
        subject: str = "",
        sequence: int = -1,
    ) -> Break:
        at = (self.shard, self.sequence if sequence < 0 else sequence)
        events: tuple[str, ...] = ()
        if self._evidence_left:
            self._evidence_left -= 1
            events = self.last_events(accounts, asset)
        return Break(kind, asset, (self.shard,), expected, found, accounts, subject, (at,), events)

    def last_events(self, accounts: tuple[int, ...], asset: str) -> tuple[str, ...]:
        """Return the last events that concern an account (none given: that moved the asset to or from the ledger)."""
        theirs = {
            order.order_id
            for market in self.markets.values()
            for order in market.orders.values()
            if order.owner.account in accounts
        }
        theirs.update(row[3] for rows in self._recent for row in rows if row[0] == _ACCEPTED and row[4] in accounts)

        def concerns(row: EventRow) -> bool:
            if row[0] == _ESCROW:
                return row[2] in accounts if accounts else row[3] == asset
            if row[0] == _TRADED:
                return row[4] in theirs or row[5] in theirs
            return _ACCEPTED <= row[0] <= _AMENDED and row[3] in theirs

        newest: Iterator[EventRow] = (row for rows in reversed(self._recent) for row in reversed(rows))
        shown = [str(event_of(row)) for row in islice(filter(concerns, newest), EVENTS_SHOWN)]
        return tuple(reversed(shown))
