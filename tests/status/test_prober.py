"""How a look is made, and what an answer means: with a client whose answers are set, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.client import (
    Instrument,
    NotExecuted,
    OrderStatus,
    OutcomeUnknown,
    RejectReason,
    Stage,
    StageForbids,
    TransportError,
    Unauthenticated,
)
from status.settings import Probing
from status.watch.lateness import Lateness
from status.watch.looks import Kind, Look, MarketStage, Result
from status.watch.prober import GatewayProber
from tests.status.observed import SECOND, START, instrument
from tests.virtual_time import run

SYMBOL = "BTC-USDT"


def answer(reason: RejectReason = RejectReason.UNSPECIFIED, sequence: int = 1) -> Any:
    return SimpleNamespace(
        accepted=not reason,
        rejected=bool(reason),
        pending=False,
        status=OrderStatus.OPEN,
        reject_reason=reason,
        client_order_id="probe",
        sequence=sequence,
    )


@dataclass
class FakeClient:
    """Answers as it is told; `errors` by method come first."""

    errors: dict[str, Exception] = field(default_factory=dict)
    rejects: dict[str, RejectReason] = field(default_factory=dict)
    best_bid: Decimal = Decimal(60_000)
    book_sequence: int = 10
    order_sequence: int = 10
    hangs: frozenset[str] = frozenset()
    asked: list[tuple[str, Any]] = field(default_factory=list)
    market: Instrument = field(default_factory=lambda: instrument(SYMBOL, "shard-0"))

    async def _answer(self, method: str, *given: object) -> None:
        self.asked.append((method, given))
        if method in self.hangs:
            await asyncio.sleep(3_600)
        await asyncio.sleep(0.01)
        if method in self.errors:
            raise self.errors[method]

    async def instruments(self, **_: object) -> list[Instrument]:
        await self._answer("instruments")
        return [self.market]

    async def order_book(self, symbol: str, depth: int, **_: object) -> Any:
        await self._answer("order_book")
        best = SimpleNamespace(price=self.best_bid)
        return SimpleNamespace(
            stage=Stage.OPEN, next_stage_time_ns=0, best_bid=best, best_ask=None, sequence=self.book_sequence
        )

    async def place_order(self, symbol: str, side: object, quantity: Decimal, price: Decimal, **options: object) -> Any:
        await self._answer("place_order", quantity, price, options)
        return answer(self.rejects.get("place_order", RejectReason.UNSPECIFIED), self.order_sequence)

    async def cancel_order(self, symbol: str, order: str, **_: object) -> Any:
        await self._answer("cancel_order", order)
        return answer(self.rejects.get("cancel_order", RejectReason.UNSPECIFIED))

    async def cancel_all_orders(self, symbol: str, **_: object) -> None:
        await self._answer("cancel_all_orders")

    async def balances(self, **_: object) -> None:
        await self._answer("balances")

    def stream_ticker(self, symbol: str) -> Any:
        return FakeStream(self)

    async def aclose(self) -> None:
        self.asked.append(("aclose", ()))


class FakeStream:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self._client._answer("stream_ticker")
        yield SimpleNamespace(stage=Stage.OPEN, next_stage_time_ns=0)
        while "stream_ticker" not in self._client.errors:
            await asyncio.sleep(0.1)
        raise self._client.errors["stream_ticker"]


class Watched:
    """A prober that has run for a while."""

    def __init__(self, client: FakeClient) -> None:
        self.client = client
        self.looks: list[Look] = []
        self.stages: list[MarketStage] = []
        self.lateness = Lateness(self._clock_ns)

    def _clock_ns(self) -> int:
        return START + int((asyncio.get_running_loop().time() - 1_000.0) * SECOND)

    def watch(self, seconds: float, *, late_ms: float = 0.0, then: Callable[[], None] = lambda: None) -> None:
        async def work() -> None:
            prober = GatewayProber(
                number=0,
                client=self.client,  # type: ignore[arg-type]
                settings=Probing(),
                stale_ms=2_500,
                lateness=self.lateness,
                clock_ns=self._clock_ns,
                on_look=self.looks.append,
                on_stage=self.stages.append,
                on_instruments=lambda _: None,
            )
            running = [asyncio.create_task(prober.run()), asyncio.create_task(self._be_late(late_ms))]
            await asyncio.sleep(seconds)
            then()
            if then is not None:
                await asyncio.sleep(seconds)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

        run(work())

    async def _be_late(self, late_ms: float) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.lateness.note(self._clock_ns(), late_ms)

    def results(self, kind: Kind) -> set[tuple[Result, str]]:
        return {(look.result, look.code) for look in self.looks if look.kind is kind}


def test_an_exchange_that_works_is_looked_at_about_once_a_second() -> None:
    watched = Watched(FakeClient())
    watched.watch(5)
    for kind in Kind:
        assert watched.results(kind) == {(Result.OK, "")}
        assert 8 <= len([look for look in watched.looks if look.kind is kind]) <= 12
    assert watched.stages[0].stage is Stage.OPEN
    assert watched.client.asked[-1] == ("aclose", ())


def test_a_probing_order_is_post_only_small_far_from_the_price_and_ends_by_itself() -> None:
    client = FakeClient()
    Watched(client).watch(3)
    quantity, price, options = [given for method, given in client.asked if method == "place_order"][-1]
    assert quantity == client.market.min_quantity
    assert price == 30_000
    assert options["post_only"]
    assert options["expire_time"] is not None


@pytest.mark.parametrize(
    ("error", "result", "code"),
    [
        (OutcomeUnknown("lost"), Result.FAILED, "OutcomeUnknown"),
        (TransportError("lost"), Result.FAILED, "TransportError"),
        (NotExecuted("away", reason_name="SHARD_UNAVAILABLE"), Result.FAILED, "SHARD_UNAVAILABLE"),
        (StageForbids("no", reason_name="STAGE_CANCEL_ONLY"), Result.FORBIDDEN, "STAGE_CANCEL_ONLY"),
        (Unauthenticated("no", reason_name="KEY_REVOKED"), Result.UNKNOWN, "KEY_REVOKED"),
    ],
)
def test_an_error_is_of_the_exchange_the_stage_or_this_service(error: Exception, result: Result, code: str) -> None:
    watched = Watched(FakeClient(errors={"place_order": error}))
    watched.watch(3)
    assert watched.results(Kind.ORDER) == {(result, code)}
    assert watched.results(Kind.BOOK) == {(Result.OK, "")}


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        (RejectReason.STAGE_POST_ONLY, Result.FORBIDDEN),
        (RejectReason.PRICE_OUTSIDE_BAND, Result.OK),
        (RejectReason.INSUFFICIENT_FUNDS, Result.UNKNOWN),
        (RejectReason.FUNDS_UNAVAILABLE, Result.FAILED),
    ],
)
def test_a_rejection_is_an_answer(reason: RejectReason, result: Result) -> None:
    watched = Watched(FakeClient(rejects={"place_order": reason}))
    watched.watch(3)
    assert {found for found, _ in watched.results(Kind.ORDER)} == {result}


def test_what_hangs_has_failed_after_its_timeout_and_is_asked_again() -> None:
    watched = Watched(FakeClient(hangs=frozenset({"place_order"})))
    watched.watch(5)
    looks = [look for look in watched.looks if look.kind is Kind.ORDER]
    assert len(looks) >= 5
    assert {look.result for look in looks} == {Result.FAILED}
    assert max(look.latency_ms for look in looks) <= 1_600


def test_failures_while_this_service_itself_was_late_say_nothing() -> None:
    watched = Watched(FakeClient(hangs=frozenset({"place_order"})))
    watched.watch(3, late_ms=400.0)
    assert watched.results(Kind.ORDER) == {(Result.UNKNOWN, "WATCHER_LATE")}
    assert watched.results(Kind.BOOK) == {(Result.OK, "")}  # what succeeds, succeeds


def test_an_order_whose_cancel_failed_is_swept_up_later() -> None:
    client = FakeClient(errors={"cancel_order": OutcomeUnknown("lost")})
    watched = Watched(client)
    watched.watch(3, then=client.errors.clear)
    assert "cancel_all_orders" in [method for method, _ in client.asked]
    assert [look.result for look in watched.looks if look.kind is Kind.CANCEL][-1] is Result.OK


def test_market_data_that_does_not_show_what_was_acknowledged_is_stale() -> None:
    watched = Watched(FakeClient(order_sequence=99, book_sequence=98))
    watched.watch(4)
    books = [look for look in watched.looks if look.kind is Kind.BOOK]
    assert books[0].result is Result.OK
    assert (books[-1].result, books[-1].code) == (Result.FAILED, "MARKET_DATA_STALE")


def test_a_stream_that_ends_has_failed_and_is_opened_again() -> None:
    client = FakeClient()
    watched = Watched(client)
    watched.watch(3, then=lambda: client.errors.update(stream_ticker=TransportError("lost")))
    looks = [look for look in watched.looks if look.kind is Kind.STREAM]
    found = [look.result for look in looks]
    assert found[0] is Result.OK
    assert found[-1] is Result.FAILED
    first = looks[found.index(Result.FAILED)]
    assert first.begun_ns > START + 3 * SECOND, "an outage begins when the stream ends, not when it was opened"
    assert len([method for method, _ in client.asked if method == "stream_ticker"]) > 2
