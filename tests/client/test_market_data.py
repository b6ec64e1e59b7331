from decimal import Decimal

from exchange.client import AsyncClient, CandleInterval, Side
from exchange.v1 import market_data_pb2, types_pb2
from tests.client.fake_gateway import FakeGateway


async def test_trades_are_decimal(client: AsyncClient, gateway: FakeGateway) -> None:
    trade = market_data_pb2.Trade(
        instrument="BTC-USDT", trade_id=1, price=6000010, quantity=5000, taker_side=types_pb2.SIDE_SELL
    )
    gateway.script("ListTrades", market_data_pb2.ListTradesResponse(trades=[trade]))
    (found,) = await client.trades("BTC-USDT", limit=1)
    assert (found.price, found.quantity) == (Decimal("60000.10"), Decimal("0.5"))
    assert found.taker_side is Side.SELL
    assert gateway.requests["ListTrades"][0].limit == 1


async def test_a_ticker_has_no_price_where_there_is_none(client: AsyncClient, gateway: FakeGateway) -> None:
    ticker = market_data_pb2.Ticker(instrument="BTC-USDT", bid_price=100, volume=20000, stage_reason="news")
    gateway.script("GetTicker", market_data_pb2.GetTickerResponse(ticker=ticker))
    found = await client.ticker("BTC-USDT")
    assert (found.bid_price, found.ask_price, found.volume) == (Decimal("1.00"), None, Decimal(2))
    assert (found.stage_reason, found.next_stage_time_ns) == ("news", 0)


async def test_candles_are_decimal(client: AsyncClient, gateway: FakeGateway) -> None:
    candle = market_data_pb2.Candle(start_time_ns=0, open_price=1, high_price=3, low_price=1, close_price=2)
    gateway.script("ListCandles", market_data_pb2.ListCandlesResponse(candles=[candle]))
    (found,) = await client.candles("BTC-USDT", CandleInterval.MINUTE)
    assert (found.high_price, found.close_price) == (Decimal("0.03"), Decimal("0.02"))
    assert gateway.requests["ListCandles"][0].interval == market_data_pb2.CANDLE_INTERVAL_1M
