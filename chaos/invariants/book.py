"""Books kept by price-time priority from a shard's commands and events, apart from the engine's own.

What is taken on trust is only whether a command had the money: an order is entered when the history says that it was
accepted. Whom it met, at which price, how much, in which order, what was left and where it went is worked out here and
compared with what the history says.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.invariants.commands import Amend, Cancel, CancelAll, Command, Place
from chaos.invariants.findings import Findings

BUY, SELL = 1, 2
MARKET = 2
IOC, FOK = 2, 3
CANCEL_MAKER, CANCEL_TAKER, CANCEL_BOTH = 1, 2, 3
ACCEPTED, TRADED, CLOSED, AMENDED, STAGE, INSTRUMENT, ESCROW, RESOLVED = range(1, 9)
REQUESTED, NOT_FILLED, SELF_TRADE, AMEND_FAILED = 1, 2, 3, 7
REPLAYING, CANCEL_ONLY, POST_ONLY, LIMITED, OPEN, HALTED = range(1, 7)
WOULD_TAKE = 402
PENDING = 5
_OF_ORDERS = frozenset((ACCEPTED, TRADED, CLOSED, AMENDED))

Event = tuple[Any, ...]
"""An event as a shard's feed has it; of trades without the fees, which the auditor checks."""


@dataclass(slots=True)
class Resting:
    """An open order. `arrival` is the sequence at which it came to its place."""

    order_id: int
    account: int
    id: str
    side: int
    price: int
    quantity: int
    open: int
    arrival: int
    post_only: bool
    prevention: int

    @property
    def key(self) -> tuple[int, int]:
        """Best first."""
        return (-self.price if self.side == BUY else self.price), self.arrival


@dataclass(slots=True)
class Side:
    """One side: the keys of its orders in priority order, and what is visible of it."""

    keys: list[tuple[int, int]] = field(default_factory=list)
    orders: dict[tuple[int, int], Resting] = field(default_factory=dict)
    levels: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Price to (quantity, orders)."""

    def best(self) -> Resting | None:
        return self.orders[self.keys[0]] if self.keys else None

    def __iter__(self) -> Iterator[Resting]:
        return (self.orders[key] for key in self.keys)

    def add(self, order: Resting) -> None:
        insort(self.keys, order.key)
        self.orders[order.key] = order
        self._change(order.price, order.open, 1)

    def remove(self, order: Resting) -> None:
        del self.keys[bisect_left(self.keys, order.key)]
        del self.orders[order.key]
        self._change(order.price, -order.open, -1)

    def reduce(self, order: Resting, quantity: int) -> None:
        order.open -= quantity
        self._change(order.price, -quantity, 0)

    def _change(self, price: int, quantity: int, orders: int) -> None:
        before = self.levels.get(price, (0, 0))
        after = before[0] + quantity, before[1] + orders
        if after[1]:
            self.levels[price] = after
        else:
            del self.levels[price]


class Market:
    """The book of one instrument, and the last price."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.sides = {BUY: Side(), SELL: Side()}
        self.open: dict[int, Resting] = {}
        self.by_name: dict[tuple[int, str], Resting] = {}
        self.trade_id = 0

    def rest(self, order: Resting) -> None:
        self.sides[order.side].add(order)
        self.open[order.order_id] = order
        self.by_name[order.account, order.id] = order

    def leave(self, order: Resting) -> None:
        self.sides[order.side].remove(order)
        del self.open[order.order_id]
        # In a broken history two orders may have one name.
        if self.by_name.get((order.account, order.id)) is order:
            del self.by_name[order.account, order.id]

    def meets(self, side: int, price: int) -> Resting | None:
        """Return the best order of the other side that an order at this price would trade with."""
        best = self.sides[BUY + SELL - side].best()
        if best is None or (best.price > price if side == BUY else best.price < price):
            return None
        return best

    def named(self, command: Cancel | Amend) -> Resting | None:
        """Return the open order that a command names."""
        if command.id:
            return self.by_name.get((command.account, command.id))
        order = self.open.get(command.order_id)
        return order if order is not None and order.account == command.account else None


