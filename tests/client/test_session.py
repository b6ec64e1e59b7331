import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest

from exchange.client import (
    AmendOrder,
    AsyncClient,
    CancelAllOrders,
    CancelOrder,
    ClientClosed,
    Command,
    DeadlineExceeded,
    Outcome,
    OutcomeUnknown,
    PlaceOrder,
    RetryPolicy,
    Side,
    TradeSession,
    Unauthenticated,
    Unavailable,
    _session,
)
from exchange.client._channels import Gateway
from exchange.v1 import trading_pb2, types_pb2
from tests.client.fake_gateway import (
    DRAINING,
    LOST,
    FakeGateway,
    Refusal,
    VirtualTime,
    accepted,
    rejected,
    silence,
    until,
)

Requests = list[trading_pb2.TradeRequest]


def place(name: str) -> PlaceOrder:
    return PlaceOrder(instrument="BTC-USDT", side=Side.BUY, quantity=1, price=1, client_order_id=name)


def amend(name: str) -> AmendOrder:
    return AmendOrder(instrument="BTC-USDT", client_order_id=name, price=2)


def cancel(name: str) -> CancelOrder:
    return CancelOrder(instrument="BTC-USDT", client_order_id=name)


def answer(request: trading_pb2.TradeRequest) -> trading_pb2.TradeResponse:
    """Accepts all, and says how many commands there were by the open quantity."""
    return trading_pb2.TradeResponse(
        request_id=request.request_id,
        results=[accepted(command.place.client_order_id, open_quantity=10_000) for command in request.commands],
    )


