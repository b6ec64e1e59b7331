import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from exchange.client import (
    AsyncClient,
    CloseReason,
    InvalidArgument,
    InvalidNumber,
    NotFound,
    OrderRejected,
    OrderStatus,
    OrderType,
    OutcomeUnknown,
    Overloaded,
    RejectReason,
    RetryPolicy,
    Side,
    StageForbids,
    TimeInForce,
)
from exchange.v1 import trading_pb2, types_pb2
from tests.client.fake_gateway import (
    LOST,
    FakeGateway,
    Hang,
    Refusal,
    VirtualTime,
    accepted,
    rejected,
    unknown,
)

BUSY = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "REJECT_REASON_QUEUE_FULL", pushback="200")
BUSY_FOR_GOOD = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "REJECT_REASON_QUEUE_FULL")
NOT_FOUND = Refusal(grpc.StatusCode.NOT_FOUND, "REJECT_REASON_ORDER_UNKNOWN")


def placed(result: trading_pb2.OrderResult) -> trading_pb2.PlaceOrderResponse:
    return trading_pb2.PlaceOrderResponse(result=result)


def echo(request: Any) -> Message:
    return placed(accepted(request.client_order_id, open_quantity=request.quantity))


async def place(client: AsyncClient, **fields: Any) -> Any:
    return await client.place_order("BTC-USDT", Side.BUY, Decimal("0.5"), Decimal("60000.10"), **fields)


# What is sent.


