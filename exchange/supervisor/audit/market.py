"""What one market's terms make of orders and trades, and who owns what there: the auditor's own arithmetic."""

from __future__ import annotations

from typing import Final

from exchange.engine.instrument import Instrument

_MILLION: Final = 1_000_000


class Pocket:
    """What an account has of an asset here beyond what its open orders need, and what came from the ledger."""

    __slots__ = ("account", "asset", "free", "received")

    def __init__(self, account: int, asset: str) -> None:
        self.account = account
        self.asset = asset
        self.free = 0
        self.received = 0


class Owner:
    """An account in one market, and what its open orders there need."""

    __slots__ = ("account", "base", "base_need", "quote", "quote_need")

    def __init__(self, account: int, base: Pocket, quote: Pocket) -> None:
        self.account = account
        self.base = base
        self.quote = quote
        self.base_need = 0
        self.quote_need = 0


class AuditedOrder:
    """An open order; `need` is what it needs, 0 while its command goes on."""

    __slots__ = ("is_buy", "need", "open", "order_id", "owner", "price")

    def __init__(self, order_id: int, owner: Owner, is_buy: bool, price: int, open_: int) -> None:
        self.order_id = order_id
        self.owner = owner
        self.is_buy = is_buy
        self.price = price
        self.open = open_
        self.need = 0


class Market:
    """An instrument: its terms as integers, its open orders, its owners."""

    __slots__ = (
        "base_unit",
        "divisor",
        "instrument",
        "maker_ppm",
        "multiplier",
        "need_ppm",
        "orders",
        "owners",
        "taker_ppm",
    )

    def __init__(self, instrument: Instrument) -> None:
        i = instrument
        base_scale = i.quantity_scale if i.base_scale is None else i.base_scale
        self.instrument = instrument
        self.base_unit: int = 10 ** (base_scale - i.quantity_scale)
        # price x quantity has the digits of both; an amount has those of the quote asset.
        self.multiplier: int = 10**i.quote_scale
        self.divisor: int = 10 ** (i.price_scale + i.quantity_scale)
        self.maker_ppm = i.maker_fee_ppm
        self.taker_ppm = i.taker_fee_ppm
        self.need_ppm = max(i.maker_fee_ppm, i.taker_fee_ppm, 0)
        self.orders: dict[int, AuditedOrder] = {}
        self.owners: dict[int, Owner] = {}

    def need(self, is_buy: bool, price: int, quantity: int) -> int:
        """Return what an order needs: what it sells, or the amount that it buys for and the fee on it."""
        if not is_buy:
            return quantity * self.base_unit
        amount = price * quantity * self.multiplier // self.divisor
        return amount + amount * self.need_ppm // _MILLION


def fee(amount: int, ppm: int) -> int:
    """Return a fee, in whole units towards 0: nobody pays or gets a part of a unit."""
    units = amount * abs(ppm) // _MILLION
    return units if ppm >= 0 else -units
