"""What clients see of overload, through real gateways and hosts in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from exchange.client import AccountTier, AsyncClient, NotExecuted, OrderResult, OutcomeUnknown, Overloaded, Side
from exchange.engine.commands import SetStage
from exchange.engine.ledger_words import AccountTier as LedgerTier
from exchange.engine.ledger_words import CreateApiKey, Permission, SetTier
from exchange.engine.words import RejectReason, Stage
from exchange.gateway.auth import hash_of_key
from exchange.gateway.links import Link
from exchange.gateway.queries import IN_FLIGHT_MAX, Queries, QueryRefused
from exchange.gateway.server import LEDGER
from exchange.overload.account_limits import Tier
from exchange.overload.classes import ShedReason, WorkClass
from exchange.settings import Queues, RateLimit, RateLimits, Settings
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2
from tests.gateway.failover_world import ALICE, SHARD, SYMBOL, Exchange, exchange, until
from tests.gateway.test_failover import order
from tests.gateway.test_links import ScriptedPeer, settled

TIGHT = Settings(rate_limits=RateLimits(standard=RateLimit(orders_per_s=1, burst=2)))


async def with_trader(world: Exchange) -> None:
    """Give Alice a key that is no operator's."""
    key = CreateApiKey(ALICE, "trader", hash_of_key("secret-trader"), (int(Permission.READ), int(Permission.TRADE)))
    await world._command(LEDGER, key)
    await until(lambda: "trader" in world.gateways[0].ledger.api_keys)


async def place(world: Exchange, name: str, *, timeout: float | None = 5.0) -> Any:
    """Place an order by a single call; return what the call ended with: an error, or the call itself."""
    request = trading_pb2.PlaceOrderRequest(
        instrument=SYMBOL,
        client_order_id=name,
        side=types_pb2.SIDE_BUY,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=100,
        quantity=10_000,
    )
    async with grpc.aio.insecure_channel(world.gateways[0].address) as channel:
        stub = trading_pb2_grpc.TradingServiceStub(channel)
        call = stub.PlaceOrder(request, metadata=(("authorization", "Bearer secret-trader"),), timeout=timeout)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error
        return await call.trailing_metadata()


