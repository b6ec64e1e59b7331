"""What each kind of client sends next. It follows from the seed alone, whatever became of what was sent before."""

from __future__ import annotations

import csv
import gzip
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from random import Random
from typing import Protocol

from chaos.load.plan import Behaviour, Group, Market
from exchange.v1 import trading_pb2, types_pb2

QUOTES = 4
"""Of each side that a maker keeps in a market."""
MAKER_TICKS = 12
"""Makers quote so far from the price at most; takers cross all of that."""
AMENDS = 0.15
"""The share of a maker's changes that are made without a cancel."""
LIVE_MAX = 60
SIDES = (types_pb2.SIDE_BUY, types_pb2.SIDE_SELL)
Command = trading_pb2.Command


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `name`: the order that is asked for, if it is one."""

    kind: str
    """`book`, `balances`, `order` or `ticker`."""
    market: str
    name: str = ""


Request = Command | Query


class Client(Protocol):
    """Sends for one account."""

    def next(self) -> Request: ...


class _Orders:
    """Names and makes the orders of one client."""

    def __init__(self, name: str, random: Random) -> None:
        self.random = random
        self._name = name
        self._numbers = count(1)

    def place(
        self, market: Market, side: types_pb2.Side.ValueType, ticks: int, *, ioc: bool = False, post_only: bool = False
    ) -> Command:
        """Return an order so many ticks on the far side of the price; below 0 it crosses it."""
        away = ticks * market.tick
        return Command(
            place=trading_pb2.PlaceOrderRequest(
                instrument=market.symbol,
                client_order_id=f"{self._name}-{next(self._numbers)}",
                side=side,
                type=types_pb2.ORDER_TYPE_LIMIT,
                time_in_force=types_pb2.TIME_IN_FORCE_IOC if ioc else types_pb2.TIME_IN_FORCE_GTC,
                price=market.price - away if side == types_pb2.SIDE_BUY else market.price + away,
                quantity=market.quantity * self.random.randint(1, 5),
                post_only=post_only,
            )
        )


def cancel(market: str, name: str) -> Command:
    return Command(cancel=trading_pb2.CancelOrderRequest(instrument=market, client_order_id=name))


class Maker:
    """Keeps quotes on both sides of each market: a new one in, the oldest out, some moved where they are."""

    def __init__(self, name: str, markets: Sequence[Market], random: Random) -> None:
        self._orders = _Orders(name, random)
        self._random = random
        self._markets = markets
        self._quotes: dict[tuple[str, int], deque[str]] = {(m.symbol, side): deque() for m in markets for side in SIDES}

    def next(self) -> Request:
        market = self._random.choice(self._markets)
        side = self._random.choice(SIDES)
        quotes = self._quotes[market.symbol, side]
        ticks = self._random.randint(1, MAKER_TICKS)
        if len(quotes) >= QUOTES:
            if self._random.random() < AMENDS:
                away = ticks * market.tick
                price = market.price - away if side == types_pb2.SIDE_BUY else market.price + away
                amend = trading_pb2.AmendOrderRequest(
                    instrument=market.symbol, client_order_id=self._random.choice(quotes), price=price
                )
                return Command(amend=amend)
            return cancel(market.symbol, quotes.popleft())
        order = self._orders.place(market, side, ticks, post_only=self._random.random() < 0.5)
        quotes.append(order.place.client_order_id)
        return order


class Taker:
    """Takes what makers offer, at once or not at all."""

    def __init__(self, name: str, markets: Sequence[Market], random: Random) -> None:
        self._orders = _Orders(name, random)
        self._random = random
        self._markets = markets

    def next(self) -> Request:
        market, side = self._random.choice(self._markets), self._random.choice(SIDES)
        return self._orders.place(market, side, -2 * MAKER_TICKS, ioc=True)


class Arbitrageur:
    """Buys in one market and sells in the next, the second leg right after the first."""

    def __init__(self, name: str, markets: Sequence[Market], random: Random) -> None:
        self._orders = _Orders(name, random)
        self._random = random
        self._markets = markets
        self._leg: tuple[Market, types_pb2.Side.ValueType] | None = None

    def next(self) -> Request:
        if self._leg is None:
            at = self._random.randrange(len(self._markets))
            side = self._random.choice(SIDES)
            other = types_pb2.SIDE_SELL if side == types_pb2.SIDE_BUY else types_pb2.SIDE_BUY
            self._leg = self._markets[(at + 1) % len(self._markets)], other
            return self._orders.place(self._markets[at], side, -MAKER_TICKS, ioc=True)
        market, side = self._leg
        self._leg = None
        return self._orders.place(market, side, -MAKER_TICKS, ioc=True)


class Poller:
    """Asks, and now and then trades: the crowd that looks at a market when something happens."""

    def __init__(self, name: str, markets: Sequence[Market], random: Random) -> None:
        self._taker = Taker(name, markets, random)
        self._random = random
        self._markets = markets
        self._last = ""

    def next(self) -> Request:
        market = self._random.choice(self._markets).symbol
        roll = self._random.random()
        if roll < 0.1:
            order = self._taker.next()
            assert isinstance(order, Command)
            self._last = order.place.client_order_id
            return order
        if roll < 0.3 and self._last:
            return Query("order", market, self._last)
        return Query(("book", "balances", "ticker")[self._random.randrange(3)], market)


class Flow:
    """Every kind of order, amends and cancels in one stream, with many small fills."""

    def __init__(self, name: str, markets: Sequence[Market], random: Random) -> None:
        self._orders = _Orders(name, random)
        self._random = random
        self._markets = markets
        self._live: dict[str, list[str]] = {market.symbol: [] for market in markets}

    def next(self) -> Request:
        random = self._random
        market = random.choice(self._markets)
        live = self._live[market.symbol]
        roll = random.random()
        if live and (len(live) > LIVE_MAX or 0.66 <= roll < 0.88):
            # One in ten was cancelled before.
            return cancel(market.symbol, live[0] if random.random() < 0.1 else live.pop(random.randrange(len(live))))
        if live and 0.88 <= roll < 0.96:
            amend = trading_pb2.AmendOrderRequest(
                instrument=market.symbol, client_order_id=random.choice(live), open_quantity=market.quantity
            )
            return Command(amend=amend)
        side, ticks = random.choice(SIDES), random.randint(-4, MAKER_TICKS)
        if roll < 0.1:
            return self._orders.place(market, side, ticks, ioc=True)
        order = self._orders.place(market, side, ticks, post_only=roll < 0.2)
        live.append(order.place.client_order_id)
        return order


class Replayer:
    """Sends a recorded flow, in order and over and over: `seq,cmd,id,side,price,qty,tif` in ticks and lots, a CSV file.

    Commands are NEW, MARKET, CANCEL and REPLACE, sides B and S. Of several clients each sends the orders of the ids
    that fall to it. Prices are laid around the market's, as the recording has them around its first.
    """

    def __init__(self, name: str, market: Market, recording: Path, number: int, clients: int) -> None:
        self._name = name
        self._market = market
        rows = [row for row in read_recording(recording) if int(row["id"]) % clients == number]
        self._rows = rows
        self._next = cycle(range(len(rows)))
        self._round = 0
        self._first = next((int(row["price"]) for row in rows if row["price"]), 0)

    def next(self) -> Request:
        at = next(self._next)
        self._round += at == 0
        row = self._rows[at]
        market, name = self._market, f"{self._name}-{self._round}-{row['id']}"
        price = market.price + (int(row["price"] or self._first) - self._first) * market.tick
        quantity = market.quantity * int(row["qty"] or 1)
        if row["cmd"] == "CANCEL":
            return cancel(market.symbol, name)
        if row["cmd"] == "REPLACE":
            amend = trading_pb2.AmendOrderRequest(
                instrument=market.symbol, client_order_id=name, price=price, open_quantity=quantity
            )
            return Command(amend=amend)
        is_market = row["cmd"] == "MARKET"
        order = trading_pb2.PlaceOrderRequest(
            instrument=market.symbol,
            client_order_id=name,
            side=SIDES["BS".index(row["side"])],
            type=types_pb2.ORDER_TYPE_MARKET if is_market else types_pb2.ORDER_TYPE_LIMIT,
            time_in_force=_TIMES_IN_FORCE["IOC" if is_market else row["tif"]],
            price=0 if is_market else price,
            quantity=quantity,
        )
        return Command(place=order)


_TIMES_IN_FORCE = {
    "GTC": types_pb2.TIME_IN_FORCE_GTC,
    "IOC": types_pb2.TIME_IN_FORCE_IOC,
    "FOK": types_pb2.TIME_IN_FORCE_FOK,
}


def read_recording(path: Path) -> list[dict[str, str]]:
    """Return the rows of a recorded flow, gzipped or not. Raises `RecordingInvalid`."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 2):
        if row.get("cmd") not in ("NEW", "MARKET", "CANCEL", "REPLACE") or not (row.get("id") or "").isdecimal():
            raise RecordingInvalid(f"{path}:{number}: expected a NEW, MARKET, CANCEL or REPLACE of an id, was {row}")
    if not rows:
        raise RecordingInvalid(f"{path}: expected a recorded flow, found no command")
    return rows


class RecordingInvalid(ValueError):
    """A recorded flow that is none."""

    code = "RECORDING_INVALID"


_BY_SEED: dict[Behaviour, Callable[[str, Sequence[Market], Random], Client]] = {
    "makers": Maker,
    "takers": Taker,
    "arbitrageurs": Arbitrageur,
    "crowd": Poller,
    "flow": Flow,
}


def make_client(group: Group, number: int, markets: Sequence[Market], random: Random) -> Client:
    """Return what a client of a group sends."""
    name = group.clients[number].name
    if group.behaviour == "replay":
        return Replayer(name, markets[0], Path(group.recording), number, len(group.clients))
    return _BY_SEED[group.behaviour](name, markets, random)
