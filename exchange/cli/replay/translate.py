"""From what a recording says to what a shard is told, the same for both ways of entering it."""

from __future__ import annotations

from exchange.cli.replay.recording import Kind, ReplayCommand
from exchange.engine.commands import AmendOrder, CancelOrder, PlaceOrder
from exchange.engine.words import OrderType, Side
from exchange.v1 import trading_pb2

_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT, _MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)

EngineCommand = PlaceOrder | AmendOrder | CancelOrder


class Translator:
    """Translates the commands of one recording, in their order.

    The side is the account: buys are entered under account 1 and sells under account 2, so that self-trade prevention
    has no part in it, and what names an order goes under the account that entered it.
    """

    ACCOUNTS = (_BUY, _SELL)

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._owners: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def __call__(self, command: ReplayCommand) -> EngineCommand:
        """Return the command for the shard."""
        order, symbol = command.order, self._symbol
        if command.kind in (Kind.NEW, Kind.MARKET):
            self._owners[order] = command.side
            self._totals[order] = command.quantity
            order_type = _LIMIT if command.kind == Kind.NEW else _MARKET
            terms = order_type, command.time_in_force, command.price, command.quantity
            return PlaceOrder(command.side, order, symbol, command.side, *terms)
        owner = self._owners.get(order) or command.side or _BUY
        match command.kind:
            case Kind.REPLACE:
                price, left = command.price, command.quantity
                return AmendOrder(owner, symbol, order, 0, price, 0, open_quantity=left, requeue=True)
            case Kind.REDUCE if self._totals.get(order, 0) > command.quantity:
                # The total shrinks, whatever is filled by then: an order that has no more than that filled is done.
                self._totals[order] -= command.quantity
                return AmendOrder(owner, symbol, order, 0, 0, self._totals[order], cancel_on_fail=True)
            case _:
                return CancelOrder(owner, symbol, order)


def encode(command: EngineCommand, accounts: dict[int, int]) -> trading_pb2.Command:
    """Return a command as an operator sends it; `accounts` maps the translator's accounts to the exchange's."""
    encoded = trading_pb2.Command(on_behalf_of=accounts[command.account])
    if isinstance(command, PlaceOrder):
        place = encoded.place
        place.instrument, place.client_order_id = command.instrument, command.client_order_id
        place.side = command.side  # type: ignore[assignment]  # the numbers are the same
        place.type = command.type  # type: ignore[assignment]
        place.time_in_force = command.time_in_force  # type: ignore[assignment]
        place.price, place.quantity = command.price, command.quantity
    elif isinstance(command, AmendOrder):
        amend = encoded.amend
        amend.instrument, amend.client_order_id = command.instrument, command.client_order_id
        amend.price, amend.quantity, amend.open_quantity = command.price, command.quantity, command.open_quantity
        amend.requeue, amend.cancel_on_fail = command.requeue, command.cancel_on_fail
    else:
        encoded.cancel.instrument, encoded.cancel.client_order_id = command.instrument, command.client_order_id
    return encoded
