"""The service levels: what has to be seen for a component to be called operational, degraded, or out. Pure.

Nobody sets a component to anything: `Judge` is told looks, stages and what the supervisor says, and answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median, quantiles

from exchange.client import Component as Part
from exchange.client import ComponentState, Stage
from status.model import ComponentStatus, TradingMode
from status.settings import Levels
from status.watch.looks import Kind, Look, MarketStage, Result

_MODES = {
    Stage.OPEN: TradingMode.ONLINE,
    Stage.LIMITED: TradingMode.LIMITED,
    Stage.POST_ONLY: TradingMode.POST_ONLY,
    Stage.CANCEL_ONLY: TradingMode.CANCEL_ONLY,
    Stage.REPLAYING: TradingMode.RECOVERING,
    Stage.HALTED: TradingMode.HALTED,
}
_BY_MODE = {
    TradingMode.LIMITED: (ComponentStatus.DEGRADED, "New orders are let in at a limited rate."),
    TradingMode.POST_ONLY: (
        ComponentStatus.PARTIAL_OUTAGE,
        "Cancels and post-only orders are possible, others not yet.",
    ),
    TradingMode.CANCEL_ONLY: (
        ComponentStatus.PARTIAL_OUTAGE,
        "Orders can be cancelled; new ones are not yet possible.",
    ),
    TradingMode.RECOVERING: (ComponentStatus.MAJOR_OUTAGE, "The market is recovering; orders are not possible."),
    TradingMode.HALTED: (ComponentStatus.MAJOR_OUTAGE, "Trading is halted."),
}
_SUPERVISOR_FRESH_NS = 5_000_000_000
FUNDS = "funds"


def trading_id(instrument: str) -> str:
    return f"trading-{instrument.lower()}"


def market_data_id(instrument: str) -> str:
    return f"market-data-{instrument.lower()}"


def gateway_id(number: int) -> str:
    return f"api-gateway-{number}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a component is, and why in words for the public."""

    status: ComponentStatus
    reason: str = ""
    failing_since_ns: int = 0
    """When the first look that says so began; 0 while operational."""
    mode: TradingMode | None = None
    next_mode_ns: int = 0
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0
    checked_ns: int = 0


@dataclass(slots=True)
class _Series:
    """The looks of one kind at one thing through one gateway."""

    looks: deque[Look]
    failing: bool = False
    failures: int = 0
    """In a row; likewise `successes`."""
    successes: int = 0
    first_failure_ns: int = 0

    def take(self, look: Look, levels: Levels) -> None:
        self.looks.append(look)
        oldest_ns = look.ended_ns - levels.window_s * 1_000_000_000
        while self.looks[0].ended_ns < oldest_ns:
            self.looks.popleft()
        if look.failed:
            if not self.failures and not self.failing:
                self.first_failure_ns = look.begun_ns
            self.failures += 1
            self.successes = 0
            self.failing = self.failing or self.failures >= levels.failures_to_fail
        else:
            self.failures = 0
            self.successes += 1
            if self.failing and self.successes >= levels.successes_to_recover:
                # It is back: what was before says nothing of how it is now.
                self.failing = False
                self.looks = deque(look for look in self.looks if not look.failed)


