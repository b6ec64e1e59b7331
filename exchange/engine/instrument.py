"""What is traded, and the rules that every order in it keeps."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

PRICE_MAX: Final = 2**63 - 1
QUANTITY_MAX: Final = 2**63 - 1
SCALE_MAX: Final = 18
_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{2,31}")
_ASSET: Final = re.compile(r"[A-Z0-9]{1,16}")


class InstrumentInvalid(ValueError):
    """The definition breaks a rule; the message says which, what was expected and what was found."""


class Instrument(NamedTuple):
    """A spot market. Sizes and prices in units of the scales, band in 1/10,000, fees in 1/1,000,000 of the notional.

    A named tuple because it travels in commands, events and snapshots as it is.
    """

    symbol: str
    base_asset: str
    quote_asset: str
    price_scale: int
    quantity_scale: int
    quote_scale: int
    tick_size: int = 1
    lot_size: int = 1
    min_quantity: int = 1
    max_quantity: int = QUANTITY_MAX
    band_bps: int = 0
    reference_price: int = 0
    maker_fee_ppm: int = 0
    taker_fee_ppm: int = 0
    max_open_orders: int = 10_000
    base_scale: int | None = None
    """Digits of amounts of the base asset, at least `quantity_scale`; None: as many."""

    def check(self) -> None:
        """Raise `InstrumentInvalid` unless the definition can be traded and settled exactly."""
        if not _SYMBOL.fullmatch(self.symbol):
            raise InstrumentInvalid(f"symbol: expected 3 to 32 of A-Z, 0-9 and -, was {self.symbol!r}")
        for asset in (self.base_asset, self.quote_asset):
            if not _ASSET.fullmatch(asset):
                raise InstrumentInvalid(f"asset: expected 1 to 16 of A-Z and 0-9, was {asset!r}")
        if self.base_asset == self.quote_asset:
            raise InstrumentInvalid(f"base and quote asset are both {self.base_asset}")
        for name in ("price_scale", "quantity_scale", "quote_scale"):
            _expect(name, getattr(self, name), 0, SCALE_MAX)
        if self.base_scale is not None:
            _expect("base_scale", self.base_scale, self.quantity_scale, SCALE_MAX)
        _expect("tick_size", self.tick_size, 1, PRICE_MAX)
        _expect("lot_size", self.lot_size, 1, QUANTITY_MAX)
        _expect("min_quantity", self.min_quantity, 1, QUANTITY_MAX)
        _expect("max_quantity", self.max_quantity, self.min_quantity, QUANTITY_MAX)
        _expect("band_bps", self.band_bps, 0, 9_999)
        _expect("reference_price", self.reference_price, 0, PRICE_MAX)
        _expect("maker_fee_ppm", self.maker_fee_ppm, -100_000, 100_000)
        _expect("taker_fee_ppm", self.taker_fee_ppm, 0, 100_000)
        _expect("max_open_orders", self.max_open_orders, 1, 1_000_000)
        if self.maker_fee_ppm + self.taker_fee_ppm < 0:
            raise InstrumentInvalid(
                f"a maker rebate of {-self.maker_fee_ppm} ppm is more than the taker fee of {self.taker_fee_ppm} ppm"
            )
        digits_beyond = self.price_scale + self.quantity_scale - self.quote_scale
        if digits_beyond > 0 and self.tick_size * self.lot_size % 10**digits_beyond:
            raise InstrumentInvalid(
                f"tick x lot needs {self.price_scale + self.quantity_scale} digits of {self.quote_asset}, "
                f"which has {self.quote_scale}: use a larger tick or lot"
            )

    def band(self, reference: int) -> tuple[int, int]:
        """Return the lowest price for a sell and the highest for a buy around `reference`; no limit without a band."""
        if not self.band_bps or not reference:
            return 0, PRICE_MAX
        return (
            -(-reference * (10_000 - self.band_bps) // 10_000),
            reference * (10_000 + self.band_bps) // 10_000,
        )


def _expect(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InstrumentInvalid(f"{name}: expected {low} to {high}, was {value}")
