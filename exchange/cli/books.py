"""Whether the money of an exchange adds up: all that accounts have is what was deposited and not withdrawn (I3)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal

from exchange.client import AsyncClient, Audit, EntryType

_PAGE_SIZE = 1_000
_AUDIT_TIMEOUT_S = 60.0
_EXACT = Context(prec=60)
"""More than an amount has: Python's own 28 digits would round."""
_IN_AND_OUT = (EntryType.DEPOSIT, EntryType.WITHDRAWAL)


async def check_books(operator: AsyncClient, account_ids: Sequence[int] = ()) -> list[str]:
    """Compare what all accounts have with their deposits less withdrawals; return what is wrong, a line each.

    Takes an operator's key, and accounts that rest: each is asked at a moment of its own. `account_ids`: only these,
    which must have traded with each other alone, and without fees.
    """
    faults: list[str] = []
    totals: dict[str, Decimal] = {}
    expected: dict[str, Decimal] = {}
    accounts = account_ids or [account.account_id async for account in operator.list_accounts(page_size=_PAGE_SIZE)]
    for account in accounts:
        balances = await operator.balances(account)
        if balances.unavailable_shards:
            away = ", ".join(balances.unavailable_shards)
            faults.append(f"account {account}: what it has in {away} cannot be told")
        for balance in balances:
            totals[balance.asset] = _EXACT.add(totals.get(balance.asset, Decimal(0)), balance.total)
            if min(balance.available, balance.held) < 0:
                faults.append(f"account {account}: {balance.available} {balance.asset}, {balance.held} held")
        async for entry in operator.ledger_entries(account, page_size=_PAGE_SIZE):
            if entry.type in _IN_AND_OUT:
                expected[entry.asset] = _EXACT.add(expected.get(entry.asset, Decimal(0)), entry.change)
    for asset in sorted(totals.keys() | expected.keys()):
        total, paid_in = totals.get(asset, Decimal(0)), expected.get(asset, Decimal(0))
        if total != paid_in:
            faults.append(f"{asset}: the accounts have {total:f}, deposits less withdrawals are {paid_in:f}")
    return faults


async def audit_books(operator: AsyncClient) -> tuple[Audit, list[str]]:
    """Have the exchange audit itself; return what it says, and what is wrong or could not be told, a line each."""
    audit = await operator.audit(timeout=_AUDIT_TIMEOUT_S)
    faults = [f"audit: {found.summary}" for found in audit.breaks]
    if audit.unavailable:
        faults.append(f"audit: {', '.join(audit.unavailable)} did not answer")
    return audit, faults
