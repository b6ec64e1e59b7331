"""Service levels: what is seen, and what a component is called then."""

from __future__ import annotations

import pytest

from exchange.client import Stage
from status.levels import Judge, Verdict
from status.model import ComponentStatus, TradingMode
from status.settings import Levels
from status.watch.looks import Kind, MarketStage, Result
from tests.status.observed import SECOND, START, look

BTC = "BTC-USDT"
MARKET_KINDS = (Kind.ORDER, Kind.CANCEL, Kind.BOOK, Kind.STREAM)


class Seen:
    """A judge, and looks at everything, second by second."""

    def __init__(self, gateways: int = 1, levels: Levels | None = None) -> None:
        self.judge = Judge(levels or Levels(), gateways)
        self.gateways = gateways
        self.now_s = 0.0

    def second(self, failing: dict[tuple[Kind, int], Result] | None = None, took_ms: float = 5.0) -> None:
        self.now_s += 1.0
        for gateway in range(self.gateways):
            for kind in Kind:
                result = (failing or {}).get((kind, gateway), Result.OK)
                symbol = BTC if kind in MARKET_KINDS else ""
                self.judge.see(look(kind, self.now_s, result, gateway=gateway, instrument=symbol, took_ms=took_ms))

    def stage(self, stage: Stage, next_ns: int = 0) -> None:
        self.judge.hear_stage(MarketStage(BTC, stage, next_ns, self.now_ns))

    @property
    def now_ns(self) -> int:
        return START + int(self.now_s * SECOND)

    def verdict(self, name: str) -> Verdict:
        return self.judge.verdicts([BTC], self.now_ns)[name]


def failing(kind: Kind, *gateways: int) -> dict[tuple[Kind, int], Result]:
    return {(kind, gateway): Result.FAILED for gateway in gateways}


def whole_gateway(gateway: int) -> dict[tuple[Kind, int], Result]:
    return {(kind, gateway): Result.FAILED for kind in Kind}


def test_nothing_is_said_of_what_was_never_looked_at() -> None:
    assert Judge(Levels(), 1).verdicts([BTC], START) == {}


def test_all_is_operational_when_every_look_succeeds() -> None:
    seen = Seen()
    seen.stage(Stage.OPEN)
    seen.second()
    verdicts = seen.judge.verdicts([BTC], seen.now_ns)
    assert {name: verdict.status for name, verdict in verdicts.items()} == dict.fromkeys(
        ("api-gateway-0", "trading-btc-usdt", "market-data-btc-usdt", "funds"), ComponentStatus.OPERATIONAL
    )
    assert verdicts["trading-btc-usdt"].mode is TradingMode.ONLINE
    assert verdicts["trading-btc-usdt"].latency_p50_ms == 5.0


def test_one_failed_look_is_not_an_outage_and_two_in_a_row_are() -> None:
    seen = Seen()
    seen.second()
    seen.second(failing(Kind.ORDER, 0))
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.OPERATIONAL
    seen.second(failing(Kind.ORDER, 0))
    found = seen.verdict("trading-btc-usdt")
    assert found.status is ComponentStatus.MAJOR_OUTAGE
    assert found.failing_since_ns == START + 2 * SECOND - 5_000_000  # when the first of them began


def test_two_good_looks_end_an_outage_and_what_was_before_does_not_linger() -> None:
    seen = Seen()
    for _ in range(20):
        seen.second(failing(Kind.ORDER, 0))
    seen.second()
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.MAJOR_OUTAGE
    seen.second()
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.OPERATIONAL


def test_a_market_that_cannot_be_traded_through_one_gateway_only_is_partly_out() -> None:
    seen = Seen(gateways=2)
    for _ in range(2):
        seen.second(failing(Kind.ORDER, 1))
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.PARTIAL_OUTAGE
    assert seen.verdict("api-gateway-1").status is ComponentStatus.OPERATIONAL


def test_a_gateway_that_is_gone_is_out_and_the_markets_behind_the_other_one_are_not() -> None:
    seen = Seen(gateways=2)
    for _ in range(3):
        seen.second(whole_gateway(1))
        assert seen.verdict("trading-btc-usdt").status is ComponentStatus.OPERATIONAL
    assert seen.verdict("api-gateway-1").status is ComponentStatus.MAJOR_OUTAGE
    assert seen.verdict("api-gateway-0").status is ComponentStatus.OPERATIONAL
    assert seen.verdict("funds").status is ComponentStatus.OPERATIONAL


