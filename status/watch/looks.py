"""What a look at the exchange found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from exchange.client import Stage


class Kind(StrEnum):
    GATEWAY = "gateway"
    """The instruments were listed, which a gateway answers by itself."""
    ORDER = "order"
    """A post-only order was entered, far from the price."""
    CANCEL = "cancel"
    """That order was cancelled."""
    BOOK = "book"
    """The order book was read, and shows what was entered before."""
    STREAM = "stream"
    """A market data stream is open."""
    ACCOUNT = "account"
    """The balances of the probing account were read."""


class Result(StrEnum):
    OK = "ok"
    FAILED = "failed"
    """The service that it asked for was not given."""
    FORBIDDEN = "forbidden"
    """A definite answer of the market: its stage does not let this through."""
    UNKNOWN = "unknown"
    """This service itself ran too late to tell, or its key or its money would not do."""


@dataclass(frozen=True, slots=True)
class Look:
    kind: Kind
    gateway: int
    """Its place in the settings."""
    instrument: str
    """Empty: none, as of the account."""
    begun_ns: int
    ended_ns: int
    result: Result
    code: str = ""
    """What the exchange said, for the log."""

    @property
    def latency_ms(self) -> float:
        return (self.ended_ns - self.begun_ns) / 1e6

    @property
    def failed(self) -> bool:
        return self.result is Result.FAILED


@dataclass(frozen=True, slots=True)
class MarketStage:
    """What a market lets through, as a gateway tells everybody."""

    instrument: str
    stage: Stage
    next_stage_ns: int = 0
    at_ns: int = 0
