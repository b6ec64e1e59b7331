"""Orders whose money is missing, late or away, as a client meets them."""

import grpc
import pytest

from exchange.client import AsyncClient, OrderStatus, OutcomeUnknown, Side
from exchange.v1 import trading_pb2, types_pb2
from tests.client.fake_gateway import LOST, FakeGateway, Refusal, accepted, rejected


async def test_an_order_whose_money_was_not_found_in_time_is_pending_and_is_not_sent_again(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    result = accepted("o-1")
    result.status = types_pb2.ORDER_STATUS_PENDING_FUNDS
    gateway.script("PlaceOrder", trading_pb2.PlaceOrderResponse(result=result))
    placed = await client.place_order("BTC-USDT", Side.BUY, "1", "5", client_order_id="o-1")
    assert (placed.pending, placed.accepted, placed.rejected, placed.unknown) == (True, True, False, False)
    assert placed.status is OrderStatus.PENDING_FUNDS
    assert placed.raise_for_reject() is placed
    assert len(gateway.requests["PlaceOrder"]) == 1


async def test_an_order_that_the_account_cannot_pay_is_a_result(client: AsyncClient, gateway: FakeGateway) -> None:
    refused = rejected(types_pb2.REJECT_REASON_INSUFFICIENT_FUNDS, "o-1")
    gateway.script("PlaceOrder", trading_pb2.PlaceOrderResponse(result=refused))
    result = await client.place_order("BTC-USDT", Side.BUY, "1", "5", client_order_id="o-1")
    assert (result.rejected, result.reject_reason.name) == (True, "INSUFFICIENT_FUNDS")
    assert not result.pending
    assert len(gateway.requests["PlaceOrder"]) == 1


async def test_money_that_cannot_be_found_for_now_is_asked_for_again(client: AsyncClient, gateway: FakeGateway) -> None:
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "FUNDS_UNAVAILABLE", retry_after_ms=20)
    gateway.script("PlaceOrder", away, trading_pb2.PlaceOrderResponse(result=accepted("o-1")))
    assert (await client.place_order("BTC-USDT", Side.BUY, "1", "5", client_order_id="o-1")).accepted
    first, second = gateway.requests["PlaceOrder"]
    assert first == second


async def test_a_cancel_that_was_lost_is_not_taken_for_done_while_its_order_waits_for_money(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    waiting = types_pb2.Order(client_order_id="o-1", order_id=7, status=types_pb2.ORDER_STATUS_PENDING_FUNDS)
    gateway.script("CancelOrder", LOST)
    gateway.script("GetOrder", trading_pb2.GetOrderResponse(order=waiting))
    with pytest.raises(OutcomeUnknown):
        await client.cancel_order("BTC-USDT", "o-1")
