"""What must hold of the money of a ledger and its shards, told from their bare state (I3, I4)."""

from __future__ import annotations

from collections import Counter
from typing import Any

_GRANTED = 1
_BUY = 1


def check_money(
    ledger: Any,
    shards: dict[str, Any],
    supply: Counter[str],
    moved: dict[str, dict[tuple[str, int], tuple[int, str, int]]],
) -> None:
    """Check that all money together is `supply`, none negative, and that holds are what open orders need.

    `moved`: what each side told of its moves, by shard and message; the difference is what is under way.
    """
    there: Counter[str] = Counter()
    for account, balances in ledger.balances.available.items():
        for asset, amount in balances.items():
            assert amount >= 0, f"ledger: account {account} has {amount} {asset}"
            there[asset] += amount
    under_way: Counter[str] = Counter()
    for name, shard in shards.items():
        there.update(_escrow(name, shard))
        under_way.update(_under_way(ledger.grants.channels.get(name), shard))
    there.update(under_way)
    for asset in {**there, **supply}:
        assert there[asset] == supply[asset], f"{asset}: there is {there[asset]}, came in less went out {supply[asset]}"
    told: Counter[str] = Counter()
    for _, asset, change in moved["ledger"].values():
        told[asset] += change
    for _, asset, change in moved["shard"].values():
        told[asset] -= change
    for asset in {**told, **under_way}:
        assert told[asset] == under_way[asset], f"{asset}: {under_way[asset]} is under way, events say {told[asset]}"


def _escrow(name: str, shard: Any) -> Counter[str]:
    """Return what a shard has of each asset, free and held."""
    there: Counter[str] = Counter()
    needed: Counter[tuple[str, int, int]] = Counter()
    for symbol, book in shard.books.items():
        for order in book.orders():
            side = order.request.side
            needed[symbol, order.request.account, side] += _need(book.instrument, side, order.price, order.open)
    for parked in shard.parked.values():
        side = _BUY if parked.is_buy else 2
        needed[parked.command.instrument, parked.command.account, side] += parked.part
    for symbol, book in shard.books.items():
        for account, trader in book.traders.items():
            for side, held, asset in (
                (1, trader.quote_held, book.instrument.quote_asset),
                (2, trader.base_held, book.instrument.base_asset),
            ):
                need = needed.pop((symbol, account, side), 0)
                assert held == need, (
                    f"{name}: account {account} holds {held} {asset} in {symbol}, its orders need {need}"
                )
                there[asset] += held
    assert not needed, f"{name}: orders of nobody need {needed}"
    for account, wallet in shard.funds.wallets.items():
        for asset, purse in wallet.purses.items():
            assert purse.available >= 0, f"{name}: account {account} has {purse.available} {asset}"
            there[asset] += purse.available
    return there


def _need(instrument: Any, side: int, price: int, quantity: int) -> int:
    """Return what an order needs: a sell what it sells, a buy its cost and the highest fee on that, in whole units."""
    if side != _BUY:
        return quantity * int(10 ** (instrument.base_scale - instrument.quantity_scale))
    digits = instrument.quote_scale - instrument.price_scale - instrument.quantity_scale
    amount: int = price * quantity * 10**digits if digits >= 0 else price * quantity // 10**-digits
    fee_ppm: int = max(instrument.maker_fee_ppm, instrument.taker_fee_ppm, 0)
    return amount + amount * fee_ppm // 1_000_000


def _under_way(channel: Any, shard: Any) -> Counter[str]:
    """Return what one side has sent and the other not received: both keep a message until they know that it has."""
    under_way: Counter[str] = Counter()
    for n, message in shard.funds.outbox.items():
        answer = channel.answers.get(n) if channel is not None else None
        if hasattr(message, "recall"):
            if answer is None:
                under_way[message.asset] += message.amount
        elif answer is not None and answer.status == _GRANTED:
            under_way[message.asset] += answer.amount
    return under_way
