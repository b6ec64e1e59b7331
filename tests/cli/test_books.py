"""Whether the books balance, as the demo and a replay ask at their end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, cast

from exchange.cli.books import check_books
from exchange.client import Account, AsyncClient, Balance, Balances, EntryType, LedgerEntry

MUCH = Decimal("12345678901234567890123456.00")
"""With what is added, more digits than Python adds exactly by itself."""


def entry(kind: EntryType, change: Decimal) -> LedgerEntry:
    return LedgerEntry(1, 1, "USDT", kind, change, Decimal(0), "r", None, 0, 1)


class Operator:
    """Two accounts: what each has, and how it came."""

    def __init__(self, *rows: Balances) -> None:
        self._rows = rows
        self.asked: list[int] = []

    async def list_accounts(self, **_: Any) -> AsyncIterator[Account]:
        for number in range(1, len(self._rows) + 1):
            yield Account(number, f"a{number}", 0)

    async def balances(self, account: int) -> Balances:
        self.asked.append(account)
        return self._rows[account - 1]

    async def ledger_entries(self, account: int, **_: Any) -> AsyncIterator[LedgerEntry]:
        if account == 1:
            yield entry(EntryType.DEPOSIT, MUCH + 2)
            yield entry(EntryType.WITHDRAWAL, Decimal(-1))
            yield entry(EntryType.TRANSFER, Decimal(-5))


def has(total: Decimal, *away: str) -> Balances:
    return Balances((Balance("USDT", total, Decimal(0), total),), {}, away)


async def check(*rows: Balances, account_ids: tuple[int, ...] = ()) -> list[str]:
    return await check_books(cast(AsyncClient, Operator(*rows)), account_ids)


async def test_books_balance_when_accounts_have_what_came_in_and_did_not_go_out() -> None:
    assert not await check(has(MUCH), has(Decimal(1)))
    assert not await check(has(MUCH + 1), has(Decimal(7)), account_ids=(1,))


async def test_a_last_digit_too_much_is_told() -> None:
    (fault,) = await check(has(MUCH), has(Decimal("1.000001")))
    assert fault.startswith("USDT: the accounts have 12345678901234567890123457.000001, deposits less withdrawals are")


async def test_what_cannot_be_told_and_what_is_less_than_nothing_are_faults() -> None:
    away, _ = await check(has(MUCH, "shard-1"), has(Decimal(0)))
    assert away == "account 1: what it has in shard-1 cannot be told"
    negative, *_ = await check(has(MUCH + 2), has(Decimal(-1)))
    assert negative == "account 2: -1 USDT, 0 held"
