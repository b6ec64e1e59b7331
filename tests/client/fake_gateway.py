"""A gateway that does as a test says: a real gRPC server whose every answer is scripted."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from exchange.client import Environment
from exchange.v1 import (
    account_pb2_grpc,
    admin_pb2_grpc,
    market_data_pb2,
    market_data_pb2_grpc,
    trading_pb2,
    trading_pb2_grpc,
    types_pb2,
)

ServicerContext = Any  # its type parameters differ with each call

BTC = types_pb2.Instrument(
    symbol="BTC-USDT",
    base_asset="BTC",
    quote_asset="USDT",
    price_scale=2,
    quantity_scale=4,
    quote_scale=6,
    tick_size=1,
    lot_size=10,
    min_quantity=10,
    max_quantity=10_000_000,
    shard="shard-0",
    stage=types_pb2.STAGE_OPEN,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gRPC error. With a reason it is the exchange's; without one, gRPC's own, as of a lost connection."""

    code: grpc.StatusCode
    reason: str = ""
    retry_after_ms: int | None = None
    pushback: str | None = None
    text: str = "as scripted"

    async def abort(self, context: ServicerContext) -> None:
        details: list[Message] = []
        if self.reason:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain="evenkeel"))
        if self.retry_after_ms is not None:
            delay = Duration()
            delay.FromMilliseconds(self.retry_after_ms)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        trailers: list[tuple[str, str | bytes]] = []
        if details:
            packed = []
            for detail in details:
                packed.append(AnyProto())
                packed[-1].Pack(detail)
            status = status_pb2.Status(code=self.code.value[0], message=self.text, details=packed)
            trailers.append(("grpc-status-details-bin", status.SerializeToString()))
        if self.pushback is not None:
            trailers.append(("grpc-retry-pushback-ms", self.pushback))
        await context.abort(self.code, self.text, tuple(trailers))


LOST = Refusal(grpc.StatusCode.UNAVAILABLE, text="Socket closed")
"""What a client sees when the connection breaks: the outcome is open."""
DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "GATEWAY_DRAINING", retry_after_ms=0, pushback="0")
"""What a gateway says that is about to stop."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answers."""


Step = Message | Refusal | Hang | Callable[[Any], Message]
StreamScript = Callable[[Any, ServicerContext], AsyncIterator[Message]]


@dataclass
class FakeGateway:
    address: str = ""
    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    metadata: dict[str, list[dict[str, str | bytes]]] = field(default_factory=lambda: defaultdict(list))
    scripts: dict[str, deque[Step]] = field(default_factory=dict)
    streams: dict[str, deque[StreamScript]] = field(default_factory=dict)
    server: grpc.aio.Server | None = None

    def script(self, name: str, *steps: Step) -> None:
        """Answers to the calls of one name, in turn; the last one stands for all that follow."""
        self.scripts[name] = deque(steps)

    def script_stream(self, name: str, *scripts: StreamScript) -> None:
        """Likewise for streams: one script a connection."""
        self.streams[name] = deque(scripts)

    async def start(self) -> "FakeGateway":
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for module, service in (
            (trading_pb2_grpc, "TradingService"),
            (market_data_pb2_grpc, "MarketDataService"),
            (account_pb2_grpc, "AccountService"),
            (admin_pb2_grpc, "AdminService"),
        ):
            servicer_class = getattr(module, f"{service}Servicer")
            servicer = servicer_class()
            for name in vars(servicer_class):
                if not name.startswith("_"):
                    streams = name.startswith("Stream") or name == "Trade"
                    setattr(servicer, name, self._stream(name) if streams else self._unary(name))
            getattr(module, f"add_{service}Servicer_to_server")(servicer, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self.server.start()
        self.script("ListInstruments", market_data_pb2.ListInstrumentsResponse(instruments=[BTC]))
        return self

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(None)

    def _note(self, name: str, request: Any, context: ServicerContext) -> None:
        self.requests[name].append(request)
        self.metadata[name].append(dict(context.invocation_metadata()))

    def _unary(self, name: str) -> Callable[[Any, ServicerContext], Awaitable[Message]]:
        async def answer(request: Any, context: ServicerContext) -> Message:
            self._note(name, request, context)
            script = self.scripts[name]
            step = script[0] if len(script) == 1 else script.popleft()
            if isinstance(step, Refusal):
                await step.abort(context)
            if isinstance(step, Hang):
                await asyncio.Event().wait()
            if isinstance(step, Message):
                return step
            assert callable(step)
            return step(request)

        return answer

    def _stream(self, name: str) -> Callable[[Any, ServicerContext], AsyncIterator[Message]]:
        async def answer(request: Any, context: ServicerContext) -> AsyncIterator[Message]:
            self._note(name, request, context)
            scripts = self.streams[name]
            script = scripts[0] if len(scripts) == 1 else scripts.popleft()
            async for message in script(request, context):
                yield message

        return answer


@dataclass
class VirtualTime:
    """A clock that moves only by sleeping, and a random number that is always one half."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def environment(self) -> Environment:
        return Environment(clock=lambda: self.now, sleep=self.sleep, random=lambda: 0.5)


def accepted(client_order_id: str = "", **fields: Any) -> trading_pb2.OrderResult:
    return trading_pb2.OrderResult(
        outcome=types_pb2.OUTCOME_ACKNOWLEDGED,
        client_order_id=client_order_id,
        order_id=7,
        status=types_pb2.ORDER_STATUS_OPEN,
        **fields,
    )


def rejected(
    reason: types_pb2.RejectReason.ValueType, client_order_id: str = "", **fields: Any
) -> trading_pb2.OrderResult:
    return trading_pb2.OrderResult(
        outcome=types_pb2.OUTCOME_REJECTED,
        client_order_id=client_order_id,
        status=types_pb2.ORDER_STATUS_REJECTED,
        reject_reason=reason,
        **fields,
    )


def unknown(client_order_id: str = "") -> trading_pb2.OrderResult:
    return trading_pb2.OrderResult(outcome=types_pb2.OUTCOME_UNKNOWN, client_order_id=client_order_id)


async def silence() -> None:
    """Until the call is cancelled."""
    await asyncio.Event().wait()


def plays(*steps: Message | Refusal | None) -> StreamScript:
    """Sends the messages, refuses, or stays silent (None); ends well if nothing says otherwise."""

    async def play(request: Any, context: Any) -> AsyncIterator[Message]:
        for step in steps:
            if isinstance(step, Refusal):
                await step.abort(context)
            elif step is None:
                await silence()
            else:
                yield step

    return play


async def take(stream: AsyncIterator[Any], count: int) -> list[Any]:
    return [await anext(stream) for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until it holds; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - the gateway's lists have no event to wait for
        await asyncio.sleep(0)
