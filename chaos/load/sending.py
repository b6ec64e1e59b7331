"""How a client sends a command, and how it retries: each attempt that the client sees is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

import grpc

from chaos.load.client_log import (
    ACKNOWLEDGED,
    REJECTED,
    UNKNOWN,
    ClientLog,
    Line,
    fields_of_command,
    fields_of_result,
)
from chaos.load.plan import Group, Market
from exchange.client import (
    AsyncClient,
    EvenkeelError,
    NotExecuted,
    OrderResult,
    Side,
    TimeInForce,
    TradeSession,
)
from exchange.v1 import trading_pb2, trading_pb2_grpc

ATTEMPTS_MAX = 8
"""Of a client without a budget: one that is slow in giving up."""
BACKOFF_S_BASE, BACKOFF_S_MAX = 0.1, 2.0
IN_FLIGHT_MAX = 20_000
IGNORED_PUSHBACK_S = 0.05
"""Between the attempts of who does not care when it is asked to come back."""
CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # clients are many, and each has its own connection
)
_NOT_EXECUTED = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
}
Metadata = tuple[tuple[str, str], ...]
Command = trading_pb2.Command


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


def kind_of(command: Command) -> str:
    """Return `place`, `cancel`, `amend` or `cancel_all`."""
    kind = command.WhichOneof("command")
    assert kind is not None, "an empty command"
    return kind


class Told(NamedTuple):
    """What became of a command as far as its client knows. `line`: the fields of its line in the log."""

    outcome: int
    line: Line
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Writes the attempts of one client down."""

    log: ClientLog
    numbers: count[int]

    def begin(self, command: Command, due_ns: int, timeout_s: float, address: str) -> int:
        message = next(self.numbers)
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        stamp = {"due": due_ns, "until": until_ns, "m": message, "i": 0}
        self.log.write("send", **stamp, **fields_of_command(command), gw=address)
        return message

    def end(self, message: int, command: Command, told: Told, address: str) -> None:
        content = fields_of_command(command)
        named = {"m": message, "i": 0, "k": content["k"], "id": content["id"], "sym": content["sym"]}
        self.log.write("out", **named, **told.line, gw=address)


class Sender(Protocol):
    """Sends for one account."""

    @property
    def attempts(self) -> int:
        """Made so far."""
        ...

    async def send(self, command: Command, due_ns: int) -> Told: ...

    async def reconnect(self) -> None:
        """Drop every connection and make new ones."""
        ...

    async def close(self) -> None: ...


class SdkSender:
    """One call each through the SDK, which retries by itself, or not at all."""

    def __init__(
        self, addresses: Sequence[str], key: str, group: Group, markets: Sequence[Market], log: AttemptLog
    ) -> None:
        self._addresses, self._key = addresses, key
        self._retry: Literal["none", "budget"] = "none" if group.retry == "none" else "budget"
        self._markets = {market.symbol: market for market in markets}
        self._timeout_s = group.deadline_ms / 1_000
        self._log = log
        self._client = self._make()
        self._attempts_before = 0

    def _make(self) -> AsyncClient:
        options = (("grpc.use_local_subchannel_pool", 1),)
        return AsyncClient(
            self._addresses, self._key, timeout=self._timeout_s, retry=self._retry, channel_options=options
        )

    @property
    def attempts(self) -> int:
        return self._attempts_before + self._client.statistics.attempts

    async def send(self, command: Command, due_ns: int) -> Told:
        message = self._log.begin(command, due_ns, self._timeout_s, self._client.address)
        told = await self._tell(command)
        self._log.end(message, command, told, self._client.address)
        return told

    async def _tell(self, command: Command) -> Told:
        kind = kind_of(command)
        market = self._markets[getattr(command, kind).instrument]
        try:
            return _told(await self._call(kind, command, market), market)
        except NotExecuted as error:
            return Told(REJECTED, {"o": REJECTED, "why": repr(error)[:200]}, error.reason_name)
        except EvenkeelError as error:
            return Told(UNKNOWN, {"o": UNKNOWN, "why": repr(error)[:200]}, type(error).__name__)

    def _call(self, kind: str, command: Command, market: Market) -> Awaitable[OrderResult]:
        def price(scaled: int) -> Decimal:
            return Decimal(scaled).scaleb(-market.price_scale)

        def quantity(scaled: int) -> Decimal:
            return Decimal(scaled).scaleb(-market.quantity_scale)

        match kind:
            case "place":
                p = command.place
                return self._client.place_order(
                    p.instrument,
                    Side(p.side),
                    quantity(p.quantity),
                    price(p.price),
                    client_order_id=p.client_order_id,
                    time_in_force=TimeInForce(p.time_in_force),
                    post_only=p.post_only,
                )
            case "cancel":
                return self._client.cancel_order(command.cancel.instrument, command.cancel.client_order_id)
            case "amend":
                a = command.amend
                return self._client.amend_order(
                    a.instrument,
                    a.client_order_id,
                    price=price(a.price) if a.price else None,
                    open_quantity=quantity(a.open_quantity) if a.open_quantity else None,
                )
            case _:
                raise ValueError(f"expected a command that can be sent by itself, was {kind}")

    async def reconnect(self) -> None:
        self._attempts_before += self._client.statistics.attempts
        old, self._client = self._client, self._make()
        await old.aclose()

    async def close(self) -> None:
        await self._client.aclose()


