"""An instrument is refused unless it can be traded and settled exactly."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.engine.commands import AddInstrument
from exchange.engine.instrument import PRICE_MAX, Instrument, InstrumentInvalid
from exchange.engine.words import RejectReason
from tests.engine.market import BUY, INSTRUMENT, MARKET, Market

GOOD = Instrument("BTC-USDT", "BTC", "USDT", 2, 4, 6)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"symbol": "A" * 32},
        {"price_scale": 18, "quantity_scale": 0, "quote_scale": 18},
        # 7 digits of a quote asset that has 6: exact with ticks of ten.
        {"price_scale": 3, "tick_size": 10},
        {"price_scale": 3, "tick_size": 2, "lot_size": 5},
        {"maker_fee_ppm": -100, "taker_fee_ppm": 100},
        {"min_quantity": 5, "max_quantity": 5},
    ],
)
def test_a_good_definition_passes(change: dict[str, Any]) -> None:
    GOOD._replace(**change).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbol": "btc-usdt"}, "symbol: expected 3 to 32"),
        ({"symbol": "AB"}, "symbol"),
        ({"symbol": "A" * 33}, "symbol"),
        ({"symbol": "-AB"}, "symbol"),
        ({"base_asset": ""}, "asset: expected 1 to 16"),
        ({"quote_asset": "US DT"}, "asset"),
        ({"base_asset": "USDT"}, "both USDT"),
        ({"price_scale": 19}, "price_scale: expected 0 to 18, was 19"),
        ({"quantity_scale": -1}, "quantity_scale"),
        ({"quote_scale": 19}, "quote_scale"),
        ({"tick_size": 0}, "tick_size"),
        ({"lot_size": 0}, "lot_size"),
        ({"min_quantity": 0}, "min_quantity"),
        ({"min_quantity": 6, "max_quantity": 5}, "max_quantity"),
        ({"band_bps": 10_000}, "band_bps"),
        ({"reference_price": -1}, "reference_price"),
        ({"maker_fee_ppm": 100_001}, "maker_fee_ppm"),
        ({"taker_fee_ppm": -1}, "taker_fee_ppm"),
        ({"maker_fee_ppm": -101, "taker_fee_ppm": 100}, "rebate of 101 ppm is more than"),
        ({"max_open_orders": 0}, "max_open_orders"),
        ({"price_scale": 3}, "tick x lot needs 7 digits of USDT, which has 6"),
        ({"price_scale": 4, "tick_size": 10}, "tick x lot"),
    ],
)
def test_a_bad_definition_is_refused_with_what_was_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InstrumentInvalid, match=message):
        GOOD._replace(**change).check()
    assert Market().apply(AddInstrument(GOOD._replace(symbol="X" * 3)._replace(**change))).reject_reason != 0


def test_the_same_instrument_may_be_added_again() -> None:
    market = Market()
    assert market.apply(AddInstrument(INSTRUMENT)).reject_reason == 0
    assert market.events == []
    other = INSTRUMENT._replace(lot_size=2)
    assert market.apply(AddInstrument(other)).reject_reason == RejectReason.INSTRUMENT_EXISTS


def test_the_band_is_rounded_inwards() -> None:
    assert GOOD.band(1_000) == (0, PRICE_MAX)
    banded = GOOD._replace(band_bps=500)
    assert banded.band(0) == (0, PRICE_MAX)
    assert banded.band(1_000) == (950, 1_050)
    assert banded.band(1_001) == (951, 1_051)


def test_the_band_follows_the_reference_until_the_first_trade_and_then_the_last_one() -> None:
    market = Market(INSTRUMENT._replace(band_bps=1_000, reference_price=100))
    assert market.place(1, "a", BUY, 111, 1).reject_reason == RejectReason.PRICE_OUTSIDE_BAND
    market.place(1, "b", BUY, 110, 1)
    assert market.place(2, "c", 2, 0, 1, type=MARKET, time_in_force=0).filled == 1
    assert market.place(1, "d", BUY, 121, 1).reject_reason == 0
    assert market.place(1, "e", BUY, 122, 1).reject_reason == RejectReason.PRICE_OUTSIDE_BAND
