"""`exchange audit`: the books, and what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from json import dumps

from exchange.cli.errors import describe
from exchange.cli.output import console, plain, show
from exchange.client import Audit, AuditBreak, AuditedAsset, Client, EvenkeelError

BALANCED, BROKEN, UNKNOWN = 0, 1, 3
"""Exit codes."""
TIMEOUT_S = 60.0
_BREAK = ("rule", "kind", "asset", "account_ids", "shards", "subject", "expected", "found")


@dataclass(frozen=True, slots=True)
class _Line:
    """An asset as the table shows it; `shards` all of them together."""

    asset: str
    supply: Decimal
    ledger: Decimal
    shards: Decimal
    under_way: Decimal
    difference: Decimal


def run(connect: Callable[[], AbstractContextManager[Client]], as_json: bool) -> int:
    """Audit, and print what came of it; return the exit code, which is 1 for a broken rule alone."""
    try:
        with connect() as client:
            audit = client.audit(timeout=TIMEOUT_S)
    except EvenkeelError as error:
        print(describe(error)[0], file=sys.stderr)
        return UNKNOWN
    return show_audit(audit, as_json)


def show_audit(audit: Audit, as_json: bool) -> int:
    """Print what an audit said; return the exit code."""
    if as_json:
        print(dumps(plain(audit), indent=2))
    else:
        _show_tables(audit)
    if audit.breaks:
        return BROKEN
    return BALANCED if audit.complete else UNKNOWN


def _show_tables(audit: Audit) -> None:
    columns = ("asset", "supply", "ledger", "shards", "under_way", "difference")
    show(map(_line, audit.assets), columns, False)
    at = ", ".join(f"{machine.name} {machine.sequence}" for machine in audit.machines)
    checked = f"{audit.accounts} accounts, {audit.orders} open orders, {audit.trades} trades checked"
    _say(f"{checked}; cut at {at or 'nothing'}")
    for note in audit.notes:
        _say(f"note: {note}")
    if audit.breaks:
        show(audit.breaks, _BREAK, False)
        for found in audit.breaks:
            _show_evidence(found)
    if audit.unavailable:
        _say(f"INCOMPLETE: {' '.join(audit.unavailable)} did not answer; nothing is said of the sums")
    _say(
        "BROKEN: see docs/operations.md"
        if audit.breaks
        else "BALANCED"
        if audit.complete
        else "no break found in the rest"
    )


def _show_evidence(found: AuditBreak) -> None:
    at = ", ".join(f"{machine.name} {machine.sequence}" for machine in found.machines)
    _say(f"{found.summary} (at {at})")
    for event in found.events:
        _say(f"  {event}")


def _line(row: AuditedAsset) -> _Line:
    shards = sum(row.escrow.values(), Decimal(0))
    return _Line(row.asset, row.supply, row.ledger, shards, row.under_way, row.difference)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False)
