"""The bare grpc.aio server that the session and unary benchmarks are measured against: it sends back what it gets.

`python -m exchange.cli.bench.echo` prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from exchange.v1 import trading_pb2

SERVICE = "evenkeel.bench.Echo"


async def _stream(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


async def _unary(request: Any, _: Any) -> Any:
    return request


async def serve() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    stream, unary = trading_pb2.TradeRequest, trading_pb2.PlaceOrderRequest
    handlers: dict[str, Any] = {
        "Stream": grpc.stream_stream_rpc_method_handler(_stream, stream.FromString, stream.SerializeToString),
        "Unary": grpc.unary_unary_rpc_method_handler(_unary, unary.FromString, unary.SerializeToString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve())
