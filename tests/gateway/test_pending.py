"""Answers that wait until the feed says what became of a parked command, whichever of the two comes first."""

from __future__ import annotations

import asyncio
from typing import Any

from exchange.engine.events import EventKind, ParkedResolved
from exchange.engine.words import OrderStatus, RejectReason
from exchange.gateway.pending import PendingCommands
from exchange.v1 import trading_pb2, types_pb2
from tests.virtual_time import now_s, run


def answer(*sequences: int) -> bytes:
    """Return the answer to orders, those of these sequences parked, with one among them that was not."""
    response = trading_pb2.TradeResponse(request_id=9)
    response.results.add(outcome=types_pb2.OUTCOME_ACKNOWLEDGED, sequence=1, status=types_pb2.ORDER_STATUS_OPEN)
    for sequence in sequences:
        response.results.add(
            outcome=types_pb2.OUTCOME_ACKNOWLEDGED,
            client_order_id=f"o{sequence}",
            sequence=sequence,
            status=types_pb2.ORDER_STATUS_PENDING_FUNDS,
        )
    return response.SerializeToString()


def resolved(sequence: int, *, reason: int = 0) -> ParkedResolved:
    status = OrderStatus.REJECTED if reason else OrderStatus.OPEN
    order_id, open_ = (0, 0) if reason else (sequence, 5)
    row = (sequence + 50, "BTC-USDT", 2, sequence, f"o{sequence}", order_id, int(status), 0, open_, reason, 0)
    return ParkedResolved(int(EventKind.RESOLVED), *row)


async def completed(pending: PendingCommands, data: bytes) -> list[Any]:
    async with asyncio.timeout(10):
        return list(trading_pb2.TradeResponse.FromString(await pending.complete(data)).results)


async def until_waiting(pending: PendingCommands, count: int) -> None:
    async with asyncio.timeout(10):
        while len(pending._waiting) < count:  # noqa: ASYNC110  # a table has no event to wait for
            await asyncio.sleep(0)


async def test_what_the_feed_says_first_completes_the_answer_that_comes_later() -> None:
    pending = PendingCommands()
    pending.on_resolved(resolved(7))
    at_once, waited = await completed(pending, answer(7))
    assert at_once.sequence == 1
    assert (waited.status, waited.order_id, waited.open_quantity) == (types_pb2.ORDER_STATUS_OPEN, 7, 5)
    assert waited.sequence == 7, "it stays the command's own"


async def test_an_answer_that_comes_first_waits_for_all_that_it_needs() -> None:
    pending = PendingCommands()
    task = asyncio.create_task(completed(pending, answer(7, 8)))
    await until_waiting(pending, 1)
    pending.on_resolved(resolved(8, reason=int(RejectReason.INSUFFICIENT_FUNDS)))
    await asyncio.sleep(0)
    assert not task.done()
    pending.on_resolved(resolved(7))
    _, first, second = await task
    assert (first.outcome, first.status) == (types_pb2.OUTCOME_ACKNOWLEDGED, types_pb2.ORDER_STATUS_OPEN)
    assert (second.outcome, second.status) == (types_pb2.OUTCOME_REJECTED, types_pb2.ORDER_STATUS_REJECTED)
    assert second.reject_reason == types_pb2.REJECT_REASON_INSUFFICIENT_FUNDS
    assert not second.retry_after_ms, "to come back does not help"
    assert not pending._waiting


async def test_a_batch_that_was_answered_twice_is_completed_twice() -> None:
    pending = PendingCommands()
    tasks = [asyncio.create_task(completed(pending, answer(7))) for _ in range(2)]
    await until_waiting(pending, 1)
    for _ in range(3):
        await asyncio.sleep(0)
    pending.on_resolved(resolved(7))
    for _, result in await asyncio.gather(*tasks):
        assert result.status == types_pb2.ORDER_STATUS_OPEN


def test_a_repeat_whose_answer_comes_after_the_outcome_is_completed_at_once() -> None:
    async def answers_come_late() -> None:
        pending = PendingCommands()
        first = asyncio.create_task(completed(pending, answer(7)))
        await until_waiting(pending, 1)
        pending.on_resolved(resolved(7))
        await first
        # The shard had answered these while the order waited, and they were under way when its outcome was told.
        told_s = now_s()
        for _ in range(3):
            assert (await completed(pending, answer(7)))[1].status == types_pb2.ORDER_STATUS_OPEN
        assert now_s() == told_s

    run(answers_come_late())


def test_a_repeat_is_told_although_the_first_answer_has_given_up() -> None:
    async def repeat_outlasts_the_first() -> None:
        pending = PendingCommands(wait_s_max=1.5)
        first = asyncio.create_task(completed(pending, answer(7)))
        await asyncio.sleep(1)
        repeat = asyncio.create_task(completed(pending, answer(7)))
        assert (await first)[1].status == types_pb2.ORDER_STATUS_PENDING_FUNDS
        told_s = now_s()
        pending.on_resolved(resolved(7))
        assert (await repeat)[1].status == types_pb2.ORDER_STATUS_OPEN
        assert now_s() == told_s
        assert not pending._waiting

    run(repeat_outlasts_the_first())


async def test_an_outcome_that_is_waited_for_is_not_let_go() -> None:
    pending = PendingCommands(kept_max=1)
    task = asyncio.create_task(completed(pending, answer(7, 8)))
    await until_waiting(pending, 1)
    for sequence in (8, 9, 7):
        pending.on_resolved(resolved(sequence))
    assert [result.status for result in await task] == [types_pb2.ORDER_STATUS_OPEN] * 3


async def test_a_refusal_of_the_moment_says_when_to_come_back() -> None:
    pending = PendingCommands()
    pending.on_resolved(resolved(7, reason=int(RejectReason.FUNDS_UNAVAILABLE)))
    _, result = await completed(pending, answer(7))
    assert result.reject_reason == types_pb2.REJECT_REASON_FUNDS_UNAVAILABLE
    assert result.retry_after_ms > 0


async def test_what_is_not_told_in_time_goes_out_as_pending() -> None:
    pending = PendingCommands(wait_s_max=0.0)
    pending.on_resolved(resolved(7))
    _, untold, told = await completed(pending, answer(8, 7))
    assert (untold.status, told.status) == (types_pb2.ORDER_STATUS_PENDING_FUNDS, types_pb2.ORDER_STATUS_OPEN)
    assert untold.outcome == types_pb2.OUTCOME_ACKNOWLEDGED
    assert not pending._waiting


async def test_outcomes_are_let_go_oldest_first() -> None:
    pending = PendingCommands(wait_s_max=0.0, kept_max=2)
    for sequence in (7, 8, 9):
        pending.on_resolved(resolved(sequence))
    _, oldest, newest = await completed(pending, answer(7, 9))
    assert oldest.status == types_pb2.ORDER_STATUS_PENDING_FUNDS
    assert newest.status == types_pb2.ORDER_STATUS_OPEN
    assert list(pending._resolved) == [8, 9]
