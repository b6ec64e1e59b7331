"""The auditor's own pace: when it asks whom, what it does after a gap, and what fits into a message."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from exchange.supervisor.audit.auditor import BREAKS_KEPT, BREAKS_TOLD_MAX, FOLLOW_PAUSE_S, START_OVER_S, Auditor
from exchange.supervisor.audit.encode import BREAKS_SHOWN_MAX, encode_report
from exchange.supervisor.audit.words import AssetLine, AuditReport, Break, BreakKind
from tests.supervisor.books import BUY, SELL, Books, Node

SYMBOL = "BTC-USDT"


def watch(node: Node) -> Counter[str]:
    """Count what a machine is asked from now on."""
    asked: Counter[str] = Counter()
    dump, query, feed = node.dump, node.query, node.feed

    async def counted_dump() -> bytes:
        asked["dump"] += 1
        return await dump()

    async def counted_query(request: bytes) -> bytes:
        asked["query"] += 1
        return await query(request)

    async def counted_feed(after_sequence: int, timeout_s: float) -> list[bytes] | None:
        asked["feed"] += 1
        assert not asked["feeding"], "two calls in flight"
        asked["feeding"] += 1
        await asyncio.sleep(0)
        asked["feeding"] -= 1
        return await feed(after_sequence, timeout_s)

    node.dump, node.query, node.feed = counted_dump, counted_query, counted_feed  # type: ignore[method-assign]
    return asked


async def test_it_follows_at_intervals_and_audits_at_longer_ones() -> None:
    books = Books()
    books.place("shard-0", SYMBOL, 2, SELL, 10_000, 100)
    slept: Counter[float] = Counter()
    is_enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept[seconds] += 1
        # Each second of an audit's interval is so many reads of the feeds.
        for _ in range(round(seconds * 20)):
            await asyncio.sleep(0)
        if slept[30.0] == 3:
            is_enough.set()
            await asyncio.Event().wait()

    auditor = Auditor(list(books.shards), 30.0, monotonic_s=lambda: 0.0, clock_ns=lambda: 5, sleep=sleep)
    auditor.set_peers(books.nodes)
    asked = watch(books.shards["shard-0"])
    running = asyncio.create_task(auditor.run())
    await is_enough.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(slept) == {30.0, FOLLOW_PAUSE_S}
    assert auditor.last is not None
    assert auditor.last.is_balanced
    assert asked["dump"] == 1
    # Once to begin, and at two audits.
    assert asked["query"] == 3
    assert asked["feed"] > 20


async def test_an_audit_at_the_side_of_following_has_one_call_in_flight() -> None:
    books = Books()
    asked = watch(books.shards["shard-0"])
    audits = [books.audit() for _ in range(3)]
    follows = [books.auditor.follow() for _ in range(3)]
    books.place("shard-0", SYMBOL, 2, SELL, 10_000, 100)
    reports = (await asyncio.gather(*audits, *follows))[:3]
    assert all(report is not None and report.is_balanced for report in reports)
    assert asked["dump"] == 1


async def test_after_a_gap_it_waits_before_it_asks_for_another_dump_unless_somebody_asks() -> None:
    books = Books()
    await books.balanced()
    node = books.shards["shard-0"]
    asked = watch(node)

    def miss() -> None:
        books.place("shard-0", SYMBOL, 2, SELL, 10_000, 100)
        node.restart(tail=0)

    miss()
    for _ in range(3):
        await books.auditor.follow()
    assert asked["dump"] == 0
    books.now_s += START_OVER_S
    await books.auditor.follow()
    assert asked["dump"] == 1
    miss()
    await books.auditor.follow()
    report = await books.balanced()
    assert asked["dump"] == 2
    assert len(report.notes) == 2
    assert all(note.startswith("shard-0: the feed does not go on after ") for note in report.notes)


async def test_a_ledger_that_begins_anew_in_the_middle_makes_the_audit_begin_anew() -> None:
    books = Books()
    books.place("shard-0", SYMBOL, 2, SELL, 10_000, 100)
    await books.balanced()
    query = books.ledger.query
    moments = ["in the middle"]

    async def restart_first(request: bytes) -> bytes:
        if moments:
            moments.clear()
            # The shards have been taken; what moves now, the ledger cannot tell by number.
            books.place("shard-0", SYMBOL, 3, BUY, 10_000, 100)
            books.place("shard-1", "ETH-USDT", 3, BUY, 10_000, 100)
            books.ledger.restart(tail=0)
        return await query(request)

    books.ledger.query = restart_first  # type: ignore[method-assign]
    report = await books.balanced()
    assert not moments
    assert [note.partition(":")[0] for note in report.notes] == ["ledger"]
    assert report.cut["shard-1"][0] == books.shards["shard-1"].machine.sequence


async def test_a_machine_that_went_back_is_followed_from_there_with_a_note() -> None:
    books = Books()
    node = books.shards["shard-0"]
    old_state, old_feed = node.kind.pack_state(node.machine), node.feed_of
    await books.balanced()
    books.place("shard-0", "ETH-BTC", 1, SELL, 10_000, 100)
    await books.balanced()
    node.machine, node.feed_of = node.kind.unpack_state(old_state), type(old_feed)(last_sequence=3)
    report = await books.audit()
    assert any("expected to be at" in note for note in report.notes)


def a_break(number: int, shard: str) -> Break:
    return Break(BreakKind.OWNED, "USDT", (shard,), 0, 150, (number,), "", ((shard, 7),), ("e",))


async def test_pings_and_messages_carry_a_bounded_part_of_many_breaks() -> None:
    books = Books()
    await books.balanced()
    auditor = books.auditor
    auditor._on_break(a_break(0, "shard-1"))
    for number in range(BREAKS_KEPT - 1):
        auditor._on_break(a_break(number, "shard-0"))
    told = auditor.newest_breaks()
    assert len(told) == BREAKS_TOLD_MAX + 1
    # A shard with one break among a thousand of another's is told of too.
    assert told[0]["shards"] == ["shard-1"]
    assert told[-1]["summary"] == f"I3 OWNED shard-0 account {BREAKS_KEPT - 2} USDT: expected 0.000000, was 0.000150"
    for number in range(50):
        auditor._on_break(a_break(number, "shard-2"))
    assert len(auditor.breaks) == BREAKS_KEPT
    assert auditor.detail.startswith(f"{BREAKS_KEPT} breaks, the last one: I3 OWNED shard-2 account 49")

    report = AuditReport(5, assets=[AssetLine("USDT", 6)], breaks=[a_break(n, "shard-0") for n in range(150)])
    message = encode_report(report)
    assert len(message.breaks) == BREAKS_SHOWN_MAX
    assert list(message.notes) == [f"150 breaks, of which the first {BREAKS_SHOWN_MAX} are shown"]
    assert (message.breaks[0].expected, message.breaks[0].found) == ("0.000000", "0.000150")


@pytest.mark.parametrize("kind", list(BreakKind))
def test_every_kind_of_break_is_in_the_manual(kind: BreakKind) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert f"`{kind}`" in manual
