"""The shard machine: the books of some instruments, as a deterministic function of its commands.

Every command takes the next sequence, whether it is applied or refused. Time comes with each batch and never goes
back. Nothing here reads a clock, iterates a set or touches a float, so that replaying the journal gives the same state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from exchange.engine import commands as c
from exchange.engine.book import Book, BookSide
from exchange.engine.events import (
    Event,
    EventKind,
    InstrumentAdded,
    OrderAccepted,
    OrderAmended,
    OrderClosed,
    Result,
    StageChanged,
)
from exchange.engine.instrument import InstrumentInvalid
from exchange.engine.matching import can_fill, match
from exchange.engine.orders import Order
from exchange.engine.rules import is_client_order_id, refuse_amend, refuse_place
from exchange.engine.words import CloseReason, OrderStatus, OrderType, RejectReason, Side, Stage, TimeInForce

NS_PER_S = 1_000_000_000
CLOSED_KEPT_NS = 600 * NS_PER_S
"""How long the client order id of a closed order is remembered ..."""
CLOSED_KEPT_NS_MIN = 10 * NS_PER_S
"""... and how long even when there are more than the next figure: twice the longest request deadline."""
CLOSED_KEPT_MAX = 1_000_000
# Bounds what one command pays for forgetting; higher than what most commands can add.
_FORGET_PER_COMMAND = 8

_BUY = int(Side.BUY)
_MARKET = int(OrderType.MARKET)
_IOC, _FOK, _GTD = int(TimeInForce.IOC), int(TimeInForce.FOK), int(TimeInForce.GTD)
_OPEN, _FILLED, _CANCELLED, _REJECTED = (
    int(s) for s in (OrderStatus.OPEN, OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED)
)
_NOT_FILLED = int(CloseReason.NOT_FILLED)
_ACCEPTED, _CLOSED, _AMENDED = int(EventKind.ACCEPTED), int(EventKind.CLOSED), int(EventKind.AMENDED)
_STAGE_OPEN = int(Stage.OPEN)
_EXPIRY, _SWITCH = 0, 1
# Makes a named tuple from a tuple of its fields at a third of the cost of calling its class.
_new = tuple.__new__

_STAGE_REFUSES = {
    Stage.REPLAYING: RejectReason.STAGE_REPLAYING,
    Stage.CANCEL_ONLY: RejectReason.STAGE_CANCEL_ONLY,
    Stage.POST_ONLY: RejectReason.STAGE_POST_ONLY,
    Stage.LIMITED: RejectReason.STAGE_LIMITED,
    Stage.HALTED: RejectReason.STAGE_HALTED,
}


class Applied(NamedTuple):
    """What a batch did: one result per command, and the events in order."""

    results: list[Result]
    events: list[Event]


class Shard:
    """Books, open orders, remembered client order ids, timers and the stage of one shard."""

    VERSION = 1

    def __init__(self) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.stage = int(Stage.REPLAYING)
        self.orders_per_s = 0
        self.books: dict[str, Book] = {}
        self.closed: deque[Order] = deque()
        self.switches: dict[int, int] = {}
        """Dead man's switches: account to time."""
        # What LIMITED may still let through, in orders x 1e9, and when that was reckoned.
        self.allowance = 0
        self.allowance_time_ns = 0
        self.orders_by_client_id: dict[int, dict[str, Order]] = {}
        """By account, then client order id: open orders and remembered closed ones, oldest first."""
        self._sessions: dict[int, dict[int, Order]] = {}
        self._timers: list[tuple[int, int, int, int, str]] = []
        self._expiring = 0
        self._events: list[Event] = []
        self._handlers: dict[type, Callable[[Any], Result]] = {
            c.PlaceOrder: self._place,
            c.CancelOrder: self._cancel,
            c.AmendOrder: self._amend,
            c.CancelAll: self._cancel_all,
            c.CancelSessions: self._cancel_sessions,
            c.CancelAllAfter: self._cancel_all_after,
            c.Tick: self._tick,
            c.SetStage: self._set_stage,
            c.AddInstrument: self._add_instrument,
        }

    # ---------------------------------------------------------------- batches, time

    def apply(self, time_ns: int, batch: Sequence[c.Command]) -> Applied:
        """Apply commands in order at one time (ns since the epoch); time before the machine's own counts as its own."""
        self.time_ns = max(self.time_ns, time_ns)
        results: list[Result] = []
        self._events = events = []
        handlers = self._handlers
        closed = self.closed
        forget_before_ns = self.time_ns - CLOSED_KEPT_NS
        for command in batch:
            self.sequence += 1
            results.append(handlers[type(command)](command))
            if closed and (closed[0].update_time_ns < forget_before_ns or len(closed) > CLOSED_KEPT_MAX):
                self._forget()
        return Applied(results, events)

    def _forget(self) -> None:
        """Drop the oldest closed orders that need not be remembered any longer."""
        closed = self.closed
        for _ in range(_FORGET_PER_COMMAND):
            if not closed:
                return
            age_ns = self.time_ns - closed[0].update_time_ns
            if age_ns <= CLOSED_KEPT_NS and (len(closed) <= CLOSED_KEPT_MAX or age_ns <= CLOSED_KEPT_NS_MIN):
                return
            request = closed.popleft().request
            del self.orders_by_client_id[request.account][request.client_order_id]

    # ---------------------------------------------------------------- place

    def _place(self, request: c.PlaceOrder) -> Result:
        account = request.account
        client_order_id = request.client_order_id
        symbol = request.instrument
        known = self.orders_by_client_id.get(account)
        if known is None:
            known = self.orders_by_client_id[account] = {}
        first = known.get(client_order_id)
        if first is not None:
            return self._repeat(first, request)
        if self.stage != _STAGE_OPEN:
            reason = self._stage_refuses_place(request)
            if reason:
                return self._refuse(client_order_id, reason)
        book = self.books.get(symbol)
        if not is_client_order_id(client_order_id):
            return self._refuse(client_order_id, RejectReason.CLIENT_ORDER_ID_INVALID)
        if book is None:
            return self._refuse_order(request, RejectReason.INSTRUMENT_UNKNOWN)
        own_orders = book.open_orders.get(account)
        if own_orders is None:
            own_orders = book.open_orders[account] = {}
        reason = refuse_place(request, book, len(own_orders), self.time_ns)
        if reason:
            return self._refuse_order(request, reason)

        sequence = self.sequence
        price = request.price
        if request.type == _MARKET:
            lowest, highest = book.band()
            price = highest if request.side == _BUY else lowest
        own, opposite = (book.bids, book.asks) if request.side == _BUY else (book.asks, book.bids)
        best = opposite.best
        takes = best is not None and best.price * opposite.sign >= price * opposite.sign
        if takes and request.post_only:
            return self._refuse_order(request, RejectReason.WOULD_TAKE)
        if not self._reserve(request, price):
            return self._refuse_order(request, RejectReason.INSUFFICIENT_FUNDS)

        order = known[client_order_id] = Order(sequence, request, price, self.time_ns)
        self._events.append(
            _new(
                OrderAccepted,
                (
                    _ACCEPTED,
                    sequence,
                    symbol,
                    sequence,
                    account,
                    client_order_id,
                    request.side,
                    price,
                    request.quantity,
                ),
            )
        )
        time_in_force = request.time_in_force
        close_reason = 0
        if takes and (time_in_force != _FOK or can_fill(book, opposite, order)):
            close_reason = match(book, opposite, order, sequence, self._close, self._events)
        left = order.open
        if not left:
            status = _FILLED
            self.closed.append(order)
        elif close_reason or request.type == _MARKET or time_in_force in (_IOC, _FOK):
            status = _CANCELLED
            close_reason = close_reason or _NOT_FILLED
            self._close_taker(order, close_reason)
        else:
            status = _OPEN
            self._rest(book, own, order)
        order.result = result = _new(
            Result,
            (
                sequence,
                client_order_id,
                sequence,
                status,
                order.quantity - left,
                left if status == _OPEN else 0,
                0,
                close_reason,
                False,
                0,
            ),
        )
        return result

    def _reserve(self, request: c.PlaceOrder, price: int) -> bool:
        """Hold what the order may cost at its worst price. Accounts have no funds yet: every order is covered."""
        return True

    def _stage_refuses_place(self, request: c.PlaceOrder) -> int:
        stage = self.stage
        if stage == Stage.LIMITED:
            return 0 if self._within_rate() else RejectReason.STAGE_LIMITED
        if stage == Stage.POST_ONLY and request.post_only:
            return 0
        return _STAGE_REFUSES[Stage(stage)]

    def _within_rate(self) -> bool:
        """Take one order from the rate of LIMITED, which saves up at most a tenth of a second's worth."""
        elapsed_ns = self.time_ns - self.allowance_time_ns
        self.allowance_time_ns = self.time_ns
        allowance_max = max(self.orders_per_s * NS_PER_S // 10, NS_PER_S)
        self.allowance = min(self.allowance + elapsed_ns * self.orders_per_s, allowance_max)
        if self.allowance < NS_PER_S:
            return False
        self.allowance -= NS_PER_S
        return True

    def _repeat(self, first: Order, request: c.PlaceOrder) -> Result:
        if first.request[:-1] != request[:-1]:
            return self._refuse(request.client_order_id, RejectReason.CLIENT_ORDER_ID_REUSED)
        assert first.result is not None
        return first.result._replace(duplicate=True)

    def _refuse_order(self, request: c.PlaceOrder, reason: int) -> Result:
        """Refuse an order for what it is: a repeat of it gets the same answer."""
        order = Order(self.sequence, request, request.price, self.time_ns)
        order.reject_reason = int(reason)
        order.result = self._refuse(request.client_order_id, reason)
        self.orders_by_client_id[request.account][request.client_order_id] = order
        self.closed.append(order)
        return order.result

    def _refuse(self, client_order_id: str, reason: int) -> Result:
        return Result(self.sequence, client_order_id, 0, _REJECTED, 0, 0, int(reason))

    # ---------------------------------------------------------------- resting and closing

    def _rest(self, book: Book, side: BookSide, order: Order) -> None:
        side.append(order)
        request = order.request
        book.open_orders[request.account][order.order_id] = order
        if request.time_in_force == _GTD:
            self._expiring += 1
            self._arm(request.expire_time_ns, _EXPIRY, request.account, order.order_id, request.instrument)
        if request.session:
            self._sessions.setdefault(request.session, {})[order.order_id] = order

    def index_open_order(self, order: Order) -> None:
        """Enter an order of a restored book in the tables of open orders."""
        request = order.request
        book = self.books[request.instrument]
        book.open_orders.setdefault(request.account, {})[order.order_id] = order
        if request.session:
            self._sessions.setdefault(request.session, {})[order.order_id] = order

    def _unrest(self, book: Book, order: Order) -> None:
        request = order.request
        (book.bids if request.side == _BUY else book.asks).remove(order)
        del book.open_orders[request.account][order.order_id]
        if request.time_in_force == _GTD:
            self._expiring -= 1
        if request.session:
            orders = self._sessions[request.session]
            del orders[order.order_id]
            if not orders:
                del self._sessions[request.session]

    def _close(self, book: Book, order: Order, reason: int) -> None:
        """Take a resting order out of the book, for a reason or, with 0, because it is filled."""
        self._unrest(book, order)
        order.update_time_ns = self.time_ns
        if reason:
            order.close_reason = reason = int(reason)
            self._events.append(
                _new(
                    OrderClosed,
                    (_CLOSED, self.sequence, book.instrument.symbol, order.order_id, reason, order.open),
                )
            )
        else:
            order.open = 0
        self.closed.append(order)

    def _close_taker(self, order: Order, reason: int) -> None:
        order.close_reason = reason
        order.update_time_ns = self.time_ns
        symbol = order.request.instrument
        self._events.append(_new(OrderClosed, (_CLOSED, self.sequence, symbol, order.order_id, reason, order.open)))
        self.closed.append(order)

    # ---------------------------------------------------------------- cancel, amend

    def find(self, account: int, symbol: str, client_order_id: str, order_id: int) -> Order | None:
        """Return an order of the account, open or remembered, by client order id or else order id."""
        known = self.orders_by_client_id.get(account, {})
        if client_order_id:
            order = known.get(client_order_id)
            return order if order is not None and order.request.instrument == symbol else None
        book = self.books.get(symbol)
        order = book.open_orders.get(account, {}).get(order_id) if book else None
        if order is None:
            closed = (o for o in known.values() if o.order_id == order_id and o.request.instrument == symbol)
            order = next(closed, None)
        return order

    def _find_open(self, command: c.CancelOrder | c.AmendOrder) -> tuple[Order | None, Result | None]:
        """Find the open order that a command names, or the result that refuses the command."""
        order = self.find(command.account, command.instrument, command.client_order_id, command.order_id)
        if order is not None and order.level is not None:
            return order, None
        if order is not None and not order.reject_reason:
            return None, self._result_of(order, reject_reason=RejectReason.ORDER_CLOSED)
        known = command.instrument in self.books
        reason = RejectReason.ORDER_UNKNOWN if known else RejectReason.INSTRUMENT_UNKNOWN
        return None, self._refuse(command.client_order_id, reason)

    def _cancel(self, command: c.CancelOrder) -> Result:
        if self.stage in (Stage.REPLAYING, Stage.HALTED):
            return self._refuse(command.client_order_id, _STAGE_REFUSES[Stage(self.stage)])
        order, refusal = self._find_open(command)
        if order is None:
            assert refusal is not None
            return refusal
        self._close(self.books[command.instrument], order, CloseReason.REQUESTED)
        return self._result_of(order)

    def _amend(self, command: c.AmendOrder) -> Result:
        if self.stage not in (Stage.OPEN, Stage.LIMITED, Stage.POST_ONLY):
            return self._refuse(command.client_order_id, _STAGE_REFUSES[Stage(self.stage)])
        order, refusal = self._find_open(command)
        if order is None:
            assert refusal is not None
            return refusal
        book = self.books[command.instrument]
        price = command.price or order.price
        if command.quantity:
            open_quantity = command.quantity - order.filled
        else:
            open_quantity = command.open_quantity or order.open
        keeps_place = price == order.price and open_quantity <= order.open and not command.requeue
        own, opposite = (book.bids, book.asks) if order.request.side == _BUY else (book.asks, book.bids)
        best = opposite.best
        takes = best is not None and best.price * opposite.sign >= price * opposite.sign

        reason = refuse_amend(command, order, price, open_quantity, book)
        if not reason and takes and order.request.post_only:
            reason = RejectReason.WOULD_TAKE
        if not reason and takes and self.stage == Stage.POST_ONLY:
            reason = RejectReason.STAGE_POST_ONLY
        if not reason and not keeps_place and self.stage == Stage.LIMITED and not self._within_rate():
            reason = RejectReason.STAGE_LIMITED
        if reason:
            if command.cancel_on_fail:
                self._close(book, order, CloseReason.AMEND_FAILED)
            return self._result_of(order, reject_reason=reason)

        if keeps_place:
            assert order.level is not None
            order.level.quantity -= order.open - open_quantity
        else:
            self._unrest(book, order)
            order.priority = self.sequence
        order.price = price
        order.quantity += open_quantity - order.open
        order.open = open_quantity
        order.update_time_ns = self.time_ns
        self._events.append(
            OrderAmended(
                _AMENDED,
                self.sequence,
                command.instrument,
                order.order_id,
                price,
                order.quantity,
                open_quantity,
                keeps_place,
            )
        )
        if not keeps_place:
            close_reason = match(book, opposite, order, self.sequence, self._close, self._events) if takes else 0
            if close_reason:
                self._close_taker(order, close_reason)
            elif order.open:
                self._rest(book, own, order)
            else:
                self.closed.append(order)
        return self._result_of(order)

    def _cancel_all(self, command: c.CancelAll) -> Result:
        if self.stage in (Stage.REPLAYING, Stage.HALTED):
            return self._refuse("", _STAGE_REFUSES[Stage(self.stage)])
        if command.instrument and command.instrument not in self.books:
            return self._refuse("", RejectReason.INSTRUMENT_UNKNOWN)
        if command.side not in (0, Side.BUY, Side.SELL):
            return self._refuse("", RejectReason.SIDE_INVALID)
        cancelled = self._cancel_orders_of(command.account, command.instrument, command.side, command.reason)
        return self._done(cancelled_orders=cancelled)

    def _cancel_orders_of(self, account: int, symbol: str, side: int, reason: int) -> int:
        books = [self.books[symbol]] if symbol else self.books.values()
        cancelled = 0
        for book in books:
            for order in list(book.open_orders.get(account, {}).values()):
                if not side or order.request.side == side:
                    self._close(book, order, reason)
                    cancelled += 1
        return cancelled

    def _cancel_sessions(self, command: c.CancelSessions) -> Result:
        cancelled = 0
        for session in [s for s in self._sessions if command.first <= s <= command.last]:
            for order in list(self._sessions[session].values()):
                self._close(self.books[order.request.instrument], order, CloseReason.DISCONNECTED)
                cancelled += 1
        return self._done(cancelled_orders=cancelled)

    # ---------------------------------------------------------------- timers

    def _cancel_all_after(self, command: c.CancelAllAfter) -> Result:
        if command.trigger_time_ns:
            self.switches[command.account] = command.trigger_time_ns
            self._arm(command.trigger_time_ns, _SWITCH, command.account, 0, "")
        else:
            self.switches.pop(command.account, None)
        return self._done()

    def _arm(self, time_ns: int, kind: int, account: int, order_id: int, symbol: str) -> None:
        heappush(self._timers, (time_ns, kind, account, order_id, symbol))
        if len(self._timers) > 2 * (self._expiring + len(self.switches)) + 1_000:
            # Most of them belong to orders and switches that are gone.
            self.rebuild_timers()

    def rebuild_timers(self) -> None:
        """Make the timers anew from the open orders and the switches."""
        timers = [(due_ns, _SWITCH, account, 0, "") for account, due_ns in self.switches.items()]
        for symbol, book in self.books.items():
            for order in book.orders():
                if order.request.time_in_force == _GTD:
                    request = order.request
                    timers.append((request.expire_time_ns, _EXPIRY, request.account, order.order_id, symbol))
        self._expiring = len(timers) - len(self.switches)
        heapify(timers)
        self._timers = timers

    def next_timer_ns(self) -> int | None:
        """When a `Tick` is due, or None. What is due may turn out to be gone."""
        return self._timers[0][0] if self._timers else None

    def _tick(self, _: c.Tick) -> Result:
        cancelled = 0
        while self._timers and self._timers[0][0] <= self.time_ns:
            due_ns, kind, account, order_id, symbol = heappop(self._timers)
            if kind == _EXPIRY:
                book = self.books[symbol]
                order = book.open_orders[account].get(order_id)
                if order is not None:
                    self._close(book, order, CloseReason.EXPIRED)
                    cancelled += 1
            elif self.switches.get(account) == due_ns:
                del self.switches[account]
                cancelled += self._cancel_orders_of(account, "", 0, CloseReason.DEAD_MANS_SWITCH)
        return self._done(cancelled_orders=cancelled)

    # ---------------------------------------------------------------- by the operator

    def _set_stage(self, command: c.SetStage) -> Result:
        self.stage = int(Stage(command.stage))
        self.orders_per_s = command.orders_per_s
        self.allowance, self.allowance_time_ns = 0, self.time_ns
        self._events.append(
            StageChanged(int(EventKind.STAGE), self.sequence, self.stage, command.orders_per_s, command.reason)
        )
        return self._done()

    def _add_instrument(self, command: c.AddInstrument) -> Result:
        instrument = command.instrument
        book = self.books.get(instrument.symbol)
        if book is not None:
            same = book.instrument == instrument
            return self._done() if same else self._refuse("", RejectReason.INSTRUMENT_EXISTS)
        try:
            instrument.check()
        except InstrumentInvalid:
            return self._refuse("", RejectReason.INSTRUMENT_INVALID)
        self.books[instrument.symbol] = Book(instrument)
        self._events.append(InstrumentAdded(int(EventKind.INSTRUMENT), self.sequence, instrument))
        return self._done()

    # ---------------------------------------------------------------- results, checks

    def _done(self, *, cancelled_orders: int = 0) -> Result:
        return Result(self.sequence, "", 0, 0, 0, 0, cancelled_orders=cancelled_orders)

    def _result_of(self, order: Order, reject_reason: int = 0) -> Result:
        status = order.status
        return Result(
            self.sequence,
            order.request.client_order_id,
            order.order_id,
            int(status),
            order.filled,
            order.open if status == OrderStatus.OPEN else 0,
            int(reject_reason),
            order.close_reason,
        )

    def validate(self) -> None:
        """Check what must hold between batches; AssertionError says what does not. Reads the whole state."""
        expiring = in_sessions = 0
        for symbol, book in self.books.items():
            assert book.instrument.symbol == symbol
            book.validate()
            for order in book.orders():
                request = order.request
                known = self.orders_by_client_id[request.account].get(request.client_order_id)
                assert known is order, f"{order.describe()}: rests under a client order id that is not its own"
                expiring += request.time_in_force == _GTD
                if request.session:
                    assert self._sessions[request.session][order.order_id] is order
                    in_sessions += 1
        assert in_sessions == sum(map(len, self._sessions.values()))
        assert expiring == self._expiring
        known_orders = sum(map(len, self.orders_by_client_id.values()))
        open_orders = sum(len(orders) for book in self.books.values() for orders in book.open_orders.values())
        assert known_orders == open_orders + len(self.closed), "an order is neither open nor closed, or both"
        assert all(order.level is None for order in self.closed)
        waiting = {(entry[2], entry[0]) for entry in self._timers if entry[1] == _SWITCH}
        assert all(item in waiting for item in self.switches.items()), "a switch without a timer"
