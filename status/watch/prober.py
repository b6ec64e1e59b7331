"""Looks at the exchange through one gateway: about once a second at each market and at the account.

The markets themselves are looked at, not a test instrument: only so is a halt of one instrument, or a shard that
serves one and not the other, seen as clients see it. A probing order is post-only and far below the price, of the
least quantity, good for a minute at most, and cancelled at once: it takes nothing from anybody's queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal

import structlog

from exchange.client import (
    AsyncClient,
    EvenkeelError,
    Instrument,
    OrderResult,
    RejectReason,
    Side,
    Stage,
    StageForbids,
    TimeInForce,
)
from status.settings import Probing
from status.watch.lateness import Lateness
from status.watch.looks import Kind, Look, MarketStage, Result

_log = structlog.get_logger()

ORDER_LIFE_S = 60
"""An order that could not be cancelled expires by itself."""
_GOLDEN_RATIO = 0.618
_FAR = Decimal("0.5")
"""Of the price: nobody trades there, and it is within what most bands allow."""
# Nothing is wrong with the exchange, but with what `evenkeel-status prepare` set up: nobody can say how it is.
_SETUP_CODES = frozenset(
    {
        "KEY_INVALID",
        "KEY_EXPIRED",
        "KEY_REVOKED",
        "PERMISSION_MISSING",
        "ADDRESS_NOT_ALLOWED",
        "INSUFFICIENT_FUNDS",
        "TOO_MANY_OPEN_ORDERS",
        "RATE_LIMITED",
    }
)
CHANNEL_OPTIONS = (
    # A gateway that is back is seen at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclass(slots=True)
class _Market:
    instrument: Instrument
    price: Decimal
    entered_sequence: int = 0
    """Of the oldest order that was acknowledged and that market data did not show yet; 0: none."""
    entered_ns: int = 0
    left_over: bool = False
    """An order may still be open, since its cancel failed."""


@dataclass(slots=True)
class GatewayProber:
    """Runs until it is cancelled; tells each look, and each stage that it hears of."""

    number: int
    client: AsyncClient
    settings: Probing
    stale_ms: int
    lateness: Lateness
    clock_ns: Callable[[], int]
    on_look: Callable[[Look], None]
    on_stage: Callable[[MarketStage], None]
    on_instruments: Callable[[list[Instrument]], None]
    _markets: dict[str, _Market] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_account())
                while True:
                    begun_s = asyncio.get_running_loop().time()
                    look = await self._look(Kind.GATEWAY, "", lambda: self._find_markets(tasks))
                    await self._pause(begun_s, look.result is Result.OK)
        finally:
            await self.client.aclose()

    async def _find_markets(self, tasks: asyncio.TaskGroup) -> str:
        """Instruments are listed again and again, since new ones are created while we look."""
        listed = await self.client.instruments(timeout=self._timeout_s)
        self.on_instruments(listed)
        for instrument in listed:
            if instrument.symbol not in self._markets:
                # So that many markets are not looked at all in the same moment, in whatever number they come.
                phase = len(self._markets) * _GOLDEN_RATIO % 1.0
                market = _Market(instrument, _far_price(instrument, Decimal(0)))
                self._markets[instrument.symbol] = market
                tasks.create_task(self._watch_market(market, phase))
                tasks.create_task(self._watch_stream(market))
        return ""

    # ---------------------------------------------------------------- a market

    async def _watch_market(self, market: _Market, phase: float) -> None:
        await asyncio.sleep(phase * self.settings.interval_ms / 1_000)
        while True:
            begun_s = asyncio.get_running_loop().time()
            fine = await self._look_at(market)
            await self._pause(begun_s, fine)

    async def _look_at(self, market: _Market) -> bool:
        symbol = market.instrument.symbol
        book = asyncio.create_task(self._look(Kind.BOOK, symbol, lambda: self._read_book(market)))
        if market.left_over:
            await self._clear(market)
        order_id = ""

        async def enter() -> str:
            nonlocal order_id
            result = await self.client.place_order(
                symbol,
                Side.BUY,
                market.instrument.min_quantity + market.instrument.lot_size * (self.settings.order_quantity_lots - 1),
                market.price,
                time_in_force=TimeInForce.GTD,
                expire_time=datetime.fromtimestamp(self.clock_ns() / 1e9, UTC) + timedelta(seconds=ORDER_LIFE_S),
                post_only=True,
                timeout=self._timeout_s,
            )
            if result.accepted:
                order_id = result.client_order_id
                if not market.entered_sequence:
                    market.entered_sequence, market.entered_ns = result.sequence, self.clock_ns()
            return _code_of(result)

        entered = await self._look(Kind.ORDER, symbol, enter)
        market.left_over = market.left_over or entered.failed
        looks = [entered]
        if order_id:

            async def cancel() -> str:
                result = await self.client.cancel_order(symbol, order_id, timeout=self._timeout_s)
                closed = result.reject_reason in (RejectReason.ORDER_CLOSED, RejectReason.ORDER_UNKNOWN)
                return "" if closed else _code_of(result)

            cancelled = await self._look(Kind.CANCEL, symbol, cancel)
            market.left_over = market.left_over or cancelled.result is not Result.OK
            looks.append(cancelled)
        looks.append(await book)
        return all(look.result is Result.OK for look in looks)

    async def _clear(self, market: _Market) -> None:
        try:
            await self.client.cancel_all_orders(market.instrument.symbol, timeout=self._timeout_s)
        except EvenkeelError:
            return  # it expires by itself; the looks tell what is wrong
        market.left_over = False

    async def _read_book(self, market: _Market) -> str:
        symbol = market.instrument.symbol
        book = await self.client.order_book(symbol, 1, timeout=self._timeout_s)
        now_ns = self.clock_ns()
        self.on_stage(MarketStage(symbol, book.stage, book.next_stage_time_ns, now_ns))
        if book.best_bid is not None or book.best_ask is not None:
            best = book.best_bid or book.best_ask
            assert best is not None
            market.price = _far_price(market.instrument, best.price)
        if book.sequence >= market.entered_sequence:
            market.entered_sequence = 0
        elif now_ns - market.entered_ns > self.stale_ms * 1_000_000 and book.stage is not Stage.REPLAYING:
            return "MARKET_DATA_STALE"
        return ""

    async def _watch_stream(self, market: _Market) -> None:
        """A stream that stays open; it is opened again at once, and its end counts as a look that failed."""
        symbol = market.instrument.symbol
        while True:
            begun_ns = self.clock_ns()
            opened = asyncio.Event()
            listening = asyncio.create_task(self._listen(symbol, opened))
            opening = asyncio.create_task(asyncio.wait_for(opened.wait(), self._timeout_s))
            try:
                # The ticker as it is comes at once.
                await asyncio.wait([listening, opening], return_when=asyncio.FIRST_COMPLETED)
                interval_ms = self.settings.failing_interval_ms
                late_from_ns = begun_ns
                while opened.is_set() and not listening.done():
                    late_from_ns = self.clock_ns()
                    self._tell(Kind.STREAM, symbol, late_from_ns, Result.OK, "")
                    await asyncio.wait([listening], timeout=interval_ms / 1_000)
                    interval_ms = self.settings.interval_ms
                    begun_ns = self.clock_ns()  # what ends now has not failed before
                fault = _fault_of(listening.exception()) if listening.done() else (Result.FAILED, "TimedOut")
                self._tell(Kind.STREAM, symbol, begun_ns, *fault, late_from_ns=late_from_ns)
            finally:
                listening.cancel()
                opening.cancel()
                await asyncio.gather(listening, opening, return_exceptions=True)
            await asyncio.sleep(self.settings.failing_interval_ms / 1_000)

    async def _listen(self, symbol: str, opened: asyncio.Event) -> None:
        async with self.client.stream_ticker(symbol) as ticker:
            async for update in ticker:
                opened.set()
                self.on_stage(MarketStage(symbol, update.stage, update.next_stage_time_ns, self.clock_ns()))

    # ---------------------------------------------------------------- the account

    async def _watch_account(self) -> None:
        while True:
            begun_s = asyncio.get_running_loop().time()
            look = await self._look(Kind.ACCOUNT, "", self._read_balances)
            await self._pause(begun_s, look.result is Result.OK)

    async def _read_balances(self) -> str:
        await self.client.balances(timeout=self._timeout_s)
        return ""

    # ---------------------------------------------------------------- looks

    @property
    def _timeout_s(self) -> float:
        return self.settings.timeout_ms / 1_000

    async def _pause(self, begun_s: float, fine: bool) -> None:
        interval_ms = self.settings.interval_ms if fine else self.settings.failing_interval_ms
        left_s = begun_s + interval_ms / 1_000 - asyncio.get_running_loop().time()
        await asyncio.sleep(max(left_s, 0.02))

    async def _look(self, kind: Kind, instrument: str, ask: Callable[[], Awaitable[str]]) -> Look:
        begun_ns = self.clock_ns()
        try:
            # The SDK keeps its own deadline; this is for what it asks after one.
            code = await asyncio.wait_for(ask(), self._timeout_s * 1.5)
            result = Result.OK if not code else Result.FORBIDDEN if code.startswith("STAGE_") else Result.FAILED
        except (EvenkeelError, TimeoutError) as error:
            result, code = _fault_of(error)
        return self._tell(kind, instrument, begun_ns, result, code)

    def _tell(
        self, kind: Kind, instrument: str, begun_ns: int, result: Result, code: str, late_from_ns: int | None = None
    ) -> Look:
        """`late_from_ns`: from when on our own lateness may be the reason, if that is before the look."""
        ended_ns = self.clock_ns()
        failed = result is Result.FAILED
        looked_from_ns = begun_ns if late_from_ns is None else late_from_ns
        if failed and self.lateness.worst_ms(looked_from_ns, ended_ns) > self.settings.lateness_max_ms:
            result, code = Result.UNKNOWN, "WATCHER_LATE"
        elif failed and code in _SETUP_CODES:
            result = Result.UNKNOWN
            _log.error("status.probe_refused", gateway=self.number, code=code, kind=kind.value)
        look = Look(kind, self.number, instrument, begun_ns, ended_ns, result, code)
        self.on_look(look)
        return look


def _fault_of(error: BaseException | None) -> tuple[Result, str]:
    """Return what an error says of the service that was asked for."""
    if isinstance(error, StageForbids):
        return Result.FORBIDDEN, error.reason_name
    return Result.FAILED, getattr(error, "reason_name", "") or type(error).__name__


def _code_of(result: OrderResult) -> str:
    """Empty for a market that works, also if it would take the order only at another price."""
    if result.pending:
        return "PENDING_FUNDS"
    if result.reject_reason in (RejectReason.PRICE_OUTSIDE_BAND, RejectReason.WOULD_TAKE):
        return ""
    return result.reject_reason.name if result.rejected else ""


def _far_price(instrument: Instrument, best: Decimal) -> Decimal:
    """Return a price to bid at where nobody sells."""
    start = best or instrument.reference_price
    near = Decimal(instrument.band_bps) / 20_000 if instrument.band_bps else _FAR
    price = start * (1 - min(near, _FAR))
    return max(instrument.round_price(price, ROUND_DOWN), instrument.tick_size)
