"""The money of the naive shard: what an account has is added up anew for every question, from all that happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import trunc
from typing import TYPE_CHECKING, Any

from exchange.engine import commands as c
from exchange.engine.channel import AnswerFunds, Ask, Message, RecallFunds, Return
from exchange.engine.instrument import Instrument
from exchange.engine.words import OrderStatus, RejectReason, Side

if TYPE_CHECKING:
    from chaos.invariants.naive_shard import NaiveOrder, NaiveShard

S = 10**9
HOUSE = 1


@dataclass(frozen=True)
class NaiveTrade:
    price: int
    quantity: int
    buyer: int
    seller: int
    buyer_fee: int
    seller_fee: int


@dataclass
class NaiveParked:
    """A command that waits for money. `part` of it is here already, the message `n` asks for the rest."""

    sequence: int
    command: c.PlaceOrder | c.AmendOrder
    account: int
    asset: str
    deadline_ns: int
    order: NaiveOrder | None = None
    part: int = 0
    n: int = 0
    refusal: int = 0


def amount_of(i: Instrument, price: int, quantity: int) -> int:
    """In units of the quote asset."""
    amount = Fraction(price, 10**i.price_scale) * Fraction(quantity, 10**i.quantity_scale) * 10**i.quote_scale
    assert amount.denominator == 1
    return int(amount)


def base_of(i: Instrument, quantity: int) -> int:
    """In units of the base asset."""
    base = Fraction(quantity, 10**i.quantity_scale) * 10 ** (i.quantity_scale if i.base_scale is None else i.base_scale)
    assert base.denominator == 1
    return int(base)


def fee_of(amount: int, ppm: int) -> int:
    """Nobody pays, or gets back, a part of a unit."""
    return trunc(Fraction(amount * ppm, 10**6))


def need_of(i: Instrument, side: int, price: int, quantity: int) -> int:
    """What an order must have: its quantity if it sells; if it buys the amount at its price, and the fee on that."""
    if side == Side.SELL:
        return base_of(i, quantity)
    amount = amount_of(i, price, quantity)
    return amount + fee_of(amount, max(i.maker_fee_ppm, i.taker_fee_ppm, 0))


def asset_of(i: Instrument, side: int) -> str:
    return i.base_asset if side == Side.SELL else i.quote_asset


class NaiveFunds:
    def __init__(self, shard: NaiveShard) -> None:
        self.shard = shard
        self.came: list[tuple[int, str, int]] = []
        """What came from the ledger, and with a minus what went there: account, asset, amount."""
        self.messages: list[Message] = []
        """All there ever were."""
        self.answers: dict[int, tuple[int, int]] = {}
        """When a message was answered, and with how much."""
        self.parked: list[NaiveParked] = []
        self.recalled: set[int] = set()
        self.recall_low = 1
        self.touched: list[tuple[int, str]] = []
        """What accounts have or once had here, in the order in which it came up."""
        self.watched: list[tuple[int, int]] = []
        """When an account is looked at next, and which."""
        self.seen: dict[tuple[int, str], int] = {}
        """What was free when it was last looked at."""

    # ---------------------------------------------------------------- questions

    def held(self, account: int, asset: str) -> int:
        """What open orders need and parked commands have of an asset."""
        held = sum(parked.part for parked in self.parked if (parked.account, parked.asset) == (account, asset))
        for order in self.shard.open_orders():
            i, side = self.shard.instruments[order.request.instrument], order.request.side
            if (order.request.account, asset_of(i, side)) == (account, asset):
                held += need_of(i, side, order.price, order.open)
        return held

    def traded(self, account: int, asset: str) -> int:
        """What trades gave to an account of an asset, less what they took."""
        gain = 0
        for symbol, trades in self.shard.trades.items():
            i = self.shard.instruments[symbol]
            for trade in trades:
                amount, base = amount_of(i, trade.price, trade.quantity), base_of(i, trade.quantity)
                moves = [
                    (trade.buyer, i.base_asset, base),
                    (trade.buyer, i.quote_asset, -amount - trade.buyer_fee),
                    (trade.seller, i.base_asset, -base),
                    (trade.seller, i.quote_asset, amount - trade.seller_fee),
                    (HOUSE, i.quote_asset, trade.buyer_fee + trade.seller_fee),
                ]
                gain += sum(change for a, s, change in moves if (a, s) == (account, asset))
        return gain

    def free(self, account: int, asset: str) -> int:
        came = sum(amount for a, s, amount in self.came if (a, s) == (account, asset))
        return came + self.traded(account, asset) - self.held(account, asset)

    def outbox(self) -> list[Message]:
        return [message for message in self.messages if message.n not in self.answers]

    def touch(self, account: int, *assets: str) -> None:
        for asset in assets:
            if (account, asset) not in self.touched:
                self.touched.append((account, asset))

    def endow(self, account: int, asset: str, amount: int) -> None:
        self.touch(account, asset)
        self.came.append((account, asset, amount))

    # ---------------------------------------------------------------- messages

    def ask(self, account: int, asset: str, amount: int, *, is_urgent: bool) -> int:
        self.messages.append(Ask(len(self.messages) + 1, account, asset, amount, is_urgent))
        return len(self.messages)

    def ask_ahead(self, account: int, asset: str, need: int) -> None:
        """Ask for the like of an order that left less than it took: one at a time, and not right after a refusal."""
        if self.free(account, asset) >= need:
            return
        asked = [m for m in self.messages if isinstance(m, Ask) and not m.is_urgent]
        for message in asked:
            if (message.account, message.asset) == (account, asset):
                answered_ns, amount = self.answers.get(message.n, (None, 0))
                if answered_ns is None or (not amount and self.shard.time_ns < answered_ns + S):
                    return
        self.ask(account, asset, need, is_urgent=False)

    def give_back(self, account: int, asset: str, amount: int, recall: int = 0) -> None:
        self.messages.append(Return(len(self.messages) + 1, account, asset, amount, recall))
        self.came.append((account, asset, -amount))
        self.tell_escrow(account, asset, -amount, len(self.messages))

    def tell_escrow(self, account: int, asset: str, change: int, n: int) -> None:
        if change:
            self.shard.events.append((7, self.shard.sequence, account, asset, change, n))

    def answer(self, command: AnswerFunds) -> None:
        n, status, amount = command
        if not 1 <= n <= len(self.messages) or n in self.answers:
            return
        message = self.messages[n - 1]
        if status not in ((4,) if isinstance(message, Return) else (1, 2, 3)):
            return
        self.answers[n] = self.shard.time_ns, amount
        if isinstance(message, Return):
            return
        account, asset = message.account, message.asset
        self.endow(account, asset, amount)
        self.tell_escrow(account, asset, amount, n)
        if amount and account != HOUSE and account not in [a for _, a in self.watched]:
            self.watch(account)
        for parked in list(self.parked):
            if parked.n == n:
                refusals = {2: RejectReason.INSUFFICIENT_FUNDS, 3: RejectReason.FUNDS_UNAVAILABLE}
                # Denied, it asks once more if something else has come in meanwhile.
                parked.refusal = refusals.get(status, 0) if status != 2 or not self.free(account, asset) else 0
                self.run(parked)

    def recall(self, command: RecallFunds) -> None:
        m, low, account, asset, amount = command
        self.recall_low = max(self.recall_low, low)
        if m < self.recall_low or m in self.recalled:
            return
        self.recalled.add(m)
        self.touch(account, asset)
        for parked in reversed(self.parked):
            missing = max(amount - self.free(account, asset), 0)
            if (parked.account, parked.asset) == (account, asset):
                parked.part -= min(parked.part, missing)
        free = self.free(account, asset)
        self.give_back(account, asset, free if free <= amount else amount + (free - amount) // 2, m)

    # ---------------------------------------------------------------- waiting

    def park(
        self,
        command: c.PlaceOrder | c.AmendOrder,
        i: Instrument,
        side: int,
        need: int,
        parked: NaiveParked | None,
        order: NaiveOrder | None = None,
    ) -> int:
        """Let a command wait with all the money there is; return a reject reason if nothing more is to be had."""
        if parked is None:
            sequence, deadline_ns = self.shard.sequence, self.shard.time_ns + S
            parked = NaiveParked(sequence, command, command.account, asset_of(i, side), deadline_ns, order)
            self.parked.append(parked)
        elif parked.refusal:
            return parked.refusal
        parked.part = self.free(parked.account, parked.asset)
        parked.n = self.ask(parked.account, parked.asset, need - parked.part, is_urgent=True)
        return 0

    def run(self, parked: NaiveParked) -> bool:
        """Let a command that waits come again; return whether it is done."""
        parked.part = 0
        place, amend = self.shard.on_PlaceOrder, self.shard.on_AmendOrder
        command = parked.command
        result = place(command, parked) if isinstance(command, c.PlaceOrder) else amend(command, parked)
        if result[3] == OrderStatus.PENDING_FUNDS:
            return False
        self.parked.remove(parked)
        if parked.order is not None and result[6] and RejectReason(result[6]).is_passing:
            self.shard.orders.remove(parked.order)
        self.tell(parked, result)
        return not result[6]

    def tell(self, parked: NaiveParked, result: Sequence[Any]) -> None:
        _, name, order_id, status, filled, left, reject_reason, close_reason, _, _ = result
        command = parked.command
        head = 8, self.shard.sequence, command.instrument, command.account, parked.sequence
        self.shard.events.append((*head, name, order_id, status, filled, left, reject_reason, close_reason))

    def expire(self, due_ns: int) -> bool:
        """Let those come for the last time that have waited long enough, until one is done; return whether one is."""
        due = [parked for parked in self.parked if parked.deadline_ns == due_ns]
        for parked in sorted(due, key=lambda parked: (parked.account, parked.sequence)):
            parked.refusal = RejectReason.FUNDS_UNAVAILABLE
            if self.run(parked):
                return True
        return False

    def cancel(self, parked: NaiveParked, reason: int) -> tuple[Any, ...]:
        order = parked.order
        assert order is not None
        self.parked.remove(parked)
        order.status, order.close_reason = OrderStatus.CANCELLED, reason
        order.first_answer = order.answer(order.order_id)
        result = order.answer(self.shard.sequence)
        self.tell(parked, result)
        return result

    def cancel_all(self, orders: Sequence[NaiveOrder], reason: int) -> int:
        found = [parked for parked in self.parked if parked.order is not None and parked.order in orders]
        for parked in found:
            self.cancel(parked, reason)
        return len(found)

    # ---------------------------------------------------------------- money that lies idle

    def watch(self, account: int) -> None:
        """Look at an account in ten seconds, on the full second."""
        self.watched.append((-(-(self.shard.time_ns + 10 * S) // S) * S, account))

    def return_idle(self) -> None:
        idle: list[tuple[int, str, int]] = []
        for due_ns, account in list(self.watched):
            if due_ns > self.shard.time_ns:
                continue
            self.watched.remove((due_ns, account))
            assets = [asset for a, asset in self.touched if a == account]
            free = {asset: self.free(account, asset) for asset in assets}
            same = [asset for asset in assets if free[asset] and free[asset] == self.seen.get((account, asset))]
            idle += [(account, asset, free[asset]) for asset in same]
            self.seen.update({(account, asset): free[asset] for asset in assets})
            if any(self.held(account, asset) or (free[asset] and asset not in same) for asset in assets):
                self.watch(account)
        for account, asset, amount in idle:
            self.give_back(account, asset, amount)
