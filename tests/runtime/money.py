"""Money for accounts of a host's shard by way of its journal, as only what is journaled outlives a crash."""

from __future__ import annotations

from itertools import count

from exchange.engine.channel import AnswerFunds, AnswerStatus
from exchange.engine.commands import CancelOrder, Command, PlaceOrder

GRANT = 10**24


def endowment(symbol: str, *accounts: int) -> list[Command]:
    """Return a shard's first commands that let accounts have plenty: orders that ask, and a ledger's yes."""
    commands: list[Command] = []
    numbers = count(1)
    for account in accounts:
        for side in (1, 2):
            name = f"endow-{account}-{side}"
            # Far from any price that a test may use.
            price = 1 if side == 1 else 10**9
            commands += [
                PlaceOrder(account, name, symbol, side, 1, 1, price, 10_000),
                AnswerFunds(next(numbers), int(AnswerStatus.GRANTED), GRANT),
                CancelOrder(account, symbol, name),
            ]
    return commands