def _told(result: OrderResult, market: Market) -> Told:
    def scaled(quantity: Decimal) -> int:
        return int(quantity.scaleb(market.quantity_scale))

    line = {
        "o": int(result.outcome),
        "oid": result.order_id,
        "st": int(result.status),
        "filled": scaled(result.filled_quantity),
        "left": scaled(result.open_quantity),
        "rej": int(result.reject_reason),
        "seq": result.sequence,
        "dup": result.duplicate,
        "cl": int(result.close_reason),
    }
    return Told(int(result.outcome), line, result.reject_reason.name if result.rejected else "")


class BareSender:
    """One call each over the bare stub, retried without any budget: by back-off, at once, or whatever it was asked."""

    def __init__(self, addresses: Sequence[str], key: str, group: Group, log: AttemptLog, random: Random) -> None:
        self.attempts = 0
        self._addresses = addresses
        self._metadata = bearer(key)
        self._timeout_s = group.deadline_ms / 1_000
        self._retry = group.retry
        self._log = log
        self._random = random
        self._at = 0
        self._connect()

    def _connect(self) -> None:
        self._address = self._addresses[self._at % len(self._addresses)]
        self._channel = grpc.aio.insecure_channel(self._address, CHANNEL_OPTIONS)
        stub = trading_pb2_grpc.TradingServiceStub(self._channel)
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "place": stub.PlaceOrder,
            "cancel": stub.CancelOrder,
            "amend": stub.AmendOrder,
        }

    async def send(self, command: Command, due_ns: int) -> Told:
        kind = kind_of(command)
        request = getattr(command, kind)
        told = Told(UNKNOWN, {"o": UNKNOWN})
        maybe_executed = False
        for attempt in range(1, ATTEMPTS_MAX + 1):
            self.attempts += 1
            address = self._address
            message = self._log.begin(command, due_ns, self._timeout_s, address)
            try:
                response = await self._methods[kind](request, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                outcome = REJECTED if error.code() in _NOT_EXECUTED else UNKNOWN
                maybe_executed |= outcome == UNKNOWN
                why = f"{error.code().name}: {error.details()}"[:200]
                told = Told(outcome, {"o": outcome, "why": why}, error.code().name)
            except asyncio.CancelledError:
                self._log.end(message, command, Told(UNKNOWN, {"o": UNKNOWN, "why": "cancelled"}), address)
                raise
            else:
                line = fields_of_result(response.result)
                told = Told(line["o"], line, str(line["rej"]) if line["rej"] else "")
            self._log.end(message, command, told, address)
            if told.outcome == ACKNOWLEDGED or "rej" in told.line:
                return told
            await asyncio.sleep(self._wait_s(attempt))
        # One attempt may have taken effect, whatever the last one was told.
        return told._replace(outcome=UNKNOWN) if maybe_executed else told

    def _wait_s(self, attempt: int) -> float:
        match self._retry:
            case "naive":
                return 0.0
            case "ignores-pushback":
                return IGNORED_PUSHBACK_S
            case _:
                return self._random.uniform(0.0, min(BACKOFF_S_BASE * 2.0**attempt, BACKOFF_S_MAX))

    async def reconnect(self) -> None:
        old = self._channel
        self._at += 1
        self._connect()
        await old.close()

    async def close(self) -> None:
        await self._channel.close()


class SessionSender:
    """Over the SDK's session: a stream that finds a gateway, and sends places and cancels again by itself."""

    def __init__(self, addresses: Sequence[str], key: str, group: Group, log: AttemptLog) -> None:
        self._addresses, self._key = addresses, key
        self._timeout_s = group.deadline_ms / 1_000
        self._log = log
        self._client, self._session = self._make()
        self._attempts_before = 0
        self._is_open = False
        self._opening = asyncio.Lock()

    @property
    def attempts(self) -> int:
        return self._attempts_before + self._client.statistics.attempts

    def _make(self) -> tuple[AsyncClient, TradeSession]:
        client = AsyncClient(self._addresses, self._key, timeout=self._timeout_s, reconnect_timeout=None, keepalive=5.0)
        return client, client.trade(timeout=self._timeout_s, in_flight_max=IN_FLIGHT_MAX)

    async def _open(self) -> None:
        async with self._opening:
            if not self._is_open:
                await self._session.__aenter__()
                self._is_open = True

    async def send(self, command: Command, due_ns: int) -> Told:
        await self._open()
        message = self._log.begin(command, due_ns, self._timeout_s, self._client.address)
        try:
            (result,) = await self._session.send_encoded([command], timeout=self._timeout_s)
        except NotExecuted as error:
            told = Told(REJECTED, {"o": REJECTED, "why": repr(error)[:200]}, error.reason_name)
        except EvenkeelError as error:
            told = Told(UNKNOWN, {"o": UNKNOWN, "why": repr(error)[:200]}, type(error).__name__)
        else:
            line = fields_of_result(result)
            told = Told(line["o"], line, str(line["rej"]) if line["rej"] else "")
        self._log.end(message, command, told, self._client.address)
        return told

    async def reconnect(self) -> None:
        self._attempts_before += self._client.statistics.attempts
        client, session, was_open = self._client, self._session, self._is_open
        self._client, self._session = self._make()
        self._is_open = False
        if was_open:
            await session.__aexit__(RuntimeError, None, None)
        await client.aclose()

    async def close(self) -> None:
        if self._is_open:
            # As by an exception: what has no answer by now gets none.
            await self._session.__aexit__(RuntimeError, None, None)
        await self._client.aclose()


def make_sender(
    addresses: Sequence[str], key: str, group: Group, markets: Sequence[Market], log: AttemptLog, random: Random
) -> Sender:
    """Return how the clients of a group send."""
    if group.transport == "session":
        return SessionSender(addresses, key, group, log)
    if group.retry in ("none", "budget"):
        return SdkSender(addresses, key, group, markets, log)
    return BareSender(addresses, key, group, log, random)