def connection(
    seen: Requests, *, answers: int = 1000, then: Refusal | None = None, first: Refusal | None = None
) -> Callable[[Any, Any], AsyncIterator[trading_pb2.TradeResponse]]:
    """Answers so many batches; reads the next one and does not answer it, but ends as it is told."""

    async def serve(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        if first is not None:
            await first.abort(context)
        left = answers
        async for request in requests:
            seen.append(request)
            if left > 0:
                left -= 1
                yield answer(request)
            elif then is not None:
                await then.abort(context)
            else:
                await silence()

    return serve


def collect(
    seen: Requests, count: int, then: Refusal
) -> Callable[[Any, Any], AsyncIterator[trading_pb2.TradeResponse]]:
    """Answers nothing; ends when it has read so many."""

    async def serve(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        async for request in requests:
            seen.append(request)
            if len(seen) == count:
                await then.abort(context)
        yield trading_pb2.TradeResponse()

    return serve


def ids(seen: Requests) -> list[int]:
    return [request.request_id for request in seen]


async def sent(session: TradeSession, *commands: Command) -> "asyncio.Task[Any]":
    """A batch under way, after whatever was sent before it."""
    task = asyncio.create_task(session.send(commands))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


@pytest.fixture
async def warm(client: AsyncClient) -> AsyncClient:
    """Has its instruments, so that sending needs no other call."""
    await client.instruments()
    return client


async def test_batches_are_answered_by_their_request_id(warm: AsyncClient, gateway: FakeGateway) -> None:
    async def backwards(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        batch = [await anext(aiter(requests)) for _ in range(3)]
        for request in reversed(batch):
            yield answer(request)
        await silence()

    gateway.script_stream("Trade", backwards)
    async with warm.trade() as session:
        results = await asyncio.gather(
            session.send([place("a"), cancel("z")]), session.send([place("b")]), session.send([place("c")])
        )
    assert [[result.client_order_id for result in batch] for batch in results] == [["a", ""], ["b"], ["c"]]
    assert results[0][0].accepted
    assert results[0][0].open_quantity == Decimal(1)


async def test_a_batch_carries_every_kind_of_command(warm: AsyncClient, gateway: FakeGateway) -> None:
    seen: Requests = []
    gateway.script_stream("Trade", connection(seen))
    commands: list[Command] = [place("a"), amend("a"), cancel("a"), CancelAllOrders(side=Side.SELL)]
    async with warm.trade(timeout=2.0) as session:
        assert len(await session.send(commands)) == 4
    (request,) = seen
    kinds = [command.WhichOneof("command") for command in request.commands]
    assert kinds == ["place", "amend", "cancel", "cancel_all"]
    assert request.deadline_ms == 2000
    assert not request.cancel_on_disconnect
    assert gateway.metadata["Trade"][0]["authorization"] == "Bearer secret"


async def test_the_protocols_own_messages_pass_through(warm: AsyncClient, gateway: FakeGateway) -> None:
    seen: Requests = []
    gateway.script_stream("Trade", connection(seen))
    async with warm.trade() as session:
        encoded = await session.encode([place("a")])
        results = await session.send_encoded(encoded)
    assert [result.open_quantity for result in results] == [10_000]
    assert list(seen[0].commands) == encoded


async def test_places_and_cancels_without_an_answer_are_sent_again_in_their_order(
    warm: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    before: Requests = []
    after: Requests = []
    gateway.script_stream("Trade", collect(before, 2, LOST), connection(after))
    async with warm.trade() as session:
        batches = [await sent(session, place("a")), await sent(session, cancel("b"))]
        results = [await batch for batch in batches]
        assert session.reconnects == 1
    assert [batch[0].accepted for batch in results] == [True, True]
    assert ids(before) == ids(after) == [1, 2]
    assert [list(request.commands) for request in before] == [list(request.commands) for request in after]
    # What is left of the deadline, not a new one.
    assert [request.deadline_ms for request in after] == [950, 950]
    assert time.slept == [0.05]


async def test_who_did_not_take_it_the_second_time_knows_nothing_of_the_first(
    warm: AsyncClient, gateway: FakeGateway
) -> None:
    async def refuse(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        reasons = [
            types_pb2.REJECT_REASON_SHARD_UNAVAILABLE,
            types_pb2.REJECT_REASON_INSUFFICIENT_FUNDS,
        ]
        async for request in requests:
            results = [rejected(reason, name) for name, reason in zip("ab", reasons, strict=True)]
            yield trading_pb2.TradeResponse(request_id=request.request_id, results=results)

    gateway.script_stream("Trade", collect([], 1, LOST), refuse)
    async with warm.trade() as session:
        again = await session.send([place("a"), place("b")])
        once = await session.send([place("a"), place("b")])
    # Only a shard knows what it did before.
    assert [result.outcome for result in again] == [Outcome.UNKNOWN, Outcome.REJECTED]
    assert [result.outcome for result in once] == [Outcome.REJECTED, Outcome.REJECTED]


async def test_what_was_answered_is_not_sent_again(warm: AsyncClient, gateway: FakeGateway) -> None:
    before: Requests = []
    after: Requests = []
    gateway.script_stream("Trade", connection(before, answers=1, then=LOST), connection(after))
    async with warm.trade() as session:
        await session.send([place("a")])
        await session.send([place("b")])
    assert (ids(before), ids(after)) == ([1, 2], [2])


@pytest.mark.parametrize("command", [amend("a"), CancelAllOrders()], ids=["amend", "cancel-all"])
async def test_what_a_later_batch_may_have_overtaken_is_not_sent_again(
    warm: AsyncClient, gateway: FakeGateway, command: Command
) -> None:
    after: Requests = []
    gateway.script_stream("Trade", collect([], 2, LOST), connection(after))
    async with warm.trade() as session:
        first = await sent(session, command)
        second = await sent(session, place("b"))
        with pytest.raises(OutcomeUnknown, match="sending it again is not safe"):
            await first
        assert (await second)[0].accepted
    assert ids(after) == [2]


@pytest.mark.parametrize("command", [amend("a"), CancelAllOrders()], ids=["amend", "cancel-all"])
async def test_the_latest_batch_is_sent_again_whatever_it_is(
    warm: AsyncClient, gateway: FakeGateway, command: Command
) -> None:
    gateway.script_stream("Trade", collect([], 1, LOST), connection([]))
    async with warm.trade() as session:
        assert (await session.send([command]))[0].accepted


async def test_sending_again_costs_the_retry_budget(gateway: FakeGateway, time: VirtualTime) -> None:
    gateway.script_stream("Trade", collect([], 1, LOST), connection([]))
    policy = RetryPolicy(budget_max=0)
    client = AsyncClient(gateway.address, retry=policy, environment=time.environment)
    async with client, client.trade() as session:
        with pytest.raises(OutcomeUnknown, match="the retry budget is spent"):
            await session.send([place("a")])
        assert client.statistics.retries_refused == 1
        assert (await session.send([place("b")]))[0].accepted


async def test_a_batch_is_not_sent_again_after_its_deadline(
    warm: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    after: Requests = []
    late = Refusal(grpc.StatusCode.UNAVAILABLE, pushback="1500")
    gateway.script_stream("Trade", collect([], 1, late), connection(after))
    async with warm.trade(timeout=1.0) as session:
        with pytest.raises(OutcomeUnknown, match="no connection until the deadline"):
            await session.send([place("a")])
    assert after == []


async def test_a_batch_without_an_answer_is_unknown(gateway: FakeGateway) -> None:
    gateway.script_stream("Trade", connection([], answers=0))
    client = AsyncClient(gateway.address, settle_timeout=0.0)
    async with client, client.trade() as session:
        with pytest.raises(OutcomeUnknown, match="no answer within the timeout"):
            await session.send([place("a")], timeout=0.05)


async def test_no_more_batches_are_in_flight_than_allowed(gateway: FakeGateway) -> None:
    seen: Requests = []
    gateway.script_stream("Trade", connection(seen, answers=0))
    client = AsyncClient(gateway.address, settle_timeout=0.0)
    async with client, client.trade(in_flight_max=1) as session:
        await client.instruments()
        first = await sent(session, place("a"))
        with pytest.raises(DeadlineExceeded, match="too many batches in flight"):
            await session.send([place("b")], timeout=0.01)
        first.cancel()
        await asyncio.wait([first])
    assert all(request.request_id == 1 for request in seen)


async def test_a_session_that_is_refused_says_why_and_is_over(warm: AsyncClient, gateway: FakeGateway) -> None:
    refusal = Refusal(grpc.StatusCode.UNAUTHENTICATED)
    gateway.script_stream("Trade", connection([], first=refusal))
    async with warm.trade() as session:
        with pytest.raises((Unauthenticated, Unavailable)) as caught:
            await session.send([place("a")])
        assert "UNAUTHENTICATED" in str(caught.value)
        with pytest.raises(Unavailable, match="the session is over: UNAUTHENTICATED"):
            await session.send([place("b")])


async def test_a_gateway_that_is_away_for_a_moment_costs_neither_budget_nor_certainty(
    gateway: FakeGateway, time: VirtualTime
) -> None:
    drained = Refusal(grpc.StatusCode.UNAVAILABLE, "REJECT_REASON_UNSPECIFIED", retry_after_ms=10)
    gateway.script_stream("Trade", *[connection([], first=drained)] * 3, connection([]))
    policy = RetryPolicy(budget_max=0)
    client = AsyncClient(gateway.address, retry=policy, environment=time.environment)
    async with client, client.trade() as session:
        assert (await session.send([place("a")]))[0].accepted


async def test_a_session_turns_to_the_next_address(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    after: Requests = []
    gateway.script_stream("Trade", collect([], 1, LOST))
    other_gateway.script_stream("Trade", connection(after))
    addresses = [gateway.address, other_gateway.address]
    client = AsyncClient(addresses, environment=time.environment)
    async with client, client.trade() as session:
        assert (await session.send([place("a")]))[0].accepted
    assert ids(after) == [1]


async def test_what_a_draining_gateway_did_not_take_is_sent_to_the_next_in_order(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    before: Requests = []
    after: Requests = []

    async def drains(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        async for request in requests:
            before.append(request)
            if len(before) == 21:
                yield answer(before[0])
                await DRAINING.abort(context)

    gateway.script_stream("Trade", drains)
    other_gateway.script_stream("Trade", connection(after))
    policy = RetryPolicy(budget_max=0)
    addresses = [gateway.address, other_gateway.address]
    client = AsyncClient(addresses, retry=policy, environment=time.environment)
    async with client, client.trade() as session:
        await client.instruments()
        commands: list[Command] = [place("a"), amend("a"), *[place(f"o{n}") for n in range(19)]]
        batches = [await sent(session, command) for command in commands]
        results = [(await batch)[0] for batch in batches]
    assert all(result.accepted for result in results)
    assert ids(after) == list(range(2, 22)), "amends too: surely none of it was executed"
    assert client.statistics.outcomes_unknown == 0


async def test_a_session_that_is_told_to_go_ends_its_stream_and_goes_on_elsewhere(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    before: Requests = []
    after: Requests = []
    told = asyncio.Event()

    async def leave(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        before.append(await anext(aiter(requests)))
        yield trading_pb2.TradeResponse(draining=True)
        told.set()
        before.extend([request async for request in requests])  # until the session ends it
        for request in before:
            yield answer(request)
        await DRAINING.abort(context)

    gateway.script_stream("Trade", leave)
    other_gateway.script_stream("Trade", connection(after))
    addresses = [gateway.address, other_gateway.address]
    client = AsyncClient(addresses, retry=RetryPolicy(budget_max=0), environment=time.environment)
    async with client, client.trade() as session:
        first = await sent(session, place("a"))
        await told.wait()
        second = await sent(session, amend("b"))
        assert (await first)[0].accepted
        assert (await second)[0].accepted
    assert sorted(ids(before) + ids(after)) == [1, 2]
    assert ids(before)[0] == 1


async def test_a_session_leaves_a_gateway_that_owes_answers_and_says_nothing_at_all(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: Requests = []
    after: Requests = []
    asked: list[str] = []

    async def is_silent(self: Gateway, timeout_s: float) -> bool:
        asked.append(self.address)
        # Not before the batch has come there, nor of the other one, however busy the machine is.
        return len(asked) > 1 and bool(before) and self.address == gateway.address

    monkeypatch.setattr(Gateway, "is_silent", is_silent)
    monkeypatch.setattr(_session, "_SILENCE_S", 0.001)
    gateway.script_stream("Trade", connection(before, answers=0))
    other_gateway.script_stream("Trade", connection(after))
    client = AsyncClient([gateway.address, other_gateway.address], environment=time.environment)
    async with client, client.trade() as session:
        assert (await session.send([place("a")]))[0].accepted
        assert client.address == other_gateway.address
    assert ids(before) == ids(after) == [1]
    assert asked[:2] == [gateway.address] * 2, "the first time it said how it was, and was kept"


async def test_a_session_that_is_cancelled_with_its_stream_stays_at_a_silent_gateway(
    gateway: FakeGateway, other_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "_SILENCE_S", 0.001)
    monkeypatch.setattr(_session, "_PROBE_S", 0.001)
    gateway.script_stream("Trade", connection([], answers=0))
    client = AsyncClient([gateway.address, other_gateway.address], settle_timeout=0.0)
    async with client, client.trade(cancel_on_disconnect=True) as session:
        with pytest.raises(OutcomeUnknown, match="no answer within the timeout"):
            await session.send([place("a")], timeout=0.1)
        assert client.address == gateway.address
        assert session.reconnects == 0


async def test_with_cancel_on_disconnect_a_draining_gateway_ends_the_session_and_leaves_nothing_unknown(
    warm: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script_stream("Trade", connection([], answers=1, then=DRAINING))
    async with warm.trade(cancel_on_disconnect=True) as session:
        await session.send([place("a")])
        with pytest.raises(Unavailable, match="GATEWAY_DRAINING"):
            await session.send([place("b")])


@pytest.mark.parametrize(("budget_per_s", "resent"), [(50.0, 5), (1.0, 0)])
async def test_what_is_sent_again_waits_a_moment_for_the_budget(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime, budget_per_s: float, resent: int
) -> None:
    after: Requests = []
    gateway.script_stream("Trade", collect([], 5, LOST))
    other_gateway.script_stream("Trade", connection(after))
    policy = RetryPolicy(budget_ratio=0.0, budget_per_s=budget_per_s)
    addresses = [gateway.address, other_gateway.address]
    client = AsyncClient(addresses, retry=policy, environment=time.environment)
    async with client, client.trade(timeout=5.0) as session:
        await client.instruments()
        while client._caller.budget.withdraw():
            pass
        batches = [await sent(session, place(f"o{n}")) for n in range(5)]
        results = await asyncio.gather(*batches, return_exceptions=True)
    assert [isinstance(result, OutcomeUnknown) for result in results] == [False] * resent + [True] * (5 - resent)
    assert ids(after) == [1, 2, 3, 4, 5][:resent]
    assert sum(delay for delay in time.slept if delay == 0.01) <= 0.51


async def test_a_session_leaves_a_gateway_that_finds_no_shard_for_long(
    gateway: FakeGateway, other_gateway: FakeGateway, time: VirtualTime
) -> None:
    after: Requests = []

    async def finds_no_shard(requests: Any, context: Any) -> AsyncIterator[trading_pb2.TradeResponse]:
        async for request in requests:
            results = [rejected(types_pb2.REJECT_REASON_SHARD_UNAVAILABLE, retry_after_ms=500)]
            yield trading_pb2.TradeResponse(request_id=request.request_id, results=results)

    gateway.script_stream("Trade", finds_no_shard)
    other_gateway.script_stream("Trade", connection(after))
    addresses = [gateway.address, other_gateway.address]
    client = AsyncClient(addresses, environment=time.environment)
    async with client, client.trade() as session:
        for _ in range(4):
            assert (await session.send([place("a")]))[0].reject_reason.name == "SHARD_UNAVAILABLE"
            time.now += 1.0
        assert (await session.send([place("b")]))[0].accepted
        assert client.statistics.outcomes_unknown == 0
    assert len(after) == 1


async def test_for_who_must_go_on_every_failure_is_an_outcome(warm: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("Trade", connection([], answers=1, then=LOST))
    async with warm.trade(cancel_on_disconnect=True) as session:
        encoded = await session.encode([place("a"), cancel("b"), amend("c"), CancelAllOrders()])
        assert [result.outcome for result in await session.outcomes(encoded[:1])] == [types_pb2.OUTCOME_ACKNOWLEDGED]
        unknown = await session.outcomes(encoded)
        assert [result.client_order_id for result in unknown] == ["a", "b", "c", ""]
        assert {result.outcome for result in unknown} == {types_pb2.OUTCOME_UNKNOWN}
        (away,) = await session.outcomes(encoded[:1])
        assert away.reject_reason == types_pb2.REJECT_REASON_SHARD_UNAVAILABLE


async def test_with_cancel_on_disconnect_the_session_ends_with_its_connection(
    warm: AsyncClient, gateway: FakeGateway
) -> None:
    seen: Requests = []
    gateway.script_stream("Trade", connection(seen, answers=1, then=LOST), connection([]))
    async with warm.trade(cancel_on_disconnect=True) as session:
        await session.send([place("a")])
        with pytest.raises(OutcomeUnknown, match="the session ended"):
            await session.send([place("b")])
        with pytest.raises(Unavailable, match="the session is over"):
            await session.send([place("c")])
    assert all(request.cancel_on_disconnect for request in seen)
    assert len(gateway.requests["Trade"]) == 1


async def test_with_cancel_on_disconnect_an_unused_connection_may_be_lost(
    warm: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script_stream("Trade", connection([], first=LOST), connection([]))
    async with warm.trade(cancel_on_disconnect=True) as session:
        await until(lambda: time.slept)
        assert (await session.send([place("a")]))[0].accepted


async def test_leaving_a_session_waits_for_the_answers_that_are_due(warm: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script_stream("Trade", connection([]))
    async with warm.trade() as session:
        task = await sent(session, place("a"))
    assert (await task)[0].accepted


async def test_leaving_a_session_by_an_error_leaves_its_batches_unknown(
    warm: AsyncClient, gateway: FakeGateway
) -> None:
    seen: Requests = []
    gateway.script_stream("Trade", connection(seen, answers=0))
    tasks: list[asyncio.Task[Any]] = []

    async def fail() -> None:
        async with warm.trade() as session:
            tasks.append(await sent(session, place("a")))
            await until(lambda: seen)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    with pytest.raises(OutcomeUnknown):
        await tasks[0]


async def test_closing_the_client_ends_its_sessions(warm: AsyncClient, gateway: FakeGateway) -> None:
    seen: Requests = []
    gateway.script_stream("Trade", connection(seen, answers=0))
    async with warm.trade() as session:
        task = await sent(session, place("a"))
        await until(lambda: seen)
        await warm.aclose()
        with pytest.raises(OutcomeUnknown):
            await task


async def test_a_session_must_be_entered(warm: AsyncClient) -> None:
    with pytest.raises(ClientClosed, match="expected a session that was entered"):
        await warm.trade().send([place("a")])
