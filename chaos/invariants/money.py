"""Money, counted a second time from the journals of ledger and shards: where it is, whose it is, and what it is for.

Of the engine's own only the events are taken: which orders came to rest and traded (`book.Books` checks those), and
what was said to move. Amounts, fees and holds are worked out here. An amount is in exactly one place: with the ledger,
in a shard's escrow, or on its way between the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from chaos.invariants import book as b
from chaos.invariants.commands import Other, unpack
from chaos.invariants.findings import Findings
from chaos.invariants.replay import Step

HOUSE = 1
"""The account that fees go to, and rebates come from."""
PPM = 1_000_000
GRANTED = 1
DEPOSIT, WITHDRAWAL, TRANSFER = 1, 2, 3
_ANSWER_FUNDS = 9
_DEPOSIT, _ASK_FUNDS, _RETURN_FUNDS = 4, 7, 8
_ENTRY, _ESCROW = 4, 5
Purse = tuple[int, str]
"""Account and asset."""


class Moved(NamedTuple):
    """What a shard and the ledger moved between them under one number: to the shard if `change` > 0."""

    account: int
    asset: str
    change: int
    place: str


class _Terms(NamedTuple):
    """What a trade of an instrument moves: amounts are `price * quantity * multiplier // divisor`."""

    base: str
    quote: str
    multiplier: int
    divisor: int
    base_unit: int
    maker_ppm: int
    taker_ppm: int

    def amount(self, price: int, quantity: int) -> int:
        return price * quantity * self.multiplier // self.divisor

    def hold(self, order: _Open) -> tuple[str, int]:
        """Return what an open order needs: a buy its amount with the higher of the two fees, a sell its quantity."""
        if order.side == b.SELL:
            return self.base, order.open * self.base_unit
        with_fee = PPM + max(self.maker_ppm, self.taker_ppm, 0)
        return self.quote, order.price * order.open * self.multiplier * with_fee // (self.divisor * PPM)


def terms_of(instrument: Sequence[Any]) -> _Terms:
    """Return the terms of an instrument, from its fields as a journal has them."""
    base, quote, price_scale, quantity_scale, quote_scale = instrument[1:6]
    maker_ppm, taker_ppm = instrument[12:14]
    base_scale = quantity_scale if instrument[15] is None else instrument[15]
    digits = quote_scale - price_scale - quantity_scale
    multiplier, divisor = 10 ** max(digits, 0), 10 ** max(-digits, 0)
    return _Terms(base, quote, multiplier, divisor, 10 ** (base_scale - quantity_scale), maker_ppm, taker_ppm)


def fee_of(amount: int, ppm: int) -> int:
    """Return a fee in whole units: rounded down, a rebate towards less, too."""
    return amount * ppm // PPM if ppm >= 0 else -(amount * -ppm // PPM)


class _Open:
    __slots__ = ("account", "held", "open", "price", "side", "symbol")

    def __init__(self, account: int, symbol: str, side: int, price: int, quantity: int) -> None:
        self.account = account
        self.symbol = symbol
        self.side = side
        self.price = price
        self.open = quantity
        self.held: tuple[str, int] = ("", 0)


class ShardMoney:
    """The escrow of one shard. Takes its steps one by one; `compare` holds it against a state of the shard."""

    def __init__(self, shard: str, findings: Findings) -> None:
        self.shard = shard
        self.total: dict[Purse, int] = defaultdict(int)
        """What is in escrow, free and held."""
        self.held: dict[Purse, int] = defaultdict(int)
        self.moved: dict[int, Moved] = {}
        self._terms: dict[str, _Terms] = {}
        self._open: dict[int, _Open] = {}
        self._findings = findings
        self._broken: set[tuple[str, Purse]] = set()

    def step(self, step: Step) -> None:
        touched: dict[int, None] = {}
        purses: dict[Purse, None] = {}
        for event in step.events:
            match event[0]:
                case b.ACCEPTED:
                    _, _, symbol, order_id, account, _, side, price, quantity = event
                    self._open[order_id] = _Open(account, symbol, side, price, quantity)
                    touched[order_id] = None
                case b.TRADED:
                    self._trade(step, event, purses)
                    touched[event[4]] = touched[event[5]] = None
                case b.CLOSED:
                    if event[3] in self._open:
                        self._open[event[3]].open = 0
                        touched[event[3]] = None
                case b.AMENDED:
                    if event[3] in self._open:
                        order = self._open[event[3]]
                        order.price, order.open = event[4], event[6]
                        touched[event[3]] = None
                case b.INSTRUMENT:
                    self._terms[event[2][0]] = terms_of(event[2])
                case b.ESCROW:
                    self._move(step, event, purses)
        for order_id in touched:
            self._hold(order_id, purses)
        for purse in purses:
            free = self.total[purse] - self.held[purse]
            if free < 0 and ("negative", purse) not in self._broken:
                self._broken.add(("negative", purse))
                summary = (
                    f"account {purse[0]} has {self.total[purse]} {purse[1]}, its open orders need {self.held[purse]}"
                )
                self._violate("I4", summary, step.place)
        self._findings.check("I4 balances in escrow that are not negative", len(purses))

    def _trade(self, step: Step, event: Sequence[Any], purses: dict[Purse, None]) -> None:
        symbol, trade_id, maker_id, taker_id, price, quantity, maker_fee, taker_fee = event[2:10]
        maker, taker, terms = self._open.get(maker_id), self._open.get(taker_id), self._terms.get(symbol)
        if maker is None or taker is None or terms is None:
            return  # an order that is not open: `Books` tells of it (I5)
        maker.open -= quantity
        taker.open -= quantity
        amount = terms.amount(price, quantity)
        fees = fee_of(amount, terms.maker_ppm), fee_of(amount, terms.taker_ppm)
        if fees != (maker_fee, taker_fee):
            summary = f"trade {trade_id} of {symbol} over {amount} {terms.quote}: fees {(maker_fee, taker_fee)}"
            self._violate("I3", f"{summary}, expected {fees}", step.place)
        self._findings.check("I3 trades whose fees are right")
        for order, fee in ((maker, fees[0]), (taker, fees[1])):
            sign = 1 if order.side == b.BUY else -1
            self._add((order.account, terms.base), sign * quantity * terms.base_unit, purses)
            self._add((order.account, terms.quote), -sign * amount - fee, purses)
        self._add((HOUSE, terms.quote), sum(fees), purses)

    def _add(self, purse: Purse, change: int, purses: dict[Purse, None]) -> None:
        self.total[purse] += change
        purses[purse] = None

    def _move(self, step: Step, event: Sequence[Any], purses: dict[Purse, None]) -> None:
        account, asset, change, n = event[2:6]
        self._add((account, asset), change, purses)
        command = step.command
        if n in self.moved:
            self._violate("I3", f"message {n} moved money twice", self.moved[n].place, step.place)
        elif change > 0 and command != Other(_ANSWER_FUNDS, (n, GRANTED, change)):
            summary = f"account {account} got {change} {asset} under message {n} with the command {command}"
            self._violate("I3", summary, step.place)
        self.moved[n] = Moved(account, asset, change, step.place)

    def _hold(self, order_id: int, purses: dict[Purse, None]) -> None:
        order = self._open.get(order_id)
        if order is None:
            return
        asset, before = order.held
        if before:
            self.held[order.account, asset] -= before
            purses[order.account, asset] = None
        if order.open <= 0:
            del self._open[order_id]
            return
        order.held = asset, amount = self._terms[order.symbol].hold(order)
        self.held[order.account, asset] += amount
        purses[order.account, asset] = None

    def compare(self, packed_state: bytes, place: str) -> None:
        """Hold what is counted here against a state of the shard, as its snapshots have it."""
        _, _, _, _, (wallets, *_), parked_rows, *_ = unpack(packed_state)
        parked: dict[Purse, int] = defaultdict(int)
        for _, _, command, _, is_buy, _, part, *_ in parked_rows:
            # Account and instrument of a place are at 0 and 2, of an amend at 0 and 1.
            symbol = command[2] if command[2] in self._terms else command[1]
            parked[command[0], self._terms[symbol].quote if is_buy else self._terms[symbol].base] += part
        free = {(account, asset): amount for account, purses in wallets for asset, amount, *_ in purses}
        more: dict[str, int] = defaultdict(int)
        for purse in sorted(free.keys() | self.total.keys()):
            expected = self.total.get(purse, 0) - self.held.get(purse, 0) - parked.get(purse, 0)
            found = free.get(purse, 0)
            more[purse[1]] += found - expected
            self._findings.check("I4 balances of shards that agree with what open orders need")
            if found != expected and ("state", purse) not in self._broken:
                self._broken.add(("state", purse))
                summary = f"account {purse[0]} has {found} {purse[1]} free, expected {expected}: {self.total[purse]}"
                summary += f" in escrow, of which open orders need {self.held[purse]}"
                self._violate("I4", summary, place)
        for asset, amount in more.items():
            self._findings.check("I3 assets whose sum in a shard is what came in less what went out")
            if amount and ("sum", (0, asset)) not in self._broken:
                self._broken.add(("sum", (0, asset)))
                self._violate("I3", f"there is {amount} {asset} more than came in less what went out", place)

    def sums(self) -> dict[str, int]:
        """Return what is in escrow, by asset."""
        return _sums(self.total)

    def _violate(self, rule: str, summary: str, *evidence: str) -> None:
        self._findings.violate(rule, f"{self.shard}: {summary}", *evidence)


class LedgerMoney:
    """What accounts have in the ledger, and what it moved to shards and back."""

    def __init__(self, findings: Findings) -> None:
        self.total: dict[Purse, int] = defaultdict(int)
        self.supply: dict[str, int] = defaultdict(int)
        """Deposits less withdrawals."""
        self.moved: dict[tuple[str, int], Moved] = {}
        self._asked: dict[tuple[int, int, str], tuple[int, str, int, int]] = {}
        """Movements by type, account (0: unique among all) and reference: account, asset, change, counterparty."""
        self._entered: dict[tuple[int, int, str], str] = {}
        self._messages: dict[tuple[str, int], tuple[int, int, str, int]] = {}
        """What shards said: number of the command, account, asset, amount."""
        self._paying: tuple[int, str, int, int] | None = None
        self._findings = findings

    def step(self, step: Step) -> None:
        if isinstance(step.command, Other):
            self._ask(step.command)
        for event in step.events:
            if event[0] == _ENTRY:
                self._enter(event[2], step.place)
            elif event[0] == _ESCROW:
                self._move(event[2], step.place)
        self._findings.check("I3 commands of the ledger whose money was followed")

    def _ask(self, command: Other) -> None:
        fields = command.fields
        match command.number:
            case 4 | 5:
                account, asset, amount, reference = fields
                kind, sign = (DEPOSIT, 1) if command.number == _DEPOSIT else (WITHDRAWAL, -1)
                self._asked.setdefault((kind, 0, reference), (account, asset, sign * amount, 0))
            case 6:
                account, to_account, asset, amount, reference = fields
                self._asked.setdefault((TRANSFER, account, reference), (account, asset, -amount, to_account))
            case 7 | 8:
                shard, _, n, account, asset, amount, _ = fields
                self._messages.setdefault((shard, n), (command.number, account, asset, amount))

    def _enter(self, entry: Sequence[Any], place: str) -> None:
        _, account, asset, kind, change, available, reference, counterparty = entry[:8]
        self._add((account, asset), change, available, place)
        found = account, asset, change, counterparty
        if kind == TRANSFER and change > 0:
            if self._paying != (counterparty, asset, -change, account):
                self._violate("I3", f"account {account} got {change} {asset} that {self._paying} did not pay", place)
            self._paying = None
            return
        self._paying = found if kind == TRANSFER else None
        key = kind, account if kind == TRANSFER else 0, reference
        if key in self._entered:
            self._violate("I3", f"the reference {reference!r} moved money twice", self._entered[key], place)
        elif self._asked.get(key) != found:
            self._violate("I3", f"an entry {found} under {reference!r}, asked for was {self._asked.get(key)}", place)
        self._entered[key] = place
        if kind != TRANSFER:
            self.supply[asset] += change

    def _move(self, body: Sequence[Any], place: str) -> None:
        shard, n, account, asset, change, available = body
        self._add((account, asset), -change, available, place)
        said = self._messages.get((shard, n))
        if (shard, n) in self.moved:
            self._violate("I3", f"message {n} of {shard} moved money twice", self.moved[shard, n].place, place)
        elif said is None or said[1:3] != (account, asset) or (said[0] == _ASK_FUNDS) != (change > 0):
            self._violate("I3", f"{change} {asset} of account {account} for message {n} of {shard}: {said}", place)
        elif said[0] == _RETURN_FUNDS and said[3] != -change:
            self._violate("I3", f"{shard} gave back {said[3]} {asset} with message {n}, taken in was {-change}", place)
        self.moved[shard, n] = Moved(account, asset, change, place)

    def _add(self, purse: Purse, change: int, available: int, place: str) -> None:
        self.total[purse] += change
        self._findings.check("I4 balances in the ledger that are not negative")
        if self.total[purse] < 0:
            self._violate("I4", f"account {purse[0]} has {self.total[purse]} {purse[1]}", place)
        if available != self.total[purse]:
            self._violate("I3", f"account {purse[0]} has {available} {purse[1]}, expected {self.total[purse]}", place)

    def compare(self, packed_state: bytes, place: str) -> None:
        """Hold what is counted here against a state of the ledger, as its snapshots have it."""
        *_, ((_, available, *_), _, _) = unpack(packed_state)
        found = {(account, asset): amount for account, balances in available for asset, amount in balances}
        for purse in sorted(found.keys() | self.total.keys()):
            self._findings.check("I3 balances of the ledger that agree")
            if found.get(purse, 0) != self.total.get(purse, 0):
                summary = (
                    f"account {purse[0]} has {found.get(purse, 0)} {purse[1]}, expected {self.total.get(purse, 0)}"
                )
                self._violate("I3", summary, place)

    def _violate(self, rule: str, summary: str, *evidence: str) -> None:
        self._findings.violate(rule, f"ledger: {summary}", *evidence)


def check_money(ledger: LedgerMoney, shards: Mapping[str, ShardMoney], findings: Findings) -> None:
    """Check, at the end, that each movement is the same on both sides or on its way, and what all of it makes (I3)."""
    under_way: dict[str, int] = defaultdict(int)
    for shard, money in shards.items():
        for n, moved in money.moved.items():
            there = ledger.moved.get((shard, n))
            if there is None and moved.change < 0:
                under_way[moved.asset] -= moved.change
            elif there is None or there[:3] != moved[:3]:
                summary = f"message {n} moved {moved[:3]} in {shard}, {there and there[:3]} in the ledger"
                findings.violate("I3", summary, moved.place, *((there.place,) if there else ()))
            findings.check("I3 movements that both sides have")
    for (shard, n), moved in ledger.moved.items():
        here = shards.get(shard)
        if here is None or n in here.moved:
            continue
        if moved.change > 0:
            under_way[moved.asset] += moved.change
        else:
            summary = f"ledger: took in {moved[:3]} with message {n}, which {shard} never gave"
            findings.violate("I3", summary, moved.place)
    places: Iterable[Mapping[str, int]] = [_sums(ledger.total), under_way, *(m.sums() for m in shards.values())]
    for asset, supply in ledger.supply.items():
        parts = [place.get(asset, 0) for place in places]
        findings.check("I3 assets whose sum is what came in less what went out")
        if sum(parts) != supply:
            summary = (
                f"{asset}: {parts[0]} in the ledger, {parts[1]} under way, {parts[2:]} in shards make {sum(parts)}"
            )
            findings.violate("I3", f"{summary}, deposits less withdrawals {supply}")


def _sums(total: Mapping[Purse, int]) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for (_, asset), amount in total.items():
        sums[asset] += amount
    return sums