async def test_an_order_is_sent_in_the_units_of_its_instrument(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", echo)
    result = await client.place_order(
        "BTC-USDT",
        Side.SELL,
        quantity=Decimal("0.5"),
        price="60000.10",
        time_in_force=TimeInForce.GTD,
        expire_time=datetime(2027, 1, 1, tzinfo=UTC),
        post_only=True,
        queue_for=2.5,
        client_order_id="mine-1",
    )
    assert gateway.requests["PlaceOrder"] == [
        trading_pb2.PlaceOrderRequest(
            instrument="BTC-USDT",
            client_order_id="mine-1",
            side=types_pb2.SIDE_SELL,
            type=types_pb2.ORDER_TYPE_LIMIT,
            time_in_force=types_pb2.TIME_IN_FORCE_GTD,
            price=6000010,
            quantity=5000,
            post_only=True,
            expire_time_ns=1798761600 * 10**9,
            queue_for_ms=2500,
        )
    ]
    assert result.accepted
    assert result.status is OrderStatus.OPEN
    assert result.open_quantity == Decimal("0.5")
    assert result.raise_for_reject() is result
    assert gateway.metadata["PlaceOrder"][0]["authorization"] == "Bearer secret"


async def test_each_order_gets_a_client_order_id_of_its_own(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", echo)
    results = [await place(client), await place(client)]
    ids = [request.client_order_id for request in gateway.requests["PlaceOrder"]]
    assert [result.client_order_id for result in results] == ids
    assert len(set(ids)) == 2
    assert all(len(i) <= 36 and i.isalnum() for i in ids)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"quantity": 0.5, "price": 1}, TypeError),
        ({"quantity": 1, "price": 60000.1}, TypeError),
        ({"quantity": "0.00001", "price": 1}, InvalidNumber),
        ({"quantity": 1, "price": "0.001"}, InvalidNumber),
        ({"quantity": 1}, ValueError),
        ({"quantity": 1, "price": 1, "client_order_id": ""}, ValueError),
        ({"quantity": 1, "price": 1, "client_order_id": "a" * 37}, ValueError),
        ({"quantity": 1, "price": 1, "client_order_id": "ü"}, ValueError),
    ],
)
async def test_an_order_that_cannot_be_meant_is_not_sent(
    client: AsyncClient, gateway: FakeGateway, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await client.place_order("BTC-USDT", Side.BUY, **fields)
    assert gateway.requests["PlaceOrder"] == []


async def test_a_market_order_needs_no_price(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", echo)
    await client.place_order("BTC-USDT", Side.BUY, 1, order_type=OrderType.MARKET)
    assert gateway.requests["PlaceOrder"][0].price == 0


async def test_instruments_are_fetched_once_however_many_ask(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", echo)
    await asyncio.gather(*(place(client) for _ in range(20)))
    assert len(gateway.requests["ListInstruments"]) == 1


async def test_an_amend_names_only_what_changes(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("AmendOrder", trading_pb2.AmendOrderResponse(result=accepted("a")))
    await client.amend_order("BTC-USDT", "a", open_quantity="0.25")
    assert gateway.requests["AmendOrder"] == [
        trading_pb2.AmendOrderRequest(instrument="BTC-USDT", client_order_id="a", open_quantity=2500)
    ]


@pytest.mark.parametrize("names", [{}, {"client_order_id": "a", "order_id": 7}])
async def test_an_order_is_named_by_one_id(client: AsyncClient, names: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected either client_order_id or order_id"):
        await client.cancel_order("BTC-USDT", **names)


# What comes back.


async def test_a_rejected_order_is_a_result_and_raises_only_on_request(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("PlaceOrder", placed(rejected(types_pb2.REJECT_REASON_INSUFFICIENT_FUNDS, "a")))
    result = await place(client, client_order_id="a")
    assert result.rejected
    assert not result.accepted
    assert result.reject_reason is RejectReason.INSUFFICIENT_FUNDS
    with pytest.raises(OrderRejected, match="order 'a' rejected: INSUFFICIENT_FUNDS") as caught:
        result.raise_for_reject()
    assert caught.value.result is result
    assert len(gateway.requests["PlaceOrder"]) == 1


async def test_an_order_that_is_not_found_raises(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("GetOrder", NOT_FOUND)
    with pytest.raises(NotFound):
        await client.get_order("BTC-USDT", "a")


async def test_orders_are_listed_over_pages_up_to_the_limit(client: AsyncClient, gateway: FakeGateway) -> None:
    def page(request: Any) -> Message:
        start = int(request.page_token or 0)
        orders = [
            types_pb2.Order(instrument="BTC-USDT", order_id=start + i, quantity=10000) for i in range(request.page_size)
        ]
        return trading_pb2.ListOrdersResponse(orders=orders, next_page_token=str(start + request.page_size))

    gateway.script("ListOrders", page)
    orders = [order async for order in client.list_orders(page_size=3, limit=7)]
    assert [order.order_id for order in orders] == list(range(7))
    assert orders[0].quantity == Decimal(1)
    assert orders[0].price is None
    assert [request.page_size for request in gateway.requests["ListOrders"]] == [3, 3, 1]


async def test_cancel_all_names_the_shards_that_were_away(client: AsyncClient, gateway: FakeGateway) -> None:
    response = trading_pb2.CancelAllOrdersResponse(cancelled_orders=3, unavailable_shards=["shard-1"])
    gateway.script("CancelAllOrders", response)
    result = await client.cancel_all_orders(side=Side.BUY)
    assert (result.cancelled_orders, result.unavailable_shards) == (3, ("shard-1",))


async def test_the_dead_mans_switch_takes_seconds(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("CancelAllAfter", trading_pb2.CancelAllAfterResponse(trigger_time_ns=10**9))
    switch = await client.cancel_all_after(1.5)
    assert gateway.requests["CancelAllAfter"][0].timeout_ms == 1500
    assert switch.trigger_time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


# What is tried again.


async def test_pushback_is_obeyed_to_the_letter(client: AsyncClient, gateway: FakeGateway, time: VirtualTime) -> None:
    gateway.script("PlaceOrder", BUSY, echo)
    assert (await place(client)).accepted
    assert time.slept == [0.2]
    first, second = gateway.requests["PlaceOrder"]
    assert first == second
    assert client.statistics.attempts - client.statistics.calls == 1


@pytest.mark.parametrize(
    "refusal",
    [
        BUSY_FOR_GOOD,
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after_ms=10, pushback="-1"),
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED),
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED"),
    ],
)
async def test_without_a_hint_that_it_helps_nothing_is_tried_again(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime, refusal: Refusal
) -> None:
    gateway.script("PlaceOrder", refusal)
    with pytest.raises((Overloaded, InvalidArgument)):
        await place(client)
    assert len(gateway.requests["PlaceOrder"]) == 1
    assert time.slept == []


async def test_after_the_last_attempt_the_true_reason_is_raised(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script("PlaceOrder", BUSY)
    with pytest.raises(Overloaded) as caught:
        await place(client)
    assert caught.value.retry_after == 0.2
    assert len(gateway.requests["PlaceOrder"]) == 3
    assert time.slept == [0.2, 0.2]


async def test_a_wait_beyond_the_deadline_is_told_rather_than_waited_out(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    stage = "REJECT_REASON_STAGE_CANCEL_ONLY"
    gateway.script("PlaceOrder", Refusal(grpc.StatusCode.FAILED_PRECONDITION, stage, retry_after_ms=3000))
    with pytest.raises(StageForbids) as caught:
        await place(client)
    assert caught.value.retry_after == 3.0
    assert time.slept == []


async def test_the_budget_bounds_the_retries_of_many_calls(client: AsyncClient, gateway: FakeGateway) -> None:
    await client.instruments()
    gateway.script("PlaceOrder", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", pushback="0"))
    for _ in range(100):
        with pytest.raises(Overloaded):
            await place(client)
    # Two to start with, a tenth of the calls, and one a second of the (virtual) time that it took.
    assert 110 <= len(gateway.requests["PlaceOrder"]) <= 100 + 2 + 10 + 2
    assert client.statistics.retries_refused > 80


async def test_a_passing_rejection_in_a_result_is_tried_again(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    busy = rejected(types_pb2.REJECT_REASON_QUEUE_FULL, retry_after_ms=50)
    gateway.script("PlaceOrder", placed(busy), echo)
    assert (await place(client)).accepted
    assert time.slept == [0.05]


async def test_a_rejection_that_is_told_again_is_final(client: AsyncClient, gateway: FakeGateway) -> None:
    busy = rejected(types_pb2.REJECT_REASON_STAGE_LIMITED, retry_after_ms=50, duplicate=True)
    gateway.script("PlaceOrder", placed(busy))
    assert (await place(client)).rejected
    assert len(gateway.requests["PlaceOrder"]) == 1


# What stays open.


async def test_a_lost_order_is_sent_again_under_the_same_id(
    client: AsyncClient, gateway: FakeGateway, time: VirtualTime
) -> None:
    gateway.script("PlaceOrder", LOST, placed(accepted("a", duplicate=True)))
    result = await place(client)
    assert result.accepted
    assert result.duplicate
    first, second = gateway.requests["PlaceOrder"]
    assert first == second
    assert time.slept == [0.05]


async def test_an_outcome_that_the_exchange_does_not_know_is_asked_for_with_the_same_id(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("PlaceOrder", placed(unknown()), echo)
    assert (await place(client)).accepted
    first, second = gateway.requests["PlaceOrder"]
    assert first == second


def order(**fields: Any) -> trading_pb2.GetOrderResponse:
    values = {
        "instrument": "BTC-USDT",
        "client_order_id": "a",
        "order_id": 7,
        "side": types_pb2.SIDE_BUY,
        "type": types_pb2.ORDER_TYPE_LIMIT,
        "price": 6000010,
        "quantity": 5000,
        "open_quantity": 5000,
        "status": types_pb2.ORDER_STATUS_OPEN,
    }
    return trading_pb2.GetOrderResponse(order=types_pb2.Order(**{**values, **fields}))


@pytest.fixture
async def saving_client(gateway: FakeGateway) -> Any:
    """Does not send again, so that one lost answer leaves an outcome open."""
    policy = RetryPolicy(attempts_max=1)
    time = VirtualTime()
    async with AsyncClient(gateway.address, retry=policy, environment=time.environment) as client:
        yield client


async def test_the_order_itself_settles_an_unknown_outcome(saving_client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", LOST)
    gateway.script("GetOrder", order())
    result = await place(saving_client, client_order_id="a")
    assert result.accepted
    assert result.duplicate
    assert (result.order_id, result.open_quantity) == (7, Decimal("0.5"))


async def test_a_timeout_is_settled_too(saving_client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", Hang())
    gateway.script("GetOrder", order(status=types_pb2.ORDER_STATUS_FILLED))
    result = await place(saving_client, client_order_id="a", timeout=0.05)
    assert result.status is OrderStatus.FILLED


@pytest.mark.parametrize("answer", [NOT_FOUND, LOST, BUSY, order(price=1)])
async def test_an_order_that_is_not_found_or_another_one_leaves_the_outcome_unknown(
    saving_client: AsyncClient, gateway: FakeGateway, answer: Message | Refusal
) -> None:
    gateway.script("PlaceOrder", LOST)
    gateway.script("GetOrder", answer)
    with pytest.raises(OutcomeUnknown, match="may or may not have been executed") as caught:
        await place(saving_client, client_order_id="a")
    assert (caught.value.instrument, caught.value.client_order_id) == ("BTC-USDT", "a")
    assert saving_client.statistics.outcomes_unknown == 1


async def test_without_budget_an_unknown_outcome_makes_no_more_load(gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", LOST)
    gateway.script("GetOrder", order())
    policy = RetryPolicy(budget_max=0)
    time = VirtualTime()
    async with AsyncClient(gateway.address, retry=policy, environment=time.environment) as client:
        with pytest.raises(OutcomeUnknown, match="the retry budget is spent"):
            await place(client, client_order_id="a")
    assert len(gateway.requests["PlaceOrder"]) == 1
    assert gateway.requests["GetOrder"] == []


async def test_a_refusal_after_a_lost_attempt_does_not_make_it_not_executed(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("PlaceOrder", LOST, BUSY_FOR_GOOD)
    gateway.script("GetOrder", NOT_FOUND)
    with pytest.raises(OutcomeUnknown) as caught:
        await place(client)
    assert isinstance(caught.value.__cause__, Overloaded)


async def test_nor_does_a_passing_rejection(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", LOST, placed(rejected(types_pb2.REJECT_REASON_QUEUE_FULL)))
    gateway.script("GetOrder", NOT_FOUND)
    with pytest.raises(OutcomeUnknown):
        await place(client)


async def test_but_a_rejection_of_the_order_itself_is_final(client: AsyncClient, gateway: FakeGateway) -> None:
    gateway.script("PlaceOrder", LOST, placed(rejected(types_pb2.REJECT_REASON_WOULD_TAKE)))
    assert (await place(client)).reject_reason is RejectReason.WOULD_TAKE


async def test_a_lost_cancel_is_settled_by_the_order_being_closed(
    saving_client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("CancelOrder", LOST)
    closed = order(status=types_pb2.ORDER_STATUS_CANCELLED, close_reason=types_pb2.CLOSE_REASON_REQUESTED)
    gateway.script("GetOrder", closed)
    result = await saving_client.cancel_order("BTC-USDT", "a")
    assert (result.status, result.close_reason) == (OrderStatus.CANCELLED, CloseReason.REQUESTED)


async def test_a_lost_cancel_of_an_order_still_open_is_unknown(
    saving_client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("CancelOrder", LOST)
    gateway.script("GetOrder", order())
    with pytest.raises(OutcomeUnknown):
        await saving_client.cancel_order("BTC-USDT", order_id=7)
    assert gateway.requests["GetOrder"][0].order_id == 7


async def test_a_lost_amend_is_settled_by_the_order_having_the_new_values(
    saving_client: AsyncClient, gateway: FakeGateway
) -> None:
    gateway.script("AmendOrder", LOST)
    gateway.script("GetOrder", order())
    result = await saving_client.amend_order("BTC-USDT", "a", price="60000.10")
    assert result.accepted
    with pytest.raises(OutcomeUnknown):
        await saving_client.amend_order("BTC-USDT", "a", price="60000.20")
