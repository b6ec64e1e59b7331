"""The checker's own books, on histories that no exchange should have."""

from __future__ import annotations

from chaos.invariants.book import ACCEPTED, BUY, CLOSED, OPEN, REQUESTED, STAGE, Books
from chaos.invariants.commands import Cancel, Place
from chaos.invariants.findings import Findings

MARKET = "BTC-USDT"
_OPENED = (STAGE, 1, "", OPEN)


def test_two_open_orders_of_one_name_are_told_and_followed_to_their_ends() -> None:
    findings = Findings()
    books = Books(findings, "shard-0")
    place = Place(2, "a", MARKET, BUY, 1, 0, 100, 5, False, 0, 0)
    for sequence in (1, 2):
        accepted = (ACCEPTED, sequence, MARKET, sequence, 2, "a", BUY, 100, 5)
        events = [_OPENED, accepted] if sequence == 1 else [accepted]
        books.step(sequence, place, (sequence, "a", sequence, 1, 0, 5, 0), events, f"record {sequence}")
    # By its name the later one is meant; then there is none of that name, and the other goes by its number.
    for sequence, name, order_id in ((3, "a", 2), (4, "", 1)):
        closed = (CLOSED, sequence, MARKET, order_id, REQUESTED, 5)
        cancel = Cancel(2, name, MARKET, 0 if name else order_id)
        books.step(sequence, cancel, (sequence, "a", order_id, 3, 0, 0, 0), [closed], f"record {sequence}")
    assert [violation.rule for violation in findings.violations] == ["I2"]
    assert not books.markets[MARKET].open
    assert not books.diverged