def test_everything_is_out_when_no_gateway_answers_and_nobody_knows_the_mode() -> None:
    seen = Seen(gateways=2)
    seen.stage(Stage.OPEN)
    for _ in range(2):
        seen.second(whole_gateway(0) | whole_gateway(1))
    verdicts = seen.judge.verdicts([BTC], seen.now_ns)
    assert {verdict.status for verdict in verdicts.values()} == {ComponentStatus.MAJOR_OUTAGE}
    assert verdicts["trading-btc-usdt"].mode is TradingMode.UNKNOWN


@pytest.mark.parametrize(
    ("stage", "status", "mode"),
    [
        (Stage.REPLAYING, ComponentStatus.MAJOR_OUTAGE, TradingMode.RECOVERING),
        (Stage.HALTED, ComponentStatus.MAJOR_OUTAGE, TradingMode.HALTED),
        (Stage.CANCEL_ONLY, ComponentStatus.PARTIAL_OUTAGE, TradingMode.CANCEL_ONLY),
        (Stage.POST_ONLY, ComponentStatus.PARTIAL_OUTAGE, TradingMode.POST_ONLY),
        (Stage.LIMITED, ComponentStatus.DEGRADED, TradingMode.LIMITED),
        (Stage.OPEN, ComponentStatus.OPERATIONAL, TradingMode.ONLINE),
    ],
)
def test_the_stage_of_a_market_is_its_trading_mode(stage: Stage, status: ComponentStatus, mode: TradingMode) -> None:
    seen = Seen()
    seen.second({(Kind.ORDER, 0): Result.FORBIDDEN})
    seen.stage(stage, next_ns=START + 99)
    found = seen.verdict("trading-btc-usdt")
    assert (found.status, found.mode, found.next_mode_ns) == (status, mode, START + 99)


def test_an_older_word_on_the_stage_does_not_undo_a_newer_one() -> None:
    seen = Seen()
    seen.second()
    seen.stage(Stage.CANCEL_ONLY)
    seen.judge.hear_stage(MarketStage(BTC, Stage.OPEN, 0, seen.now_ns - 1))
    assert seen.verdict("trading-btc-usdt").mode is TradingMode.CANCEL_ONLY


def test_cancels_that_fail_are_a_partial_outage() -> None:
    seen = Seen()
    seen.stage(Stage.OPEN)
    for _ in range(2):
        seen.second(failing(Kind.CANCEL, 0))
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.PARTIAL_OUTAGE


def test_market_data_is_out_without_books_and_partly_without_streams() -> None:
    seen = Seen()
    for _ in range(2):
        seen.second(failing(Kind.STREAM, 0))
    assert seen.verdict("market-data-btc-usdt").status is ComponentStatus.PARTIAL_OUTAGE
    for _ in range(2):
        seen.second(failing(Kind.BOOK, 0))
    assert seen.verdict("market-data-btc-usdt").status is ComponentStatus.MAJOR_OUTAGE
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.OPERATIONAL


def test_what_the_watcher_was_too_late_for_says_nothing() -> None:
    seen = Seen()
    seen.second()
    before = seen.verdict("trading-btc-usdt")
    for _ in range(10):
        seen.second({(kind, 0): Result.UNKNOWN for kind in Kind})
    after = seen.verdict("trading-btc-usdt")
    assert after.status is ComponentStatus.OPERATIONAL
    assert after.checked_ns == before.checked_ns  # and everybody sees that nobody looked since


def test_now_and_then_a_failure_is_degraded() -> None:
    seen = Seen()
    for second in range(40):
        seen.second(failing(Kind.ORDER, 0) if second % 4 == 0 else None)
    found = seen.verdict("trading-btc-usdt")
    assert (found.status, found.reason) == (ComponentStatus.DEGRADED, "Some requests fail.")


def test_slow_answers_are_degraded() -> None:
    seen = Seen()
    for _ in range(10):
        seen.second(took_ms=800.0)
    assert seen.verdict("trading-btc-usdt").status is ComponentStatus.DEGRADED