class Judge:
    """Keeps the looks of the last minute, and says what they mean."""

    def __init__(self, levels: Levels, gateways: int) -> None:
        self._levels = levels
        self._gateways = range(gateways)
        self._series: dict[tuple[Kind, int, str], _Series] = {}
        self._stages: dict[str, MarketStage] = {}
        self._parts: Mapping[str, Part] = {}
        self._parts_ns = 0
        self._not_open_since: dict[str, int] = {}
        self._ledger_down_since = 0

    def see(self, look: Look) -> None:
        if look.result is Result.UNKNOWN:
            return  # neither up nor down
        key = (look.kind, look.gateway, look.instrument)
        self._series.setdefault(key, _Series(deque())).take(look, self._levels)

    def hear_stage(self, stage: MarketStage) -> None:
        known = self._stages.get(stage.instrument)
        if known is not None and known.at_ns > stage.at_ns:
            return
        self._stages[stage.instrument] = stage
        if stage.stage is Stage.OPEN:
            self._not_open_since.pop(stage.instrument, None)
        else:
            self._not_open_since.setdefault(stage.instrument, stage.at_ns)

    def hear_parts(self, at_ns: int, parts: Iterable[Part]) -> None:
        self._parts, self._parts_ns = {part.name: part for part in parts}, at_ns
        ledger = self._parts.get("ledger")
        is_down = ledger is not None and ledger.state in (ComponentState.DOWN, ComponentState.PARKED)
        self._ledger_down_since = (self._ledger_down_since or at_ns) if is_down else 0

    # ---------------------------------------------------------------- verdicts

    def verdicts(self, instruments: Iterable[str], now_ns: int) -> dict[str, Verdict]:
        """Return the verdict on each component that was looked at at all."""
        found: dict[str, Verdict] = {}
        for number in self._gateways:
            if series := self._series.get((Kind.GATEWAY, number, "")):
                found[gateway_id(number)] = self._of_gateway(series, now_ns)
        if found and not self._up():
            # Also of what was not looked at yet: whoever starts to look in the middle of an outage knows the markets of
            # before, and that nobody can reach them.
            unreached = self._failed(self._reaching(), ComponentStatus.MAJOR_OUTAGE, "No gateway answers.", now_ns)
            for instrument in instruments:
                found[trading_id(instrument)] = replace(unreached, mode=TradingMode.UNKNOWN)
                found[market_data_id(instrument)] = unreached
            found[FUNDS] = unreached
            return found
        for instrument in instruments:
            if any(self._of(Kind.ORDER, instrument)):
                found[trading_id(instrument)] = self._of_trading(instrument, now_ns)
            if any(self._of(Kind.BOOK, instrument)):
                found[market_data_id(instrument)] = self._of_market_data(instrument, now_ns)
        if any(self._of(Kind.ACCOUNT, "")):
            found[FUNDS] = self._of_funds(now_ns)
        return found

    def _of_gateway(self, series: _Series, now_ns: int) -> Verdict:
        if series.failing:
            return self._failed([series], ComponentStatus.MAJOR_OUTAGE, "The gateway does not answer.", now_ns)
        return self._measured([series], now_ns)

    def _of_trading(self, instrument: str, now_ns: int) -> Verdict:
        entering, cancelling = list(self._of(Kind.ORDER, instrument)), list(self._of(Kind.CANCEL, instrument))
        told = self._stages.get(instrument)
        mode = _MODES.get(told.stage, TradingMode.UNKNOWN) if told is not None else TradingMode.UNKNOWN
        next_mode_ns = told.next_stage_ns if told is not None else 0
        if verdict := self._share_failed(entering, "Orders are not taken", now_ns):
            uncertain = mode is TradingMode.ONLINE
            return _with_mode(verdict, TradingMode.UNKNOWN if uncertain else mode, 0 if uncertain else next_mode_ns)
        if mode in _BY_MODE:
            status, reason = _BY_MODE[mode]
            since_ns = self._not_open_since.get(instrument, now_ns)
            return replace(
                self._measured(entering, now_ns),
                status=status,
                reason=reason,
                failing_since_ns=since_ns,
                mode=mode,
                next_mode_ns=next_mode_ns,
            )
        if verdict := self._share_failed(
            cancelling, "Orders are not cancelled", now_ns, worst=ComponentStatus.PARTIAL_OUTAGE
        ):
            return _with_mode(verdict, mode, next_mode_ns)
        return _with_mode(self._measured([*entering, *cancelling], now_ns), mode, next_mode_ns)

    def _of_market_data(self, instrument: str, now_ns: int) -> Verdict:
        books, streams = list(self._of(Kind.BOOK, instrument)), list(self._of(Kind.STREAM, instrument))
        if verdict := self._share_failed(books, "Order books are not up to date", now_ns):
            return verdict
        if verdict := self._share_failed(streams, "Streams break", now_ns, worst=ComponentStatus.PARTIAL_OUTAGE):
            return verdict
        return self._measured(books, now_ns)

    def _of_funds(self, now_ns: int) -> Verdict:
        accounts = list(self._of(Kind.ACCOUNT, ""))
        if verdict := self._share_failed(accounts, "Balances cannot be read", now_ns):
            return verdict
        if self._ledger_down_since and now_ns - self._parts_ns < _SUPERVISOR_FRESH_NS:
            measured = self._measured(accounts, now_ns)
            return Verdict(
                ComponentStatus.PARTIAL_OUTAGE,
                "Deposits, withdrawals and transfers wait.",
                self._ledger_down_since,
                checked_ns=measured.checked_ns,
            )
        return self._measured(accounts, now_ns)

    # ---------------------------------------------------------------- what they rest on

    def _up(self) -> list[int]:
        """The gateways that answer. One that just failed once is left out while another one answers: what is behind
        it is judged through that one."""
        reaching = {n: s for n in self._gateways if (s := self._series.get((Kind.GATEWAY, n, ""))) is not None}
        up = [number for number, series in reaching.items() if not series.failing]
        return [number for number in up if not reaching[number].failures] or up

    def _reaching(self) -> list[_Series]:
        return [s for number in self._gateways if (s := self._series.get((Kind.GATEWAY, number, "")))]

    def _of(self, kind: Kind, instrument: str) -> Iterator[_Series]:
        """The series of a kind through the gateways that answer."""
        for number in self._up():
            if series := self._series.get((kind, number, instrument)):
                yield series

    def _share_failed(
        self,
        all_series: list[_Series],
        what: str,
        now_ns: int,
        *,
        worst: ComponentStatus = ComponentStatus.MAJOR_OUTAGE,
    ) -> Verdict | None:
        """Out, if that is so through every gateway; partly, if through some."""
        failing = [series for series in all_series if series.failing]
        if not failing:
            return None
        if len(failing) == len(all_series):
            return self._failed(failing, worst, f"{what}.", now_ns)
        return self._failed(failing, ComponentStatus.PARTIAL_OUTAGE, f"{what} through some gateways.", now_ns)

    def _failed(self, failing: list[_Series], status: ComponentStatus, reason: str, now_ns: int) -> Verdict:
        since_ns = min((series.first_failure_ns for series in failing if series.first_failure_ns), default=now_ns)
        checked_ns = max((series.looks[-1].ended_ns for series in failing), default=0)
        return Verdict(status, reason, since_ns, checked_ns=checked_ns)

    def _measured(self, all_series: list[_Series], now_ns: int) -> Verdict:
        """Operational, or degraded by the shares and delays of the window."""
        oldest_ns = now_ns - self._levels.window_s * 1_000_000_000
        looks = [look for series in all_series for look in series.looks if look.ended_ns >= oldest_ns]
        failed = [look for look in looks if look.failed]
        delays = sorted(look.latency_ms for look in looks if look.result is Result.OK)
        p50 = median(delays) if delays else 0.0
        p99 = quantiles(delays, n=100, method="inclusive")[98] if len(delays) > 1 else p50
        checked_ns = max((look.ended_ns for look in looks), default=0)
        status, reason, since_ns = ComponentStatus.OPERATIONAL, "", 0
        many = len(failed) >= self._levels.degraded_failures
        if many and len(failed) * 100 > self._levels.degraded_failed_percent * len(looks):
            status, reason, since_ns = ComponentStatus.DEGRADED, "Some requests fail.", failed[0].begun_ns
        elif p50 > self._levels.degraded_latency_ms:
            slow = next(look for look in looks if look.latency_ms > self._levels.degraded_latency_ms)
            status, reason, since_ns = ComponentStatus.DEGRADED, "Requests take longer than usual.", slow.begun_ns
        return Verdict(
            status, reason, since_ns, latency_p50_ms=round(p50, 2), latency_p99_ms=round(p99, 2), checked_ns=checked_ns
        )


def _with_mode(verdict: Verdict, mode: TradingMode, next_mode_ns: int) -> Verdict:
    return replace(verdict, mode=mode, next_mode_ns=next_mode_ns)
