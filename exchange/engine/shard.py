"""The shard machine: the books of some instruments and the escrow for them, a deterministic function of its commands.

Every command takes the next sequence, whether it is applied or refused. Time comes with each batch and never goes
back. Nothing here reads a clock, iterates a set or touches a float, so that replaying the journal gives the same state.

NOTE: `place` and `_cancel` take 2 to 4 us, because they unpack a command once, look all up once, compare plain
integers and build results from tuples. What is rare has functions of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from exchange.engine import commands as c
from exchange.engine import mass_cancel, parking
from exchange.engine.amend import amend
from exchange.engine.book import Book
from exchange.engine.channel import HOUSE, AnswerFunds, RecallFunds
from exchange.engine.commands import CancelOrder, PlaceOrder
from exchange.engine.events import EventKind, EventRow, InstrumentAdded, Result, StageChanged
from exchange.engine.funds import Funds, Trader
from exchange.engine.instrument import PRICE_MAX, InstrumentInvalid
from exchange.engine.matching import can_fill, match
from exchange.engine.names import NameTable
from exchange.engine.orders import Order, new_order
from exchange.engine.remembered import RememberedOrders
from exchange.engine.rules import is_client_order_id, outside_band, refuse_place
from exchange.engine.stages import Stages
from exchange.engine.timers import Timer, TimerKind, Timers
from exchange.engine.validation import validate
from exchange.engine.words import CloseReason, OrderStatus, OrderType, RejectReason, Side, Stage, TimeInForce

_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_LIMIT: Final = int(OrderType.LIMIT)
_MARKET: Final = int(OrderType.MARKET)
_DEFAULT: Final = int(TimeInForce.DEFAULT)
_IOC: Final = int(TimeInForce.IOC)
_FOK: Final = int(TimeInForce.FOK)
_GTD: Final = int(TimeInForce.GTD)
_OPEN: Final = int(OrderStatus.OPEN)
_FILLED: Final = int(OrderStatus.FILLED)
_CANCELLED: Final = int(OrderStatus.CANCELLED)
_REJECTED: Final = int(OrderStatus.REJECTED)
_PENDING: Final = int(OrderStatus.PENDING_FUNDS)
_NEVER_RESTS: Final = frozenset((_IOC, _FOK))
_REQUESTED: Final = int(CloseReason.REQUESTED)
_NOT_FILLED: Final = int(CloseReason.NOT_FILLED)
_ACCEPTED: Final = int(EventKind.ACCEPTED)
_CLOSED: Final = int(EventKind.CLOSED)
_EXPIRY: Final = int(TimerKind.EXPIRY)
_SWITCH: Final = int(TimerKind.SWITCH)
_STAGES: Final = tuple(map(int, Stage))
# Makes a named tuple from a tuple of its fields at a third of the cost of calling its class.
_new: Final = tuple.__new__


class Applied(NamedTuple):
    """What a batch did: one result per command, and the events in order, as rows (see `event_of`)."""

    results: list[Result]
    events: list[EventRow]


class Shard:
    """Books, open orders, escrow, remembered client order ids, timers and stages of one shard."""

    VERSION: ClassVar[int] = 5

    def __init__(self, new_names: Callable[[], NameTable] = NameTable) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.stages = Stages()
        self.books: dict[str, Book] = {}
        self.funds = Funds()
        self.parked: dict[int, parking.Parked] = {}
        """Commands that wait for money, by their sequence."""
        self.parked_by_message: dict[int, parking.Parked] = {}
        """The same, by the number of the message that asks for it."""
        self.switches: dict[int, int] = {}
        """Dead man's switches: account to time."""
        self.remembered = RememberedOrders(new_names)
        self.orders_by_client_id = self.remembered.by_client_id
        """By account, then client order id: open orders and remembered closed ones."""
        self.closed = self.remembered.closed
        self.events: list[EventRow] = []
        """What the batch at hand has done so far; empty between batches."""
        self.sessions: dict[int, dict[int, Order]] = {}
        self.timers = Timers()
        self._handlers_of_the_rest: dict[type, Callable[[Any], Result]] = {
            c.AmendOrder: self.amend,
            c.CancelAll: lambda command: mass_cancel.cancel_all(self, command),
            c.CancelSessions: lambda command: mass_cancel.cancel_sessions(self, command),
            c.CancelAllAfter: lambda command: mass_cancel.cancel_all_after(self, command),
            c.Tick: lambda _: mass_cancel.tick(self),
            c.SetStage: self._set_stage,
            c.AddInstrument: self._add_instrument,
            AnswerFunds: lambda command: parking.answer(self, command),
            RecallFunds: lambda command: parking.recall(self, command),
        }

    @property
    def stage(self) -> int:
        """The stage of the whole shard."""
        return self.stages.whole.row.stage

    def apply(self, time_ns: int, batch: Sequence[c.Command]) -> Applied:
        """Apply commands in order at one time (ns since the epoch); time before the machine's own counts as its own."""
        self.time_ns = max(self.time_ns, time_ns)
        self.remembered.forget(self.time_ns, len(batch))
        results: list[Result] = []
        events: list[EventRow] = []
        self.events = events
        for command in batch:
            self.sequence += 1
            if type(command) is PlaceOrder:
                results.append(self.place(command))
            elif type(command) is CancelOrder:
                results.append(self._cancel(command))
            else:
                results.append(self._handlers_of_the_rest[type(command)](command))
        # Else the next batch would have to free all of them before its first command.
        self.events = []
        return Applied(results, events)

    # ---------------------------------------------------------------- place

    def place(self, request: PlaceOrder, parked: parking.Parked | None = None) -> Result:
        """Enter an order; `parked`: it has waited for money."""
        (
            account,
            client_order_id,
            symbol,
            side,
            kind,
            time_in_force,
            price,
            quantity,
            post_only,
            prevention,
            expire_time_ns,
            session,
        ) = request
        known = self.orders_by_client_id[account]
        if parked is None and (first := known.find(client_order_id)) is not None:
            return self._repeat(first, request)
        if not self.stages.is_open:
            reason = self.stages.refuses_place(symbol, post_only, self.time_ns)
            if reason:
                return self.refuse(client_order_id, reason)
        book = self.books.get(symbol)
        if book is None:
            return self.refuse_order(request, RejectReason.INSTRUMENT_UNKNOWN)
        trader = book.traders.get(account)
        if trader is None:
            trader = self.trader_of(book, account)
        time_ns = self.time_ns
        tick, lot, quantity_min, quantity_max, band_bps, open_orders_max = book.limits
        # Most orders pass here; of the others `refuse_place` knows whether they are wrong, and in what.
        if (
            kind != _LIMIT
            or not _BUY <= side <= _SELL
            or not _DEFAULT <= time_in_force <= _FOK
            or not 0 < price <= PRICE_MAX
            or price % tick
            or not quantity_min <= quantity <= quantity_max
            or quantity % lot
            or prevention
            or expire_time_ns
            or (post_only and time_in_force in _NEVER_RESTS)
            or (band_bps and outside_band(book, side, price))
            or trader.open_orders >= open_orders_max
            or not is_client_order_id(client_order_id)
        ):
            reason = refuse_place(request, book, time_ns, trader.open_orders)
            if reason:
                return self.refuse_order(request, reason, parked)

        if kind == _MARKET:
            price = book.protection(side, quantity, trader)
        if side == _BUY:
            opposite, purse = book.asks, trader.quote
            best = opposite.best
            takes = best is not None and best.price <= price
            need = price * quantity * book.hold_multiplier // book.hold_divisor
        else:
            opposite, purse = book.bids, trader.base
            best = opposite.best
            takes = best is not None and best.price >= price
            need = quantity * book.base_unit
        if takes and post_only:
            return self.refuse_order(request, RejectReason.WOULD_TAKE, parked)
        if need > purse.available:
            return parking.place_later(self, request, trader, need, parked)

        sequence = self.sequence
        watched = session != 0 or time_in_force == _GTD
        if parked is None or parked.order is None:
            order = new_order(sequence, request, trader, price, quantity, time_ns, watched)
            known.add(client_order_id, order)
        else:
            order = parked.order
            order.price, order.priority, order.update_time_ns = price, sequence, time_ns
        order_id = order.order_id
        self.remembered.add_id(order)
        self.events.append((_ACCEPTED, sequence, symbol, order_id, account, client_order_id, side, price, quantity))
        if takes and (time_in_force != _FOK or can_fill(book, opposite, order)):
            match(self, book, opposite, order)
        left = order.open
        filled_quantity = quantity - left
        if not left:
            status = _FILLED
            self.closed.append(order)
        elif kind == _MARKET or time_in_force in _NEVER_RESTS or order.close_reason:
            status, left = _CANCELLED, 0
            self.close_taker(order, symbol, order.close_reason or _NOT_FILLED)
        else:
            status = _OPEN
            order.rested_filled = filled_quantity
            self.rest(book, order)
        if purse.available < need:
            self.funds.ask_ahead(purse, need, time_ns)
        result = (sequence, client_order_id, order_id, status, filled_quantity, left, 0, order.close_reason, False, 0)
        return _new(Result, result)

    def trader_of(self, book: Book, account: int) -> Trader:
        """Return an account as it is in a book, a new one the first time."""
        trader = book.traders.get(account)
        if trader is None:
            instrument = book.instrument
            trader = self.funds.trader(account, instrument.base_asset, instrument.quote_asset)
            book.traders[account] = trader
        return trader

    def _repeat(self, first: Order, request: PlaceOrder) -> Result:
        """Answer an order whose name is known with its first outcome, if it is the same order."""
        if first.request[:-1] != request[:-1]:
            return self.refuse(request.client_order_id, RejectReason.CLIENT_ORDER_ID_REUSED)
        order_id, filled = first.order_id, first.rested_filled
        if first.parked:
            answer = (0, _PENDING, 0, request.quantity, 0, 0)
        elif first.reject_reason:
            answer = (0, _REJECTED, 0, 0, first.reject_reason, 0)
        elif filled < 0:
            answer = (order_id, int(first.status), first.filled, 0, 0, first.close_reason)
        else:
            answer = (order_id, _OPEN, filled, request.quantity - filled, 0, 0)
        return Result(order_id, request.client_order_id, *answer, duplicate=True)

    def refuse_order(self, request: PlaceOrder, reason: int, parked: parking.Parked | None = None) -> Result:
        """Refuse an order for what it is: a repeat of it gets the same answer, if its name is one to remember."""
        if not is_client_order_id(request.client_order_id):
            return self.refuse(request.client_order_id, RejectReason.CLIENT_ORDER_ID_INVALID)
        order = parked.order if parked is not None else None
        is_known = order is not None
        if order is None:
            order = new_order(self.sequence, request, None, request.price, request.quantity, self.time_ns, False)
        order.reject_reason = int(reason)
        order.update_time_ns = self.time_ns
        if not is_known:
            self.remembered.add(order)
        self.closed.append(order)
        return self.refuse(request.client_order_id, reason)

    # ---------------------------------------------------------------- resting and closing

    def rest(self, book: Book, order: Order) -> None:
        """Put an order into its book, behind all others at its price, and bind the money that it needs."""
        trader = order.trader
        assert trader is not None
        is_buy = order.request.side == _BUY
        (book.bids if is_buy else book.asks).append(order)
        trader.bind(is_buy, book.hold_of(order))
        trader.add(order)
        if order.watched:
            self._watch(order)

    def unrest(self, book: Book, order: Order) -> None:
        """Take an order out of all that `rest` put it into, and free what it holds."""
        level, trader = order.level, order.trader
        assert level is not None
        assert trader is not None
        side = level.side
        side.remove(order, level)
        trader.remove(order)
        # Not its request is asked for the side: of an old order it would have to be fetched from memory.
        is_buy = side is book.bids
        trader.bind(is_buy, -(book.cost(order.price, order.open) if is_buy else order.open * book.base_unit))
        if order.watched:
            self.unwatch(order)

    def _watch(self, order: Order) -> None:
        request = order.request
        if request.time_in_force == _GTD:
            self.timers.add(request.expire_time_ns, Timer(_EXPIRY, order.account, order.order_id))
        if request.session:
            self.sessions.setdefault(request.session, {})[order.order_id] = order

    def unwatch(self, order: Order) -> None:
        """Let no timer or session look for an order any longer."""
        request = order.request
        if request.time_in_force == _GTD:
            self.timers.remove(request.expire_time_ns, Timer(_EXPIRY, order.account, order.order_id))
        if request.session:
            orders = self.sessions[request.session]
            del orders[order.order_id]
            if not orders:
                del self.sessions[request.session]

    def close(self, book: Book, order: Order, reason: int) -> None:
        """Take a resting order out of the book for a reason."""
        self.unrest(book, order)
        self.close_taker(order, book.bids.symbol, reason)

    def close_taker(self, order: Order, symbol: str, reason: int) -> None:
        """Close an order that rests nowhere, for a reason."""
        order.close_reason = reason
        order.update_time_ns = self.time_ns
        self.events.append((_CLOSED, self.sequence, symbol, order.order_id, reason, order.open))
        self.closed.append(order)

    def amend(self, command: c.AmendOrder, parked: parking.Parked | None = None) -> Result:
        """Change an open order; `parked`: the command has waited for money."""
        return amend(self, command, parked)

    # ---------------------------------------------------------------- cancel

    def find(self, account: int, symbol: str, client_order_id: str, order_id: int) -> Order | None:
        """Return an order of the account, open or remembered, by client order id or else order id."""
        return self.remembered.find(account, symbol, client_order_id, order_id)

    def refuse_closed(self, command: CancelOrder | c.AmendOrder, order: Order | None) -> Result:
        """Refuse a command that names no order that is open; `order`: the one that it names."""
        if order is not None and order.parked:
            return self.refuse(command.client_order_id, RejectReason.ORDER_PENDING_FUNDS)
        if order is not None and not order.reject_reason:
            return self.result_of(order, reject_reason=RejectReason.ORDER_CLOSED)
        known = command.instrument in self.books
        reason = RejectReason.ORDER_UNKNOWN if known else RejectReason.INSTRUMENT_UNKNOWN
        return self.refuse(command.client_order_id, reason)

    def _cancel(self, command: CancelOrder) -> Result:
        account, symbol, client_order_id, order_id = command
        if not self.stages.is_open:
            reason = self.stages.refuses_cancel(symbol)
            if reason:
                return self.refuse(client_order_id, reason)
        order: Order | None = self.remembered.with_name(account, client_order_id)
        if order is None:
            order = self.find(account, symbol, client_order_id, order_id)
            if order is None:
                return self.refuse_closed(command, order)
            client_order_id = order.request.client_order_id
        level = order.level
        if level is None or level.side.symbol != symbol:
            if order.parked and order.request.instrument == symbol:
                return parking.cancel(self, order, _REQUESTED)
            return self.refuse_closed(command, self.find(account, symbol, client_order_id, order_id))
        self.close(self.books[symbol], order, _REQUESTED)
        filled = order.quantity - order.open
        result = (self.sequence, client_order_id, order.order_id, _CANCELLED, filled, 0, 0, _REQUESTED, False, 0)
        return _new(Result, result)

    # ---------------------------------------------------------------- timers

    def set_switch(self, account: int, trigger_time_ns: int) -> None:
        """Arm the dead man's switch of an account, or disarm it with 0."""
        before_ns = self.switches.pop(account, 0)
        timer = Timer(_SWITCH, account, 0)
        if before_ns:
            self.timers.remove(before_ns, timer)
        if trigger_time_ns:
            self.switches[account] = trigger_time_ns
            self.timers.add(trigger_time_ns, timer)

    def next_timer_ns(self) -> int | None:
        """When a `Tick` is due, or None."""
        timer_ns, idle_ns = self.timers.next_ns(), self.funds.next_idle_ns()
        if timer_ns is None or idle_ns is None:
            return idle_ns if timer_ns is None else timer_ns
        return min(timer_ns, idle_ns)

    # ---------------------------------------------------------------- by the operator

    def _set_stage(self, command: c.SetStage) -> Result:
        if command.stage not in _STAGES or command.orders_per_s < 0:
            return self.refuse("", RejectReason.MALFORMED)
        if command.instrument and command.instrument not in self.books:
            return self.refuse("", RejectReason.INSTRUMENT_UNKNOWN)
        row = self.stages.set(command, self.time_ns)
        self.events.append(StageChanged(int(EventKind.STAGE), self.sequence, *row))
        return self.done()

    def _add_instrument(self, command: c.AddInstrument) -> Result:
        instrument = command.instrument
        book = self.books.get(instrument.symbol)
        if book is not None:
            same = book.instrument == instrument
            return self.done() if same else self.refuse("", RejectReason.INSTRUMENT_EXISTS)
        try:
            instrument.check()
        except InstrumentInvalid:
            return self.refuse("", RejectReason.INSTRUMENT_INVALID)
        self.books[instrument.symbol] = Book(instrument, self.funds.purse(HOUSE, instrument.quote_asset))
        self.events.append(InstrumentAdded(int(EventKind.INSTRUMENT), self.sequence, instrument))
        return self.done()

    # ---------------------------------------------------------------- results, checks

    def refuse(self, client_order_id: str, reason: int) -> Result:
        """Return the result of a command that changed nothing."""
        return Result(self.sequence, client_order_id, 0, _REJECTED, 0, 0, int(reason))

    def done(self, *, cancelled_orders: int = 0) -> Result:
        """Return the result of a command about no order in particular."""
        return Result(self.sequence, "", 0, 0, 0, 0, cancelled_orders=cancelled_orders)

    def result_of(self, order: Order, reject_reason: int = 0) -> Result:
        """Return the result of a command about an order, as the order is now."""
        return Result(
            self.sequence,
            order.request.client_order_id,
            order.order_id,
            int(order.status),
            order.filled,
            order.open if order.level is not None else 0,
            int(reject_reason),
            order.close_reason,
        )

    def validate(self) -> None:
        """Check what must hold between batches; AssertionError says what does not. Reads the whole state."""
        validate(self)
