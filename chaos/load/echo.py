"""Acknowledges every command at once: `python -m chaos.load.echo`. What a load says of it is said of the load itself.

It prints the address that it serves on, and ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

from chaos.load.plan import Market
from exchange.v1 import market_data_pb2, trading_pb2, types_pb2

MARKET = Market(symbol="BTC-USDT", shard="echo", price=6_000_000, tick=1, quantity=1, price_scale=2, quantity_scale=4)
START_S_MAX = 30.0
_ACKNOWLEDGED = trading_pb2.OrderResult(
    outcome=types_pb2.OUTCOME_ACKNOWLEDGED, order_id=1, status=types_pb2.ORDER_STATUS_OPEN
)
# The same field in all three responses.
_RESPONSE = trading_pb2.PlaceOrderResponse(result=_ACKNOWLEDGED).SerializeToString()


class EchoNotStarted(RuntimeError):
    """The echo process did not serve; the message has what it printed."""

    code = "ECHO_NOT_STARTED"


async def _acknowledge(request: bytes, context: Any) -> bytes:
    return _RESPONSE


async def _trade(requests: AsyncIterator[trading_pb2.TradeRequest], context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        results = [_ACKNOWLEDGED] * len(request.commands)
        yield trading_pb2.TradeResponse(request_id=request.request_id, results=results)


async def _instruments(request: bytes, context: Any) -> market_data_pb2.ListInstrumentsResponse:
    base, quote = MARKET.symbol.split("-")
    instrument = types_pb2.Instrument(
        symbol=MARKET.symbol,
        base_asset=base,
        quote_asset=quote,
        price_scale=MARKET.price_scale,
        quantity_scale=MARKET.quantity_scale,
        tick_size=MARKET.tick,
        lot_size=1,
        min_quantity=MARKET.quantity,
    )
    return market_data_pb2.ListInstrumentsResponse(instruments=[instrument])


async def serve() -> None:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_acknowledge) for name in ("PlaceOrder", "AmendOrder", "CancelOrder")
    }
    handlers["Trade"] = grpc.stream_stream_rpc_method_handler(
        _trade,
        request_deserializer=trading_pb2.TradeRequest.FromString,
        response_serializer=trading_pb2.TradeResponse.SerializeToString,
    )
    listing: Any = grpc.unary_unary_rpc_method_handler(
        _instruments, response_serializer=market_data_pb2.ListInstrumentsResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("exchange.v1.TradingService", handlers),
            grpc.method_handlers_generic_handler("exchange.v1.MarketDataService", {"ListInstruments": listing}),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


@asynccontextmanager
async def running_echo() -> AsyncIterator[str]:
    """Run it as a process of its own and yield its address. Raises `EchoNotStarted`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.load.echo"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for who runs the load
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S_MAX):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise EchoNotStarted(f"expected an address, found that the process ended with {await process.wait()}")
        yield address
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(serve())
