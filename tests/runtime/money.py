"""Money for shards behind a host, the way that a journal has it: an order asks, and the ledger's answer comes."""

from __future__ import annotations

from exchange.engine.channel import AnswerFunds, AnswerStatus
from exchange.engine.commands import CancelOrder, Command, PlaceOrder

BUY, SELL, LIMIT, GTC = 1, 2, 1, 1
GRANT = 10**18


def grants(symbol: str, *owners: tuple[int, int]) -> list[Command]:
    """Return the commands that give accounts, each for a side of the market, more than a test can spend.

    They must be the first that ask for money in a new shard.
    """
    commands: list[Command] = []
    for n, (account, side) in enumerate(owners, 1):
        name = f"grant-{side}"
        price = 1 if side == BUY else 1_000_000
        commands += [
            PlaceOrder(account, name, symbol, side, LIMIT, GTC, price, 1),
            AnswerFunds(n, int(AnswerStatus.GRANTED), GRANT),
            CancelOrder(account, symbol, name),
        ]
    return commands
