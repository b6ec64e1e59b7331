"""An exchange as its users meet it: real processes, real gRPC, real kills."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from exchange.client import (
    AmendOrder,
    CancelOrder,
    CandleInterval,
    Client,
    OrderStatus,
    Permission,
    PermissionDenied,
    PlaceOrder,
    RejectReason,
    Side,
    Stage,
    StageForbids,
    TimeInForce,
    Unauthenticated,
)
from exchange.cluster import LocalExchange
from exchange.v1 import trading_pb2, trading_pb2_grpc

pytestmark = pytest.mark.cluster
SYMBOL = "BTC-USDT"
NewClient = Callable[[str], Client]


def test_two_accounts_trade(new_client: NewClient) -> None:
    alice, bob = new_client("alice"), new_client("bob")
    resting = alice.place_order(SYMBOL, Side.SELL, "2", "100.10", client_order_id="a1")
    assert resting.status == OrderStatus.OPEN
    taken = bob.place_order(SYMBOL, Side.BUY, "0.5", "101", time_in_force=TimeInForce.IOC)
    assert (taken.status, taken.filled_quantity) == (OrderStatus.FILLED, Decimal("0.5"))
    order = alice.get_order(SYMBOL, client_order_id="a1")
    assert (order.filled_quantity, order.open_quantity) == (Decimal("0.5"), Decimal("1.5"))
    amended = alice.amend_order(SYMBOL, client_order_id="a1", quantity="1")
    assert amended.open_quantity == Decimal("0.5")
    assert alice.cancel_order(SYMBOL, client_order_id="a1").status == OrderStatus.CANCELLED


def test_a_repeat_gets_the_first_outcome(new_client: NewClient) -> None:
    client = new_client("repeater")
    first = client.place_order(SYMBOL, Side.BUY, "1", "10", client_order_id="once")
    again = client.place_order(SYMBOL, Side.BUY, "1", "10", client_order_id="once")
    assert (again.order_id, again.duplicate) == (first.order_id, True)
    other = client.place_order(SYMBOL, Side.BUY, "2", "10", client_order_id="once")
    assert other.reject_reason == RejectReason.CLIENT_ORDER_ID_REUSED
    assert client.cancel_all_orders().cancelled_orders == 1


def test_each_item_of_a_batch_has_its_own_outcome(new_client: NewClient) -> None:
    client = new_client("batcher")
    good = bid(SYMBOL, "9", "good")
    elsewhere = bid("ETH-USDT", "9", "elsewhere")
    with client.trade() as session:
        results = session.send([good, elsewhere, CancelOrder(instrument=SYMBOL, client_order_id="nobody")])
        assert [result.rejected for result in results] == [False, False, True]
        assert results[2].reject_reason == RejectReason.ORDER_UNKNOWN
        results = session.send([AmendOrder(instrument=SYMBOL, client_order_id="good", price="8")])
        assert not results[0].rejected
    assert client.cancel_all_orders().cancelled_orders == 2


def test_orders_of_a_stream_are_cancelled_when_it_ends(new_client: NewClient) -> None:
    client = new_client("disconnecter")
    with client.trade(cancel_on_disconnect=True) as session:
        session.send([bid(SYMBOL, "7", "mortal")])
        assert client.get_order(SYMBOL, client_order_id="mortal").status == OrderStatus.OPEN
    until(lambda: client.get_order(SYMBOL, client_order_id="mortal").status == OrderStatus.CANCELLED)


def test_the_dead_mans_switch_fires(new_client: NewClient) -> None:
    client = new_client("dead-man")
    client.place_order(SYMBOL, Side.BUY, "1", "6", client_order_id="left")
    client.cancel_all_after(1.0)
    until(lambda: client.get_order(SYMBOL, client_order_id="left").status == OrderStatus.CANCELLED)


def test_market_data_shows_the_trade(new_client: NewClient) -> None:
    maker, taker = new_client("maker"), new_client("taker")
    maker.place_order("ETH-USDT", Side.SELL, "1", "50")
    taker.place_order("ETH-USDT", Side.BUY, "1", "50")
    until(lambda: maker.trades("ETH-USDT") != [])
    assert maker.trades("ETH-USDT")[-1].price == 50
    assert maker.ticker("ETH-USDT").last_price == 50
    assert maker.candles("ETH-USDT", CandleInterval.MINUTE)[-1].volume == 1


def test_a_key_does_what_it_may_and_no_more(exchange: LocalExchange, new_client: NewClient) -> None:
    with pytest.raises(PermissionDenied):
        new_client("no-operator").status()
    with Client(exchange.address, "ek_made_up", timeout=5) as stranger, pytest.raises(Unauthenticated):
        stranger.place_order(SYMBOL, Side.BUY, "1", "10")
    with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
        account = operator.create_account("revoked")
        key = operator.create_api_key(account.account_id, [Permission.READ])
        operator.revoke_api_key(key.api_key.key_id)
    with Client(exchange.address, key.secret, timeout=5) as revoked, pytest.raises(Unauthenticated):
        list(revoked.list_orders())


def test_a_held_stage_is_enforced(exchange: LocalExchange, new_client: NewClient) -> None:
    client = new_client("halted")
    with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
        client.place_order(SYMBOL, Side.BUY, "1", "5", client_order_id="before")
        operator.hold_stage(Stage.CANCEL_ONLY, reason="test")
        try:
            with pytest.raises(StageForbids):
                client.place_order(SYMBOL, Side.BUY, "1", "5", timeout=0.5)
            assert client.cancel_order(SYMBOL, client_order_id="before").status == OrderStatus.CANCELLED
        finally:
            operator.resume(reason="test", at_once=True)


def test_reflection_lists_the_services(exchange: LocalExchange) -> None:
    with grpc.insecure_channel(exchange.address) as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {f"exchange.v1.{name}Service" for name in ("Trading", "MarketData", "Admin")} <= set(services)


def test_hostile_messages_get_an_error_and_harm_nobody(exchange: LocalExchange, new_client: NewClient) -> None:
    metadata = (("authorization", f"Bearer {exchange.operator_key}"),)
    with grpc.insecure_channel(exchange.address) as channel:
        raw: Any = channel.stream_stream("/exchange.v1.TradingService/Trade")
        with pytest.raises(grpc.RpcError) as garbage:
            list(raw(iter([b"\xff\xff\xff"]), metadata=metadata, timeout=5))
        assert garbage.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        many = trading_pb2.TradeRequest(commands=[trading_pb2.Command()] * 1_001).SerializeToString()
        with pytest.raises(grpc.RpcError) as too_many:
            list(raw(iter([many]), metadata=metadata, timeout=5))
        assert too_many.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        huge = b"\x00" * (2 << 20)
        with pytest.raises(grpc.RpcError) as too_big:
            list(raw(iter([huge]), metadata=metadata, timeout=5))
        assert too_big.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        stub = trading_pb2_grpc.TradingServiceStub(channel)
        empty = stub.PlaceOrders(trading_pb2.PlaceOrdersRequest(), metadata=metadata, timeout=5)
        assert len(empty.results) == 0
    assert new_client("after").place_order(SYMBOL, Side.BUY, "1", "4").accepted


def bid(symbol: str, price: str, name: str) -> PlaceOrder:
    return PlaceOrder(instrument=symbol, side=Side.BUY, quantity="1", price=price, client_order_id=name)


def until(seen: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Ask again until it is so; a minute without is a failure, however slow the machine."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        try:
            if seen():
                return
        except grpc.RpcError:
            pass
        assert time.monotonic() < give_up_s, "not so after a minute"
