"""A seeded flow of orders: the same seed gives the same messages, whatever becomes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from exchange.v1 import trading_pb2, types_pb2

MID_PRICE = 10_000
LIVE_MAX = 60
"""Orders that may be open as far as the flow knows; beyond, the oldest is cancelled."""
CommandMessage = trading_pb2.Command


class Flow:
    """One client's commands over its markets: orders that rest, cross, are immediate or post-only; amends, cancels.

    Now and then all orders of a market are cancelled, so that books stay small over hours.
    """

    def __init__(self, seed: int, client: str, markets: Sequence[str]) -> None:
        self._chance = random.Random(f"{seed}-{client}")
        self._client = client
        self._markets = markets
        self._number = 0
        self._live: dict[str, list[str]] = {market: [] for market in markets}

    def message(self, commands: int) -> list[CommandMessage]:
        """Return the commands of the next message: of one market, one time in four of any."""
        market = self._chance.choice(self._markets)
        mixed = self._chance.random() < 0.25
        return [self._command(self._chance.choice(self._markets) if mixed else market) for _ in range(commands)]

    def last_message(self) -> list[CommandMessage]:
        """Return an order for each market that meets nobody and is closed at once; `last_ids` names them.

        Whoever was told of it was told of all before.
        """
        return [
            CommandMessage(
                place=trading_pb2.PlaceOrderRequest(
                    instrument=market,
                    client_order_id=name,
                    side=types_pb2.SIDE_BUY,
                    type=types_pb2.ORDER_TYPE_LIMIT,
                    time_in_force=types_pb2.TIME_IN_FORCE_IOC,
                    price=1,
                    quantity=1,
                )
            )
            for market, name in zip(self._markets, self.last_ids, strict=True)
        ]

    @property
    def last_ids(self) -> list[str]:
        return [f"{self._client}-last-{market}" for market in self._markets]

    def _command(self, market: str) -> CommandMessage:
        chance, live = self._chance, self._live[market]
        roll = chance.random()
        if len(live) > LIVE_MAX or (0.66 <= roll < 0.88 and live):
            # Mostly an old one; one in ten was cancelled before.
            name = live[0] if chance.random() < 0.1 else live.pop(chance.randrange(len(live) // 2 + 1))
            return CommandMessage(cancel=trading_pb2.CancelOrderRequest(instrument=market, client_order_id=name))
        if 0.88 <= roll < 0.99 and live:
            return self._amend(market, chance.choice(live))
        if roll >= 0.9975:
            live.clear()
            return CommandMessage(cancel_all=trading_pb2.CancelAllOrdersRequest(instrument=market))
        return self._place(market, live, roll)

    def _place(self, market: str, live: list[str], roll: float) -> CommandMessage:
        chance = self._chance
        self._number += 1
        buys = chance.random() < 0.5
        offset = chance.randint(-8, 30)
        order = trading_pb2.PlaceOrderRequest(
            instrument=market,
            client_order_id=f"{self._client}-{self._number}",
            side=types_pb2.SIDE_BUY if buys else types_pb2.SIDE_SELL,
            type=types_pb2.ORDER_TYPE_LIMIT,
            price=MID_PRICE + (-offset if buys else offset),
            quantity=chance.randint(100, 2_000),
        )
        if roll < 0.10:
            order.time_in_force = types_pb2.TIME_IN_FORCE_IOC
            return CommandMessage(place=order)
        if roll < 0.12:
            order.time_in_force = types_pb2.TIME_IN_FORCE_FOK
            return CommandMessage(place=order)
        order.post_only = roll < 0.22
        if chance.random() < 0.2:
            order.self_trade_prevention = chance.choice(
                (types_pb2.SELF_TRADE_PREVENTION_CANCEL_TAKER, types_pb2.SELF_TRADE_PREVENTION_CANCEL_BOTH)
            )
        live.append(order.client_order_id)
        return CommandMessage(place=order)

    def _amend(self, market: str, name: str) -> CommandMessage:
        chance = self._chance
        amend = trading_pb2.AmendOrderRequest(instrument=market, client_order_id=name)
        match chance.randrange(4):
            case 0:
                amend.open_quantity = chance.randint(1, 600)
            case 1:
                amend.price = MID_PRICE + chance.randint(-30, 30)
            case 2:
                amend.quantity = chance.randint(500, 3_000)
            case _:
                amend.requeue = True
        return CommandMessage(amend=amend)