class Books:
    """All books of one shard. `step` takes what the history has, a command at a time."""

    def __init__(self, findings: Findings, shard: str) -> None:
        self.markets: dict[str, Market] = {}
        self.stages = {"": REPLAYING}
        """By instrument, "" for the whole shard: what passes, passes both."""
        self.diverged = False
        """Set once the history is not what these books make of it: they say nothing from then on."""
        self.accepted: dict[tuple[int, str], int] = {}
        """The order id under which a client order id has taken effect."""
        self._placed: dict[int, Place] = {}
        """Orders that wait for money, by the sequence of their command."""
        self._amending: dict[int, Amend] = {}
        self._findings = findings
        self._shard = shard
        self._place = ""

    def step(self, sequence: int, command: Command, result: Sequence[Any], events: Sequence[Event], place: str) -> None:
        """Take one command: its result, the events of its sequence, and where it stands in the journal."""
        for event in events:
            if event[0] == STAGE:
                self.stages[event[2]] = event[3]
            elif event[0] == INSTRUMENT:
                self.markets.setdefault(event[2][0], Market(event[2][0]))
        if self.diverged:
            return
        self._place = place
        answered, status, reject = result[0], result[3], result[6]
        if status == PENDING and not reject and answered == sequence:
            if isinstance(command, Place):
                self._placed[sequence] = command
            elif isinstance(command, Amend):
                self._amending[sequence] = command
        found = [event[:8] if event[0] == TRADED else tuple(event) for event in events if event[0] in _OF_ORDERS]
        # A repeat is answered by the first outcome, and says nothing of the book now.
        is_new = answered == sequence
        expected = self._expect(sequence, command, reject if is_new else 0, found)
        if found != expected:
            self.diverged = True
            self._violate(
                "I5",
                f"command {sequence}: what happened is not what price-time priority makes of it; "
                "the books of this shard are not followed from here on",
                f"{command}",
                *(f"expected {event}" for event in expected),
                *(f"found    {event}" for event in found),
            )
            return
        for event in events:
            if event[0] == RESOLVED:
                placed = self._placed.pop(event[4], None)
                self._amending.pop(event[4], None)
                if placed is not None and event[6]:
                    # Also one that was cancelled while it waited, and never came into the book.
                    self._check_first(placed.account, placed.id, event[6])
        if found:
            self._check_uncrossed(sequence, self.markets[found[0][2]])

    def _expect(self, sequence: int, command: Command, reject: int, found: Sequence[Event]) -> list[Event]:
        """Do what the command does to the books; return the events that must tell of it."""
        if isinstance(command, Cancel):
            return [] if self._is_halted(command.instrument) else self._cancel(sequence, command)
        if isinstance(command, CancelAll):
            return [] if self._is_halted(command.instrument) else self._cancel_all(sequence, command)
        if isinstance(command, Amend) and reject and command.cancel_on_fail and found:
            return self._cancel(sequence, Cancel(*command[:4]), AMEND_FAILED)
        if isinstance(command, Place) and reject == WOULD_TAKE:
            self._check_would_take(sequence, command)
        expected: list[Event] = []
        while len(expected) < len(found):
            event = found[len(expected)]
            if event[0] == ACCEPTED:
                more = self._enter(sequence, command, event)
            elif event[0] == AMENDED:
                more = self._amend(sequence, command, event)
            elif event[0] == CLOSED:
                more = self._close(event)
            else:
                more = []
            if not more:
                break
            expected += more
        return expected

    # ---------------------------------------------------------------- commands

    def _enter(self, sequence: int, command: Command, event: Event) -> list[Event]:
        """Enter the order that the event says was accepted; return all that must follow from it."""
        _, _, symbol, order_id, account, name, side, price, quantity = event
        placed = command if order_id == sequence else self._placed.get(order_id)
        where = f"order {order_id} ({name!r} of account {account}) in {symbol}"
        if not isinstance(placed, Place):
            self._violate("I1", f"{where} was accepted, and no command placed it")
            return [event]
        said = (account, name, symbol, side, quantity)
        if said != (placed.account, placed.id, placed.instrument, placed.side, placed.quantity) or (
            placed.type != MARKET and placed.price != price
        ):
            self._violate("I1", f"{where} was accepted as {said} at {price}, and placed as {placed}")
        self._check_first(account, name, order_id)
        self._findings.check("I9 orders that a stage let in")
        for stage in self._stages_of(symbol):
            if stage in (REPLAYING, CANCEL_ONLY, HALTED) or (stage == POST_ONLY and not placed.post_only):
                self._violate("I9", f"{where} was accepted in stage {stage}")
        market = self.markets.setdefault(symbol, Market(symbol))
        prevention = placed.prevention or CANCEL_MAKER
        taker = Resting(
            order_id, account, name, side, price, quantity, quantity, sequence, placed.post_only, prevention
        )
        if placed.post_only and market.meets(side, price) is not None:
            self._violate("I5", f"{where} is post-only at {price}, and was accepted into a book that it crosses")
        expected = [event]
        stopped = False
        if placed.time_in_force != FOK or _can_fill(market, taker):
            stopped = self._match(sequence, market, taker, expected)
        never_rests = placed.type == MARKET or placed.time_in_force in (IOC, FOK)
        if taker.open and (stopped or never_rests):
            reason = SELF_TRADE if stopped else NOT_FILLED
            expected.append((CLOSED, sequence, symbol, order_id, reason, taker.open))
        elif taker.open:
            market.rest(taker)
        return expected

    def _check_first(self, account: int, name: str, order_id: int) -> None:
        self._findings.check("I2 orders that took effect")
        before = self.accepted.setdefault((account, name), order_id)
        if before != order_id:
            self._violate("I2", f"{name!r} of account {account} took effect twice: as orders {before} and {order_id}")

    def _amend(self, sequence: int, command: Command, event: Event) -> list[Event]:
        """Amend as the event says; return all that must follow from it."""
        _, _, symbol, order_id, price, quantity, open_quantity, kept_place = event
        market = self.markets[symbol]
        order = market.open.get(order_id)
        if order is None:
            self._violate("I5", f"order {order_id} in {symbol} was amended and is not open")
            return [event]
        asked = command if isinstance(command, Amend) and self._names(command, order, symbol) else None
        if asked is None:
            asked = next((a for a in self._amending.values() if self._names(a, order, symbol)), None)
        filled = order.quantity - order.open
        if asked is None:
            self._violate("I1", f"order {order_id} in {symbol} was amended, and no command asked for it")
        else:
            left = asked.quantity - filled if asked.quantity else asked.open_quantity or order.open
            keeps = (asked.price or order.price) == order.price and left <= order.open and not asked.requeue
            wanted = asked.price or order.price, filled + left, left, keeps
            if wanted != (price, quantity, open_quantity, kept_place):
                self._violate("I5", f"order {order_id} was amended to {event[4:]}, expected {wanted}")
        expected = [event]
        if kept_place:
            market.sides[order.side].reduce(order, order.open - open_quantity)
            order.quantity = quantity
            return expected
        market.leave(order)
        order.price, order.quantity, order.open, order.arrival = price, quantity, open_quantity, sequence
        if order.post_only and market.meets(order.side, price) is not None:
            self._violate("I5", f"order {order_id} is post-only, and was amended to {price}, which crosses")
        if self._match(sequence, market, order, expected):
            expected.append((CLOSED, sequence, symbol, order_id, SELF_TRADE, order.open))
        elif order.open:
            market.rest(order)
        return expected

    def _names(self, amend: Amend, order: Resting, symbol: str) -> bool:
        return amend.instrument == symbol and self.markets[symbol].named(amend) is order

    def _match(self, sequence: int, market: Market, taker: Resting, expected: list[Event]) -> bool:
        """Trade by price, then time; add what must be told. Return whether self-trade prevention stopped the taker."""
        while taker.open and (maker := market.meets(taker.side, taker.price)) is not None:
            if maker.account == taker.account:
                if taker.prevention in (CANCEL_MAKER, CANCEL_BOTH):
                    market.leave(maker)
                    expected.append((CLOSED, sequence, market.symbol, maker.order_id, SELF_TRADE, maker.open))
                if taker.prevention in (CANCEL_TAKER, CANCEL_BOTH):
                    return True
                continue
            quantity = min(taker.open, maker.open)
            market.trade_id += 1
            ids = market.trade_id, maker.order_id, taker.order_id
            expected.append((TRADED, sequence, market.symbol, *ids, maker.price, quantity))
            self._findings.check("I5 trades")
            taker.open -= quantity
            if quantity == maker.open:
                market.leave(maker)
            else:
                market.sides[maker.side].reduce(maker, quantity)
        return False

    def _cancel(self, sequence: int, command: Cancel, reason: int = REQUESTED) -> list[Event]:
        market = self.markets.get(command.instrument)
        order = market.named(command) if market is not None else None
        if market is None or order is None:
            return []
        market.leave(order)
        return [(CLOSED, sequence, command.instrument, order.order_id, reason, order.open)]

    def _cancel_all(self, sequence: int, command: CancelAll) -> list[Event]:
        """Instrument by instrument, in the order in which the orders came to rest."""
        expected: list[Event] = []
        for market in self.markets.values():
            if command.instrument not in ("", market.symbol) or self._is_halted(market.symbol):
                continue
            mine = [o for o in market.open.values() if o.account == command.account and command.side in (0, o.side)]
            for order in mine:
                market.leave(order)
                expected.append((CLOSED, sequence, market.symbol, order.order_id, command.reason, order.open))
        return expected

    def _close(self, event: Event) -> list[Event]:
        """Take an order out that a timer, an operator or the end of its session closed."""
        sequence, symbol, order_id, reason = event[1:5]
        market = self.markets[symbol]
        order = market.open.get(order_id)
        if order is None or reason in (REQUESTED, NOT_FILLED, SELF_TRADE):
            return []
        market.leave(order)
        return [(CLOSED, sequence, symbol, order_id, reason, order.open)]

    # ---------------------------------------------------------------- checks

    def _stages_of(self, symbol: str) -> list[int]:
        return [self.stages[name] for name in ("", symbol) if name in self.stages]

    def _is_halted(self, symbol: str) -> bool:
        return any(stage in (REPLAYING, HALTED) for stage in self._stages_of(symbol))

    def _check_would_take(self, sequence: int, command: Place) -> None:
        market = self.markets.get(command.instrument)
        if market is None or market.meets(command.side, command.price) is None:
            self._violate("I5", f"command {sequence}: {command.id!r} was refused as it would take, and would not")

    def _check_uncrossed(self, sequence: int, market: Market) -> None:
        self._findings.check("I5 books that are not crossed")
        bid, ask = market.sides[BUY].best(), market.sides[SELL].best()
        if bid is not None and ask is not None and bid.price >= ask.price:
            self._violate(
                "I5", f"after command {sequence} {market.symbol} is crossed: bid {bid.price}, ask {ask.price}"
            )

    def _violate(self, rule: str, summary: str, *evidence: str) -> None:
        self._findings.violate(rule, f"{self._shard}: {summary}", self._place, *evidence)


def _can_fill(market: Market, taker: Resting) -> bool:
    """Whether all of it would trade at once."""
    left = taker.open
    for maker in market.sides[BUY + SELL - taker.side]:
        if maker.price > taker.price if taker.side == BUY else maker.price < taker.price:
            return False
        if maker.account != taker.account:
            left -= maker.open
        elif taker.prevention != CANCEL_MAKER:
            return False
        if left <= 0:
            return True
    return False
