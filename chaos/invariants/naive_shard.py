"""A shard that is obviously right and slow: one list of orders, searched and sorted anew for every question.

It forgets nothing, so tests that compare it with the real one stay within ten minutes of their own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.invariants.naive_funds import (
    HOUSE,
    NaiveFunds,
    NaiveParked,
    NaiveTrade,
    amount_of,
    asset_of,
    fee_of,
    need_of,
)
from exchange.engine import commands as c
from exchange.engine.channel import AnswerFunds, RecallFunds
from exchange.engine.instrument import Instrument
from exchange.engine.words import CloseReason, OrderStatus, OrderType, RejectReason, Side, Stage, TimeInForce

R = RejectReason
ID_CHARACTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
LARGEST = 2**63 - 1
STAGE_REFUSES: dict[Stage, RejectReason] = {
    stage: getattr(R, f"STAGE_{stage.name}") for stage in Stage if stage != Stage.OPEN
}

STRICTEST_FIRST = (Stage.HALTED, Stage.REPLAYING, Stage.CANCEL_ONLY, Stage.POST_ONLY, Stage.LIMITED, Stage.OPEN)
ORDERS = Stage.LIMITED, Stage.OPEN
CANCELS = Stage.CANCEL_ONLY, Stage.POST_ONLY, *ORDERS


@dataclass
class NaiveOrder:
    order_id: int
    request: c.PlaceOrder
    price: int
    quantity: int
    open: int
    arrival: int
    status: OrderStatus = OrderStatus.OPEN
    close_reason: int = 0
    reject_reason: int = 0
    first_answer: tuple[Any, ...] = ()

    @property
    def filled(self) -> int:
        return self.quantity - self.open

    def answer(self, sequence: int, reject_reason: int = 0) -> tuple[Any, ...]:
        is_open = self.status == OrderStatus.OPEN
        name = self.request.client_order_id
        left = self.open if is_open else 0
        status, closed = self.status, self.close_reason
        return (sequence, name, self.order_id, status, self.filled, left, reject_reason, closed, False, 0)


@dataclass
class NaiveStage:
    stage: Stage
    orders_per_s: int = 0
    allowance: int = 0
    allowance_time_ns: int = 0
    since_ns: int = 0

    def reckon(self, time_ns: int) -> None:
        # In orders x 1e9. It saves up at most a tenth of a second's worth, and at least one order.
        self.allowance += (time_ns - self.allowance_time_ns) * self.orders_per_s
        self.allowance = min(self.allowance, max(self.orders_per_s * 10**8, 10**9))
        self.allowance_time_ns = time_ns


class NaiveShard:
    def __init__(self) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.stages = {"": NaiveStage(Stage.REPLAYING)}
        """By instrument, "" for the whole shard."""
        self.instruments: dict[str, Instrument] = {}
        self.trades: dict[str, list[NaiveTrade]] = {}
        self.orders: list[NaiveOrder] = []
        self.switches: dict[int, int] = {}
        self.funds = NaiveFunds(self)
        self.events: list[tuple[Any, ...]] = []

    def apply(self, time_ns: int, batch: Sequence[c.Command]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        self.time_ns = max(self.time_ns, time_ns)
        self.events = []
        results = []
        for command in batch:
            self.sequence += 1
            results.append(getattr(self, f"on_{type(command).__name__}")(command))
        return results, self.events

    # ---------------------------------------------------------------- questions

    def open_orders(self, symbol: str = "") -> list[NaiveOrder]:
        """In the order in which they came to rest."""
        orders = [o for o in self.orders if o.status == OrderStatus.OPEN and symbol in ("", o.request.instrument)]
        return sorted(orders, key=lambda order: order.arrival)

    def side(self, symbol: str, side: int) -> list[NaiveOrder]:
        """Best first."""
        sign = -1 if side == Side.BUY else 1
        orders = [o for o in self.open_orders(symbol) if o.request.side == side]
        return sorted(orders, key=lambda order: (order.price * sign, order.arrival))

    def opposite(self, order: NaiveOrder) -> Iterator[NaiveOrder]:
        """What an order at this price would meet, in the order of meeting."""
        buys = order.request.side == Side.BUY
        for maker in self.side(order.request.instrument, Side.SELL if buys else Side.BUY):
            if maker.price <= order.price if buys else maker.price >= order.price:
                yield maker

    def band(self, symbol: str) -> tuple[int, int]:
        instrument = self.instruments[symbol]
        reference = self.trades[symbol][-1].price if self.trades[symbol] else instrument.reference_price
        if not instrument.band_bps or not reference:
            return 0, LARGEST
        # The lowest price is rounded up and the highest down: both are within the band.
        lowest = (reference * (10_000 - instrument.band_bps) + 9_999) // 10_000
        return lowest, reference * (10_000 + instrument.band_bps) // 10_000

    def outside_band(self, symbol: str, side: int, price: int) -> bool:
        lowest, highest = self.band(symbol)
        return price > highest if side == Side.BUY else price < lowest

    def next_timer_ns(self) -> int | None:
        looks = [due_ns for due_ns, _ in self.funds.watched]
        return min([due_ns for due_ns in (self.next_due_ns(), *looks) if due_ns is not None], default=None)

    def next_due_ns(self) -> int | None:
        """When the next order, switch or command that waits is due."""
        expiring = [o.request.expire_time_ns for o in self.open_orders() if o.request.time_in_force == TimeInForce.GTD]
        waiting = [parked.deadline_ns for parked in self.funds.parked]
        return min([*expiring, *self.switches.values(), *waiting], default=None)

    def protection(self, symbol: str, request: c.PlaceOrder) -> int:
        """The worst price of a market order: the edge of the band, or the worst that it would meet now."""
        lowest, highest = self.band(symbol)
        if request.side == Side.SELL:
            return lowest
        if highest != LARGEST:
            return highest // self.instruments[symbol].tick_size * self.instruments[symbol].tick_size
        left, price = request.quantity, 0
        asks = self.side(symbol, Side.SELL)
        for ask in asks:
            if left > 0 or ask.price == price:
                price = ask.price
                left -= ask.open if ask.request.account != request.account else 0
        return price

    def refused(self, name: str, reason: int) -> tuple[Any, ...]:
        return (self.sequence, name, 0, OrderStatus.REJECTED, 0, 0, reason, 0, False, 0)

    def done(self, cancelled: int = 0) -> tuple[Any, ...]:
        return (self.sequence, "", 0, 0, 0, 0, 0, 0, False, cancelled)

    # ---------------------------------------------------------------- orders

    def on_PlaceOrder(  # noqa: N802
        self, request: c.PlaceOrder, parked: NaiveParked | None = None
    ) -> tuple[Any, ...]:
        name, symbol = request.client_order_id, request.instrument
        for known in self.orders if parked is None else ():
            if (known.request.account, known.request.client_order_id) == (request.account, name):
                if known.request._replace(session=0) != request._replace(session=0):
                    return self.refused(name, R.CLIENT_ORDER_ID_REUSED)
                return (*known.first_answer[:-2], True, 0)
        if reason := self.stage_refuses(symbol, *ORDERS, *[Stage.POST_ONLY] * request.post_only):
            return self.refused(name, reason)
        if reason := self.rate_refuses(symbol):
            return self.refused(name, reason)
        i = self.instruments.get(symbol)
        if i is not None:
            self.funds.touch(request.account, i.base_asset, i.quote_asset)
        if not 1 <= len(name) <= 36 or set(name) - ID_CHARACTERS:
            return self.refused(name, R.CLIENT_ORDER_ID_INVALID)
        if parked is None or parked.order is None:
            order = NaiveOrder(self.sequence, request, request.price, request.quantity, request.quantity, self.sequence)
            self.orders.append(order)
        else:
            order = parked.order
            order.arrival = self.sequence
        order.status = OrderStatus.REJECTED  # not in the book while it is matched
        if i is None:
            return self.refuse_order(order, R.INSTRUMENT_UNKNOWN)
        reason = self.place_breaks(request)
        if not reason and request.type == OrderType.MARKET:
            order.price = self.protection(symbol, request)
        if not reason and request.post_only and any(self.opposite(order)):
            reason = R.WOULD_TAKE
        if reason:
            return self.refuse_order(order, reason)
        account, side = request.account, request.side
        need = need_of(i, side, order.price, order.quantity)
        if self.funds.free(account, asset_of(i, side)) < need:
            if reason := self.funds.park(request, i, side, need, parked, order):
                return self.refuse_order(order, reason)
            order.status, order.price = OrderStatus.PENDING_FUNDS, request.price
            order.first_answer = self.pending(order.order_id, request)
            return self.pending(self.sequence, request)
        size = order.price, order.quantity
        self.events.append((1, self.sequence, symbol, order.order_id, account, name, side, *size))
        if request.time_in_force != TimeInForce.FOK or self.can_fill(order):
            self.match(order)
        never_rests = request.type == OrderType.MARKET or request.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        self.settle(order, CloseReason.NOT_FILLED if never_rests else 0)
        self.funds.ask_ahead(account, asset_of(i, side), need)
        order.first_answer = order.answer(order.order_id)
        return order.answer(self.sequence)

    def refuse_order(self, order: NaiveOrder, reason: int) -> tuple[Any, ...]:
        refused = self.refused(order.request.client_order_id, reason)
        order.reject_reason, order.first_answer = reason, (order.order_id, *refused[1:])
        return refused

    def pending(self, sequence: int, request: c.PlaceOrder) -> tuple[Any, ...]:
        pending = OrderStatus.PENDING_FUNDS, 0, request.quantity
        return (sequence, request.client_order_id, 0, *pending, 0, 0, False, 0)

    def stages_of(self, symbol: str) -> list[NaiveStage]:
        """The shard's and the instrument's, the stricter one first."""
        both = [self.stages[name] for name in ("", symbol) if name in self.stages]
        return sorted(both, key=lambda stage: STRICTEST_FIRST.index(stage.stage))

    def stage_refuses(self, symbol: str, *passes: Stage) -> int:
        """Why a command is refused that only these stages let through."""
        return next((STAGE_REFUSES[s.stage] for s in self.stages_of(symbol) if s.stage not in passes), 0)

    def rate_refuses(self, symbol: str) -> int:
        limits = [stage for stage in self.stages_of(symbol) if stage.stage == Stage.LIMITED]
        for limit in limits:
            limit.reckon(self.time_ns)
        if min((limit.allowance for limit in limits), default=10**9) < 10**9:
            return R.STAGE_LIMITED
        for limit in limits:
            limit.allowance -= 10**9
        return 0

    def place_breaks(self, o: c.PlaceOrder) -> int:
        i = self.instruments[o.instrument]
        own = [x for x in self.open_orders(o.instrument) if x.request.account == o.account]
        limit, market = o.type == OrderType.LIMIT, o.type == OrderType.MARKET
        rules = [
            (o.side not in (1, 2), R.SIDE_INVALID),
            (o.time_in_force not in (0, 1, 2, 3, 4), R.TIME_IN_FORCE_INVALID),
            (not limit and not market, R.ORDER_TYPE_INVALID),
            (limit and not 1 <= o.price <= LARGEST, R.PRICE_INVALID),
            (limit and o.price % i.tick_size != 0, R.PRICE_NOT_ON_TICK),
            (limit and self.outside_band(o.instrument, o.side, o.price), R.PRICE_OUTSIDE_BAND),
            (limit and o.post_only and o.time_in_force in (2, 3), R.POST_ONLY_INVALID),
            (market and o.price != 0, R.PRICE_INVALID),
            (market and o.time_in_force in (1, 4), R.TIME_IN_FORCE_INVALID),
            (market and o.post_only, R.POST_ONLY_INVALID),
            *self.quantity_rules(i, o.quantity),
            (o.time_in_force == 4 and o.expire_time_ns <= self.time_ns, R.EXPIRE_TIME_INVALID),
            (o.time_in_force != 4 and o.expire_time_ns != 0, R.EXPIRE_TIME_INVALID),
            (o.self_trade_prevention not in (0, 1, 2, 3), R.SELF_TRADE_PREVENTION_INVALID),
            (len(own) >= i.max_open_orders, R.TOO_MANY_OPEN_ORDERS),
        ]
        return next((reason for broken, reason in rules if broken), 0)

    def quantity_rules(self, i: Instrument, quantity: int) -> list[tuple[bool, RejectReason]]:
        return [
            (not 1 <= quantity <= LARGEST, R.QUANTITY_INVALID),
            (quantity % i.lot_size != 0, R.QUANTITY_NOT_ON_LOT),
            (quantity < i.min_quantity, R.QUANTITY_TOO_SMALL),
            (quantity > i.max_quantity, R.QUANTITY_TOO_LARGE),
        ]

    def can_fill(self, order: NaiveOrder) -> bool:
        needed = order.open
        for maker in self.opposite(order):
            if needed <= 0:
                break
            if maker.request.account != order.request.account:
                needed -= maker.open
            elif order.request.self_trade_prevention not in (0, 1):
                return False
        return needed <= 0

    def match(self, taker: NaiveOrder) -> None:
        """Trade until nothing is left to trade with; a taker that must not trade with itself gets a close reason."""
        symbol = taker.request.instrument
        while taker.open and (maker := next(self.opposite(taker), None)) is not None:
            if maker.request.account == taker.request.account:
                prevention = taker.request.self_trade_prevention or 1
                if prevention in (1, 3):
                    self.close(maker, CloseReason.SELF_TRADE)
                if prevention in (2, 3):
                    taker.close_reason = CloseReason.SELF_TRADE
                    return
                continue
            quantity = min(taker.open, maker.open)
            taker.open -= quantity
            maker.open -= quantity
            i = self.instruments[symbol]
            amount = amount_of(i, maker.price, quantity)
            fees = fee_of(amount, i.maker_fee_ppm), fee_of(amount, i.taker_fee_ppm)
            parties = maker.request.account, taker.request.account
            # Buyer before seller.
            both = (*parties, *fees) if maker.request.side == Side.BUY else (*parties[::-1], *fees[::-1])
            self.trades[symbol].append(NaiveTrade(maker.price, quantity, *both))
            trade_id = len(self.trades[symbol])
            ids = maker.order_id, taker.order_id
            self.events.append((2, self.sequence, symbol, trade_id, *ids, maker.price, quantity, *fees))
            if not maker.open:
                maker.status = OrderStatus.FILLED

    def settle(self, order: NaiveOrder, close_reason: int) -> None:
        """What becomes of an order that has been matched."""
        if not order.open:
            order.status = OrderStatus.FILLED
        elif order.close_reason or close_reason:
            self.close(order, order.close_reason or close_reason)
        else:
            order.status = OrderStatus.OPEN

    def close(self, order: NaiveOrder, reason: int) -> None:
        order.status, order.close_reason = OrderStatus.CANCELLED, reason
        self.events.append((3, self.sequence, order.request.instrument, order.order_id, reason, order.open))

    def named(self, command: c.CancelOrder | c.AmendOrder) -> NaiveOrder | tuple[Any, ...]:
        """The open order that a command names, or the answer that there is none."""
        for order in self.orders:
            r = order.request
            if command.client_order_id:
                same = r.client_order_id == command.client_order_id
            else:
                same = order.order_id == command.order_id and order.status != OrderStatus.PENDING_FUNDS
            if same and (r.account, r.instrument) == (command.account, command.instrument) and not order.reject_reason:
                if order.status == OrderStatus.PENDING_FUNDS and isinstance(command, c.AmendOrder):
                    return self.refused(command.client_order_id, R.ORDER_PENDING_FUNDS)
                is_closed = order.status not in (OrderStatus.OPEN, OrderStatus.PENDING_FUNDS)
                return order.answer(self.sequence, R.ORDER_CLOSED) if is_closed else order
        known = command.instrument in self.instruments
        return self.refused(command.client_order_id, R.ORDER_UNKNOWN if known else R.INSTRUMENT_UNKNOWN)

    def on_AmendOrder(  # noqa: N802
        self, amend: c.AmendOrder, parked: NaiveParked | None = None
    ) -> tuple[Any, ...]:
        if reason := self.stage_refuses(amend.instrument, Stage.POST_ONLY, *ORDERS):
            return self.refused(amend.client_order_id, reason)
        order = self.named(amend)
        if not isinstance(order, NaiveOrder):
            return order
        symbol, side = order.request.instrument, order.request.side
        price = amend.price or order.price
        left = amend.quantity - order.filled if amend.quantity else amend.open_quantity or order.open
        keeps_place = price == order.price and left <= order.open and not amend.requeue
        moved = NaiveOrder(order.order_id, order.request, price, left, left, 0)
        takes = any(self.opposite(moved))
        i = self.instruments[symbol]
        rules = [
            (not (amend.price or amend.quantity or amend.open_quantity or amend.requeue), R.NOTHING_TO_AMEND),
            (not 0 <= amend.price <= LARGEST, R.PRICE_INVALID),
            (amend.quantity < 0 or amend.open_quantity < 0, R.QUANTITY_INVALID),
            (bool(amend.quantity and amend.open_quantity), R.QUANTITY_INVALID),
            (price % i.tick_size != 0, R.PRICE_NOT_ON_TICK),
            (price != order.price and self.outside_band(symbol, side, price), R.PRICE_OUTSIDE_BAND),
            (left <= 0, R.QUANTITY_BELOW_FILLED),
            *self.quantity_rules(i, order.filled + left),
            (takes and order.request.post_only, R.WOULD_TAKE),
            (takes and self.stage_refuses(symbol, *ORDERS) != 0, R.STAGE_POST_ONLY),
        ]
        reason = next((reason for broken, reason in rules if broken), 0)
        if not reason and not keeps_place:
            reason = self.rate_refuses(symbol)
        if not reason:
            more = need_of(i, side, price, left) - need_of(i, side, order.price, order.open)
            if more > self.funds.free(amend.account, asset_of(i, side)):
                reason = self.funds.park(amend, i, side, more, parked)
                if not reason:
                    pending = OrderStatus.PENDING_FUNDS, order.filled, order.open
                    return (self.sequence, order.request.client_order_id, order.order_id, *pending, 0, 0, False, 0)
        if reason:
            if amend.cancel_on_fail:
                self.close(order, CloseReason.AMEND_FAILED)
            return order.answer(self.sequence, reason)
        order.quantity, order.open, order.price = order.filled + left, left, price
        sizes = price, order.quantity, left
        self.events.append((4, self.sequence, symbol, order.order_id, *sizes, keeps_place))
        if not keeps_place:
            order.arrival = self.sequence
            order.status = OrderStatus.REJECTED  # not in the book while it is matched
            self.match(order)
            self.settle(order, 0)
        return order.answer(self.sequence)

    def on_CancelOrder(self, cancel: c.CancelOrder) -> tuple[Any, ...]:  # noqa: N802
        if reason := self.stage_refuses(cancel.instrument, *CANCELS):
            return self.refused(cancel.client_order_id, reason)
        order = self.named(cancel)
        if not isinstance(order, NaiveOrder):
            return order
        for parked in self.funds.parked:
            if parked.order is order:
                return self.funds.cancel(parked, CloseReason.REQUESTED)
        self.close(order, CloseReason.REQUESTED)
        return order.answer(self.sequence)

    def close_all(self, orders: Sequence[NaiveOrder], reason: int) -> int:
        """Close orders that are open, then those that wait for money."""
        is_open = [order for order in orders if order.status == OrderStatus.OPEN]
        for order in is_open:
            self.close(order, reason)
        return len(is_open) + self.funds.cancel_all(orders, reason)

    def orders_of(self, account: int, symbol: str, side: int) -> list[NaiveOrder]:
        """Instrument by instrument, as they were added, in the order in which they came to rest; then what waits."""
        in_books = [order for s in self.instruments for order in self.open_orders(s)]
        return [
            order
            for order in [*in_books, *self.waiting()]
            if order.request.account == account
            and symbol in ("", order.request.instrument)
            and side in (0, order.request.side)
        ]

    def waiting(self) -> list[NaiveOrder]:
        return [parked.order for parked in self.funds.parked if parked.order is not None]

    def on_CancelAll(self, cancel: c.CancelAll) -> tuple[Any, ...]:  # noqa: N802
        if reason := self.stage_refuses(cancel.instrument, *CANCELS):
            return self.refused("", reason)
        if cancel.instrument and cancel.instrument not in self.instruments:
            return self.refused("", R.INSTRUMENT_UNKNOWN)
        if cancel.side not in (0, 1, 2):
            return self.refused("", R.SIDE_INVALID)
        symbols = [cancel.instrument]
        if not cancel.instrument:
            symbols = [symbol for symbol in self.instruments if not self.stage_refuses(symbol, *CANCELS)]
            symbols = [""] if len(symbols) == len(self.instruments) else symbols
        orders = [self.orders_of(cancel.account, symbol, cancel.side) for symbol in symbols]
        return self.done(sum(self.close_all(of_one, cancel.reason) for of_one in orders))

    def on_CancelSessions(self, cancel: c.CancelSessions) -> tuple[Any, ...]:  # noqa: N802
        orders = [
            order
            for order in [*self.open_orders(), *self.waiting()]
            if order.request.session and cancel.first <= order.request.session <= cancel.last
        ]
        orders.sort(key=lambda order: (order.request.session, order.arrival))
        return self.done(self.close_all(orders, CloseReason.DISCONNECTED))

    # ---------------------------------------------------------------- timers, operator

    def on_CancelAllAfter(self, command: c.CancelAllAfter) -> tuple[Any, ...]:  # noqa: N802
        self.switches.pop(command.account, None)
        if command.trigger_time_ns:
            self.switches[command.account] = command.trigger_time_ns
        return self.done()

    def on_Tick(self, _: c.Tick) -> tuple[Any, ...]:  # noqa: N802
        cancelled = 0
        while (due_ns := self.next_due_ns()) is not None and due_ns <= self.time_ns:
            expired = [o for o in self.open_orders() if o.request.expire_time_ns == due_ns]
            expired.sort(key=lambda order: (order.request.account, order.order_id))
            cancelled += self.close_all(expired, CloseReason.EXPIRED)
            for account in sorted(a for a, switch_ns in self.switches.items() if switch_ns == due_ns):
                del self.switches[account]
                cancelled += self.close_all(self.orders_of(account, "", 0), CloseReason.DEAD_MANS_SWITCH)
            if self.funds.expire(due_ns):
                # Only one order may come in at a sequence.
                return self.done(cancelled)
        self.funds.return_idle()
        return self.done(cancelled)

    def on_SetStage(self, command: c.SetStage) -> tuple[Any, ...]:  # noqa: N802
        if command.stage not in tuple(Stage) or command.orders_per_s < 0:
            return self.refused("", R.MALFORMED)
        name = command.instrument
        if name and name not in self.instruments:
            return self.refused("", R.INSTRUMENT_UNKNOWN)
        before = self.stages.get(name, NaiveStage(Stage.OPEN))
        now = NaiveStage(Stage(command.stage), command.orders_per_s, 0, self.time_ns, self.time_ns)
        if name in self.stages and before.stage == now.stage:
            now.since_ns = before.since_ns
            if now.stage == Stage.LIMITED:
                before.reckon(self.time_ns)
                now.allowance = before.allowance
        self.stages[name] = now
        if name and now.stage == Stage.OPEN:
            del self.stages[name]
        told = command.stage, command.orders_per_s, command.reason, now.since_ns, command.next_stage_time_ns
        self.events.append((5, self.sequence, name, *told))
        return self.done()

    def on_AddInstrument(self, command: c.AddInstrument) -> tuple[Any, ...]:  # noqa: N802
        instrument = command.instrument
        if instrument.symbol in self.instruments:
            same = self.instruments[instrument.symbol] == instrument
            return self.done() if same else self.refused("", R.INSTRUMENT_EXISTS)
        self.instruments[instrument.symbol] = instrument
        self.trades[instrument.symbol] = []
        self.funds.touch(HOUSE, instrument.quote_asset)
        self.events.append((6, self.sequence, instrument))
        return self.done()

    # ---------------------------------------------------------------- money

    def on_AnswerFunds(self, command: AnswerFunds) -> tuple[Any, ...]:  # noqa: N802
        self.funds.answer(command)
        return self.done()

    def on_RecallFunds(self, command: RecallFunds) -> tuple[Any, ...]:  # noqa: N802
        self.funds.recall(command)
        return self.done()