def details_of(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, int | None]:
    """The ErrorInfo, and the milliseconds of RetryInfo."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has all that is read
    assert status is not None
    info, retry_ms = error_details_pb2.ErrorInfo(), None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        else:
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_ms = retry.retry_delay.ToMilliseconds()
    return info, retry_ms


async def test_an_account_over_its_limit_is_told_all_about_it(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world:
        await with_trader(world)
        world.gateways[0].apply_settings(TIGHT)
        trailers = dict(await place(world, "a"))
        assert (trailers["ratelimit-limit"], trailers["ratelimit-remaining"]) == ("1", "1")
        assert trailers["market-stage"] == "OPEN"
        assert int(trailers["epoch"]) == world.gateways[0].replicas[SHARD].epoch
        await place(world, "b")
        error = await place(world, "c")
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        info, retry_ms = details_of(error)
        assert (info.reason, info.domain) == ("RATE_LIMITED", "evenkeel")
        trailers = dict(error.trailing_metadata())
        assert trailers["shed-reason"] == "rate"
        assert trailers["ratelimit-remaining"] == "0"
        assert trailers["grpc-retry-pushback-ms"] == str(retry_ms)
        error = await place(world, "d", timeout=0.2)
        info, retry_ms = details_of(error)
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "-1", "it would outlive the call"
        assert retry_ms is not None
        assert retry_ms > 200
        assert world.gateways[0].load()["rate_limited"] == 2
        assert sorted(world.resting()) == ["a", "b"]


async def test_a_tier_is_set_by_an_operator_and_holds_at_once(tmp_path: Path) -> None:
    assert [(tier.name, int(tier)) for tier in Tier] == [(tier.name, int(tier)) for tier in LedgerTier]
    async with exchange(tmp_path) as world, world.client() as operator:
        await with_trader(world)
        world.gateways[0].apply_settings(TIGHT)
        assert (await operator.set_account_tier(ALICE, AccountTier.UNLIMITED)).tier == AccountTier.UNLIMITED
        for number in range(5):
            assert "ratelimit-limit" not in dict(await place(world, f"o{number}"))
        with pytest.raises(NotExecuted, match="TIER_INVALID"):
            await operator.set_account_tier(ALICE, AccountTier.UNSPECIFIED)
        with pytest.raises(NotExecuted, match="ACCOUNT_UNKNOWN"):
            await operator.set_account_tier(99, AccountTier.MAKER)
        await world._command(LEDGER, SetTier(ALICE, int(LedgerTier.STANDARD)))
        await until(lambda: world.gateways[0].ledger.tier_of(ALICE) == LedgerTier.STANDARD)


async def test_a_stage_that_will_end_says_when_to_come_back_and_a_halt_that_nobody_knows(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world:
        await with_trader(world)
        for stage, reason, comes_back in (
            (Stage.CANCEL_ONLY, "STAGE_CANCEL_ONLY", True),
            (Stage.HALTED, "STAGE_HALTED", False),
        ):
            await world._command(SHARD, SetStage(int(stage)))
            error = await place(world, "a")
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
            info, retry_ms = details_of(error)
            assert info.reason == reason
            assert (retry_ms is not None) == comes_back
            assert (dict(error.trailing_metadata())["grpc-retry-pushback-ms"] != "-1") == comes_back


async def test_in_a_stream_each_order_that_a_stage_refuses_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, world.client() as client, client.trade() as session:
        await client.instruments()
        await world._command(SHARD, SetStage(int(Stage.CANCEL_ONLY)))
        await until(lambda: world.gateways[0].replicas[SHARD].stage == Stage.CANCEL_ONLY)
        (result,) = await session.send([order("a")])
        assert result.reject_reason.name == "STAGE_CANCEL_ONLY"
        assert result.retry_after is not None
        await world._command(SHARD, SetStage(int(Stage.HALTED)))
        await until(lambda: world.gateways[0].replicas[SHARD].stage == Stage.HALTED)
        (result,) = await session.send([order("b")])
        assert (result.reject_reason.name, result.retry_after) == ("STAGE_HALTED", None)


async def test_whatever_is_answered_in_a_storm_is_true(tmp_path: Path) -> None:
    """Every order ends acknowledged, rejected or unknown; what is acknowledged is in the book, rejected is in none."""
    slow = Settings(service_time_us=5_000, queues=Queues(orders_wait_ms=100))
    async with exchange(tmp_path) as world, world.client(retry="none") as client, client.trade() as session:
        await client.instruments()
        peer = world.peers[SHARD]
        assert peer is not None
        peer.host.apply_settings(slow)
        world.gateways[0].apply_settings(slow)
        outcomes: dict[str, str] = {}
        refusals: list[NotExecuted] = []

        async def calls(name: str) -> None:
            outcome = "rejected"
            try:
                outcome = outcome_of([await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id=name)])
            except NotExecuted as error:
                refusals.append(error)
            except OutcomeUnknown:
                outcome = "unknown"
            outcomes[name] = outcome

        async def streams(name: str) -> None:
            outcomes[name] = outcome_of(await session.send([order(name)]))

        for wave in range(6):
            # Each is more than the shard does until the next one.
            names = [f"{wave}-{number}" for number in range(40)]
            storm = [asyncio.create_task(calls(f"c{n}")) for n in names]
            storm += [asyncio.create_task(streams(f"s{n}")) for n in names]
            await asyncio.wait(storm)
        assert len(outcomes) == 480
        assert all(refusal.retry_after for refusal in refusals if isinstance(refusal, Overloaded))
        resting = set(world.resting())
        assert {name for name, outcome in outcomes.items() if outcome == "acknowledged"} <= resting
        assert not {name for name, outcome in outcomes.items() if outcome == "rejected"} & resting
        shed = world.gateways[0].load()["links"][SHARD]["shed"]
        assert sum(sum(reasons.values()) for reasons in shed.values()) > 0
        assert set(shed) <= {int(WorkClass.PASSIVE), int(WorkClass.ORDERS)}


def outcome_of(results: Sequence[OrderResult]) -> str:
    (result,) = results
    return result.outcome.name.lower()


# ---------------------------------------------------------------- questions


async def test_questions_are_bounded_in_number_and_give_way_to_orders() -> None:
    link = Link("shard-0", "gateway-0", 1)
    asked: list[asyncio.Future[bytes]] = []

    class Host(ScriptedPeer):
        async def query(self, request: bytes) -> bytes:
            asked.append(asyncio.get_running_loop().create_future())
            return await asked[-1]

    link.set_peer(Host(1))
    queries = Queries(link, Settings(queues=Queues(queries_wait_ms=10)))
    asking = [asyncio.create_task(queries.ask(("find",))) for _ in range(IN_FLIGHT_MAX)]
    await settled()
    with pytest.raises(QueryRefused) as refused:
        await queries.ask(("find",))
    assert refused.value.refusal.reason == RejectReason.QUEUE_FULL
    assert link.admission.shed_counts.of(WorkClass.QUERIES, ShedReason.QUEUE) == 1
    codel = link.admission._codels[WorkClass.ORDERS]
    codel.is_overloaded = True
    with pytest.raises(QueryRefused):
        await queries.ask(("find",))
    assert link.admission.shed_counts.of(WorkClass.QUERIES, ShedReason.DELAY) == 1
    queries.apply_settings(Settings(profile="naive"))
    asking.append(asyncio.create_task(queries.ask(("find",))))
    await settled()
    for answer in asked:
        answer.set_result(b"answer")
    assert await asyncio.gather(*asking) == [b"answer"] * (IN_FLIGHT_MAX + 1)


async def test_a_client_that_asks_while_orders_wait_is_told_to_come_back(tmp_path: Path) -> None:
    async with exchange(tmp_path) as world, AsyncClient(world.gateways[0].address, "secret-2", retry="none") as client:
        await client.place_order(SYMBOL, Side.BUY, 1, 1, client_order_id="a")
        queries = world.gateways[0]._queries[SHARD]
        queries._in_flight = 1
        world.gateways[0]._links[SHARD].admission._codels[WorkClass.ORDERS].is_overloaded = True
        with pytest.raises(Overloaded) as caught:
            await client.get_order(SYMBOL, client_order_id="a")
        assert caught.value.retry_after is not None
