"""How the clients of a population send, by the SDK or without it; each attempt that they see is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from decimal import Decimal
from random import Random
from typing import Protocol

from chaos.load.attempts import AttemptLog, Command, Told, kind_of
from chaos.load.bare import BareSender
from chaos.load.client_log import REJECTED, UNKNOWN, fields_of_result
from chaos.load.plan import Group, Market
from chaos.load.retries import WHY_CHARACTERS_MAX, Failure, insist, reason_name
from exchange.client import (
    AsyncClient,
    EvenkeelError,
    NotExecuted,
    OrderResult,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
    TradeSession,
)

IN_FLIGHT_MAX = 20_000


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
    """One call each through the SDK, which retries by itself within its budget, and listens to what it is asked."""

    def __init__(
        self, addresses: Sequence[str], key: str, group: Group, markets: Sequence[Market], log: AttemptLog
    ) -> None:
        self._addresses, self._key = addresses, key
        self._markets = {market.symbol: market for market in markets}
        self._timeout_s = group.deadline_ms / 1_000
        self._log = log
        self._client = self._make()
        self._attempts_before = 0

    def _make(self) -> AsyncClient:
        options = (("grpc.use_local_subchannel_pool", 1),)
        return AsyncClient(self._addresses, self._key, timeout=self._timeout_s, channel_options=options)

    @property
    def attempts(self) -> int:
        return self._attempts_before + self._client.statistics.attempts

    async def send(self, command: Command, due_ns: int) -> Told:
        attempt = self._log.begin(command, due_ns, self._timeout_s, self._client.address)
        told = await self._tell(command)
        self._log.end(attempt, told, self._client.address)
        return told

    async def _tell(self, command: Command) -> Told:
        kind = kind_of(command)
        market = self._markets[getattr(command, kind).instrument]
        try:
            return _told(await self._call(kind, command, market), market)
        except NotExecuted as error:
            return Told(REJECTED, {"o": REJECTED, "why": repr(error)[:WHY_CHARACTERS_MAX]}, error.reason_name)
        except EvenkeelError as error:
            return Told(UNKNOWN, {"o": UNKNOWN, "why": repr(error)[:WHY_CHARACTERS_MAX]}, type(error).__name__)

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
                    price(p.price) if p.price else None,
                    client_order_id=p.client_order_id,
                    order_type=OrderType(p.type),
                    time_in_force=TimeInForce(p.time_in_force),
                    post_only=p.post_only,
                    self_trade_prevention=SelfTradePrevention(p.self_trade_prevention),
                )
            case "cancel":
                return self._client.cancel_order(command.cancel.instrument, command.cancel.client_order_id)
            case "amend":
                a = command.amend
                return self._client.amend_order(
                    a.instrument,
                    a.client_order_id,
                    price=price(a.price) if a.price else None,
                    quantity=quantity(a.quantity) if a.quantity else None,
                    open_quantity=quantity(a.open_quantity) if a.open_quantity else None,
                    requeue=a.requeue,
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


class SessionSender:
    """Over the SDK's session: a stream that finds a gateway, and with a budget sends again what broke with it."""

    def __init__(self, addresses: Sequence[str], key: str, group: Group, log: AttemptLog, random: Random) -> None:
        self._addresses, self._key = addresses, key
        self._retry = group.retry
        self._timeout_s = group.deadline_ms / 1_000
        self._log = log
        self._random = random.random
        self._client, self._session = self._make()
        self._attempts_before = 0
        self._is_open = False
        self._opening = asyncio.Lock()

    @property
    def attempts(self) -> int:
        return self._attempts_before + self._client.statistics.attempts

    def _make(self) -> tuple[AsyncClient, TradeSession]:
        client = AsyncClient(
            self._addresses,
            self._key,
            timeout=self._timeout_s,
            retry="budget" if self._retry == "budget" else "none",
            reconnect_timeout=None,
            keepalive=5.0,
            channel_options=(("grpc.use_local_subchannel_pool", 1),),
        )
        return client, client.trade(timeout=self._timeout_s, in_flight_max=IN_FLIGHT_MAX)

    async def _open(self) -> TradeSession:
        async with self._opening:
            if not self._is_open:
                await self._session.__aenter__()
                self._is_open = True
            return self._session

    async def send(self, command: Command, due_ns: int) -> Told:
        if self._retry == "budget":
            told, _ = await self._attempt(command, due_ns)
            return told
        return await insist(self._retry, lambda: self._attempt(command, due_ns), self._random)

    async def _attempt(self, command: Command, due_ns: int) -> tuple[Told, Failure | None]:
        session = await self._open()
        address = self._client.address
        attempt = self._log.begin(command, due_ns, self._timeout_s, address)
        failure = None
        try:
            (result,) = await session.send_encoded([command], timeout=self._timeout_s)
        except EvenkeelError as error:
            outcome = REJECTED if isinstance(error, NotExecuted) else UNKNOWN
            reason = error.reason_name if isinstance(error, NotExecuted) else type(error).__name__
            told = Told(outcome, {"o": outcome, "why": repr(error)[:WHY_CHARACTERS_MAX]}, reason)
            failure = Failure(reason, is_open=outcome == UNKNOWN, is_final=False, retry_after_s=None)
        else:
            line = fields_of_result(result)
            told = Told(line["o"], line, reason_name(line["rej"]))
        self._log.end(attempt, told, address)
        return told, failure

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
        return SessionSender(addresses, key, group, log, random)
    if group.retry == "budget":
        return SdkSender(addresses, key, group, markets, log)
    return BareSender(addresses, key, group, log, random)
