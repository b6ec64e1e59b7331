"""A seeded flow of commands for the benchmarks: the mix of the recorded flows, around one price."""

from __future__ import annotations

from random import Random

from exchange.engine.commands import AddInstrument, CancelOrder, Command, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import OrderType, Side, Stage, TimeInForce
from exchange.runtime.hosted_shard import new_shard

INSTRUMENT = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6, max_open_orders=1_000_000)
ACCOUNTS = 100
"""Of each side: buys and sells never belong to the same account, so that no trade is prevented."""
MID_PRICE = 10_000_000
RICH = 10**18
"""So much of each asset that no order waits for money."""
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT, _MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
_GTC, _IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)


class OrderFlow:
    """65 % limit orders, 30 % cancels, 3 % IOC and 2 % market orders; about a third of the commands trade.

    A cancel names a random order that is open; one in twenty is too late, as in the recorded flows. To know which are
    open, the flow keeps a shard of its own.
    """

    def __init__(self, seed: int, *, cancels_resting: bool = False) -> None:
        """`cancels_resting`: cancels name the orders of `resting` too, not only those of `commands`."""
        self._random = Random(seed)
        self._cancels_resting = cancels_resting
        self._shard = open_shard()
        self._number = 0
        self._placed: list[PlaceOrder] = []

    def resting(self, count: int, *, prices_per_side: int) -> list[Command]:
        """Return orders of a deep book: on both sides, away from each other, spread over many prices."""
        random = self._random
        commands: list[Command] = []
        for _ in range(count):
            side = random.choice((_BUY, _SELL))
            distance = random.randint(20, 20 + prices_per_side)
            price = MID_PRICE - distance if side == _BUY else MID_PRICE + distance
            commands.append(self._place(side, _LIMIT, _GTC, price, random.randint(1, 100)))
        self._shard.apply(1, commands)
        if not self._cancels_resting:
            self._placed.clear()
        return commands

    def commands(self, count: int) -> list[Command]:
        """Return the next commands of the mix."""
        commands = []
        for _ in range(count):
            commands.append(command := self._next())
            self._shard.apply(1, [command])
        return commands

    def _next(self) -> Command:
        random = self._random
        choice = random.random()
        side = random.choice((_BUY, _SELL))
        quantity = random.randint(1, 100)
        if 0.65 <= choice < 0.95 and self._placed:
            return self._cancel()
        if choice < 0.95:
            offset = random.randint(-30, 14)
            return self._place(side, _LIMIT, _GTC, MID_PRICE + (offset if side == _BUY else -offset), quantity)
        if choice < 0.98:
            return self._place(side, _LIMIT, _IOC, MID_PRICE + random.randint(-5, 5), quantity)
        return self._place(side, _MARKET, _IOC, 0, quantity)

    def _cancel(self) -> CancelOrder:
        random, placed = self._random, self._placed
        too_late = random.random() < 0.05
        while True:
            at = random.randrange(len(placed))
            placed[at], placed[-1] = placed[-1], placed[at]
            order = placed.pop()
            known = self._shard.find(order.account, order.instrument, order.client_order_id, 0)
            if too_late or not placed or (known is not None and known.level is not None):
                return CancelOrder(order.account, order.instrument, order.client_order_id)

    def _place(self, side: int, kind: int, time_in_force: int, price: int, quantity: int) -> PlaceOrder:
        self._number += 1
        account = self._number % ACCOUNTS * 2 + side
        client_order_id = f"o{self._number}"
        symbol = INSTRUMENT.symbol
        order = PlaceOrder(account, client_order_id, symbol, side, kind, time_in_force, price, quantity)
        if time_in_force == _GTC:
            self._placed.append(order)
        return order


def open_shard() -> Shard:
    """Return a shard as hosts have it, open for trading in the instrument of the flow, and whose accounts are rich."""
    shard = new_shard()
    open_market(shard)
    return shard


def open_market(shard: Shard) -> None:
    """Open a new shard likewise."""
    shard.apply(1, [AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN))])
    for account in range(1, 2 * ACCOUNTS + 1):
        for asset in (INSTRUMENT.base_asset, INSTRUMENT.quote_asset):
            shard.funds.endow(account, asset, RICH)
