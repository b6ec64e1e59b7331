"""A shard with one open market, and short ways to tell it things."""

from __future__ import annotations

from typing import Any

from exchange.engine.commands import AddInstrument, AmendOrder, CancelOrder, Command, PlaceOrder, SetStage
from exchange.engine.events import Event, OrderTraded, Result, event_of
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Stage

SYMBOL = "BTC-USDT"
INSTRUMENT = Instrument(SYMBOL, "BTC", "USDT", 0, 0, 0)
S = 1_000_000_000
START_NS = 1_700_000_000 * S
BUY, SELL = 1, 2
LIMIT, MARKET = 1, 2
GTC, IOC, FOK, GTD = 1, 2, 3, 4
RICH = 10**60


class Market:
    def __init__(self, instrument: Instrument = INSTRUMENT, *, stage: Stage = Stage.OPEN, is_rich: bool = True) -> None:
        """`is_rich`: accounts have money without end; else they have what they are given."""
        self.shard = Shard()
        self.symbol = instrument.symbol
        self.time_ns = START_NS
        self.events: list[Event] = []
        """Of the last command."""
        self.trades: list[tuple[int, int]] = []
        """Price and quantity, of the last command."""
        self.instrument = instrument
        self._is_rich = is_rich
        self._rich: set[int] = set()
        self.apply(AddInstrument(instrument))
        self.apply(SetStage(int(stage)))

    def apply(self, command: Command) -> Result:
        (result,), rows = self.shard.apply(self.time_ns, [command])
        self.events = [event_of(row) for row in rows]
        self.trades = [(event.price, event.quantity) for event in self.events if isinstance(event, OrderTraded)]
        self.shard.validate()
        return result

    def place(self, account: int, name: str, side: int, price: int, quantity: int, **more: Any) -> Result:
        """Enter an order: limit and good till cancelled, unless more is said."""
        self.endow(account)
        kind, time_in_force = more.pop("type", LIMIT), more.pop("time_in_force", GTC)
        order = PlaceOrder(account, name, self.symbol, side, kind, time_in_force, price, quantity, **more)
        return self.apply(order)

    def endow(self, account: int) -> None:
        """See to it that an account's money is no matter."""
        if self._is_rich and account not in self._rich:
            self._rich.add(account)
            for asset in (self.instrument.base_asset, self.instrument.quote_asset):
                self.shard.funds.endow(account, asset, RICH)

    def money(self, account: int, asset: str) -> tuple[int, int]:
        """What an account has of an asset, free and held."""
        wallet = self.shard.funds.wallet(account)
        return self.shard.funds.purse(account, asset).available, wallet.held(asset)

    def cancel(self, account: int, name: str, order_id: int = 0) -> Result:
        return self.apply(CancelOrder(account, self.symbol, name, order_id))

    def amend(self, account: int, name: str, *, price: int = 0, quantity: int = 0, **more: Any) -> Result:
        order_id = more.pop("order_id", 0)
        return self.apply(AmendOrder(account, self.symbol, name, order_id, price, quantity, **more))

    def bids(self) -> list[tuple[str, int, int]]:
        """Name, price and open quantity of each bid, first in line first."""
        return self._side(self.shard.books[self.symbol].bids)

    def asks(self) -> list[tuple[str, int, int]]:
        return self._side(self.shard.books[self.symbol].asks)

    def _side(self, side: Any) -> list[tuple[str, int, int]]:
        return [(order.request.client_order_id, order.price, order.open) for level in side for order in level]


def brief(result: Result) -> tuple[int, int, int, int, int]:
    """Return status, filled, open, reject reason and close reason."""
    return result.status, result.filled, result.open, result.reject_reason, result.close_reason
