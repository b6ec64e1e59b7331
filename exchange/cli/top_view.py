"""What `exchange top` shows: two looks at the exchange, made into a screen of any width and height."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from exchange.client import (
    ClassLoad,
    Component,
    ComponentState,
    Event,
    ExchangeStatus,
    GatewayLoad,
    RolloutState,
    Stage,
    Ticker,
)

EVENTS_MIN = 3
INSTRUMENTS_MAX = 8
_FIXED_LINES = 8
"""Titles, headings and the blank lines between."""
_WIDE = 110
_STAGE_STYLES = {Stage.OPEN: "green", Stage.LIMITED: "yellow", Stage.POST_ONLY: "yellow", Stage.CANCEL_ONLY: "red"}
_EVENT_STYLES = {"lost": "red", "parked": "red", "suspect": "yellow", "taking_over": "yellow", "up": "green"}


@dataclass(frozen=True, slots=True)
class Look:
    """The exchange at one moment; `time_s` measures what lies between two."""

    time_s: float
    status: ExchangeStatus
    events: tuple[Event, ...]
    tickers: tuple[Ticker, ...]


@dataclass(frozen=True, slots=True)
class Screen:
    """What to show. `trouble`: why `now` is not of this moment, and for how long."""

    address: str
    before: Look | None
    now: Look | None
    trouble: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield render(self, options.max_width, options.height or console.height)


def render(screen: Screen, width: int, height: int) -> RenderableType:
    """Return the screen's lines, no more than `height`: events have what the rest leaves."""
    now = screen.now
    if now is None:
        return Group(_head(screen, width), Text(screen.trouble, style="bold red"))
    components = now.status.components
    machines = [c for c in components if c.machine_load is not None]
    gateways = [c for c in components if c.gateway_load is not None]
    placed = [(symbol, c) for c in machines for symbol in c.instruments]
    left = height - _FIXED_LINES - len(machines) - len(gateways) - bool(screen.trouble)
    shown = placed[: max(min(len(placed), INSTRUMENTS_MAX, left - EVENTS_MIN), 0)]
    left -= len(shown) + (len(shown) < len(placed))
    parts: list[RenderableType] = [_head(screen, width)]
    if screen.trouble:
        parts.append(Text(screen.trouble, style="bold red", no_wrap=True, overflow="ellipsis"))
    parts += [
        Text(),
        _machines(machines, components, now.status.time_ns, width),
        Text(),
        _gateways(gateways, screen, width),
    ]
    if placed:
        parts += [Text(), _instruments(shown, now.tickers, width)]
    if len(shown) < len(placed):
        parts.append(Text(f"and {len(placed) - len(shown)} more", style="dim"))
    parts += [Text(), *_events(now.events[-max(left, EVENTS_MIN) :])]
    return Group(*parts)


def _head(screen: Screen, width: int) -> Text:
    head = Text("evenkeel", style="bold", no_wrap=True, overflow="ellipsis")
    if screen.now is None:
        return head.append(f"  {screen.address}", style="dim")
    status = screen.now.status
    head.append(f" {status.version}  {screen.address}  ", style="not bold dim")
    head.append(datetime.fromtimestamp(status.time_ns / 1e9, UTC).strftime("%H:%M:%S UTC"), style="not bold")
    head.append(f"  settings {status.settings_version}", style="not bold")
    if status.rolling_version:
        head.append(f", rolling out {status.rolling_version}", style="yellow")
    elif status.rollout_state == RolloutState.REVERTED:
        head.append(", the newest taken back", style="yellow")
    down = [c for c in status.components if c.state not in (ComponentState.UP, ComponentState.SUSPECT)]
    head.append(f"  {len(status.components) - len(down)}/{len(status.components)} up", style="red" if down else "green")
    if status.audit_breaks:
        head.append(f"  {status.audit_breaks} BREAKS IN THE BOOKS", style="bold red")
    head.truncate(width, overflow="ellipsis")
    return head


def _table(**columns: int) -> Table:
    """Return a table without lines, with the least width of each column, so that it stands still.

    One with a width below 0 is of numbers.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
    for name, width in columns.items():
        justify: Literal["left", "right"] = "right" if width < 0 else "left"
        table.add_column(name.replace("_per_", "/"), justify=justify, min_width=abs(width), no_wrap=True)
    return table


def _machines(machines: Sequence[Component], components: Sequence[Component], now_ns: int, width: int) -> Table:
    columns = {"machine": 8, "stage": 11, "next": 5, "epoch": -5, "cmd_per_s": -6, "busy": -4, "cancels": -7}
    columns |= {"orders": -7, "journal": -7, "standby": -8}
    if width >= _WIDE:
        columns |= {"capacity": -8, "passive": -7, "open": -7, "node": 6}
    table = _table(**columns)
    by_name = {c.name: c for c in components}
    for c in machines:
        load = c.machine_load
        assert load is not None
        cells: list[str | Text] = [c.name, _stage(c), _next(c, now_ns), str(c.epoch), _count(load.commands_per_s)]
        cells += [f"{load.utilisation:.0%}", _delay(load.classes, "cancels"), _delay(load.classes, "orders")]
        cells += [_ms(load.journal_lag_ms), _standby(c, by_name.get(f"{c.name}-standby"))]
        if width >= _WIDE:
            capacity = _count(load.capacity_per_s) if load.capacity_per_s else ""
            cells += [capacity, _delay(load.classes, "passive"), _count(c.open_orders) if c.stage else "", c.node]
        table.add_row(*cells)
    return table


def _stage(component: Component) -> Text:
    if component.state not in (ComponentState.UP, ComponentState.SUSPECT):
        return Text(component.state.name, style="bold red")
    suspect = "?" if component.state == ComponentState.SUSPECT else ""
    if not component.stage:
        return Text(f"UP{suspect}", style="green")
    held = "*" if component.instrument_stages else ""
    return Text(f"{component.stage.name}{held}{suspect}", style=_STAGE_STYLES.get(component.stage, "bold red"))


def _next(component: Component, now_ns: int) -> str:
    left_s = (component.next_stage_time_ns - now_ns) / 1e9
    return f"{left_s:.0f} s" if component.next_stage_time_ns and left_s > 0 else ""


def _standby(machine: Component, standby: Component | None) -> Text:
    if standby is None:
        return Text("none", style="dim")
    if standby.state != ComponentState.UP:
        return Text(standby.state.name.lower(), style="yellow")
    behind = max(machine.record - standby.record, 0)
    return Text("follows" if behind <= 1 else f"-{behind:,}", style="green" if behind <= 100 else "yellow")


def _gateways(gateways: Sequence[Component], screen: Screen, width: int) -> Table:
    columns = {"gateway": 9, "state": 8, "cmd_per_s": -6, "limited": -7, "shed": -6, "queued": -6, "cancels": -7}
    columns |= {"orders": -7, "credits": -11}
    table = _table(**columns, **({"address": 15} if width >= _WIDE else {}))
    now, before = screen.now, screen.before
    assert now is not None
    earlier = {} if before is None else {(c.name, c.incarnation): c.gateway_load for c in before.status.components}
    seconds = now.time_s - before.time_s if before is not None else 0.0
    for c in gateways:
        load, old = c.gateway_load, earlier.get((c.name, c.incarnation))
        assert load is not None
        is_up = c.state in (ComponentState.UP, ComponentState.SUSPECT)
        table.add_row(
            c.name,
            Text(c.state.name, style="green" if is_up else "bold red"),
            *(_rate(load, old, seconds, part) for part in ("commands", "rate_limited")),
            _count((_shed(load) - _shed(old)) / seconds) if old is not None and seconds else "",
            _count(sum(row.queued for link in load.links for row in link.classes)),
            *(_delay((row for link in load.links for row in link.classes), name) for name in ("cancels", "orders")),
            "/".join(_count(link.limit) for link in load.links if link.machine.startswith("shard")),
            *([c.address] if width >= _WIDE else []),
        )
    return table


def _rate(load: GatewayLoad, old: GatewayLoad | None, seconds: float, part: str) -> str:
    return _count((getattr(load, part) - getattr(old, part)) / seconds) if old is not None and seconds else ""


def _shed(load: GatewayLoad) -> int:
    return sum(sum(row.shed.values()) for link in load.links for row in link.classes)


def _instruments(placed: Sequence[tuple[str, Component]], tickers: Sequence[Ticker], width: int) -> Table:
    columns = {"instrument": 12, "shard": 8, "stage": 11, "bid": -12, "ask": -12, "last": -12}
    table = _table(**columns, **({"volume": -12} if width >= _WIDE else {}))
    known = {ticker.instrument: ticker for ticker in tickers}
    for symbol, component in placed:
        own = next((row.stage for row in component.instrument_stages if row.instrument == symbol), None)
        stage = _stage(component) if own is None else Text(own.name, style=_STAGE_STYLES.get(own, "bold red"))
        ticker = known.get(symbol)
        prices = [] if ticker is None else [ticker.bid_price, ticker.ask_price, ticker.last_price]
        cells = ["" if price is None else f"{price:f}" for price in prices] or ["", "", ""]
        volume = "" if ticker is None else f"{ticker.volume:f}"
        table.add_row(symbol, component.name, stage, *cells, *([volume] if width >= _WIDE else []))
    return table


def _events(events: Iterable[Event]) -> list[Text]:
    lines = []
    for event in events:
        at = datetime.fromtimestamp(event.time_ns / 1e9, UTC).strftime("%H:%M:%S")
        line = Text(f"{at} ", style="dim", no_wrap=True, overflow="ellipsis")
        line.append(f"{event.kind:<11.11} ", style=f"not dim {_EVENT_STYLES.get(event.kind, '')}".strip())
        line.append(f"{event.component:<16.16} ", style="not dim").append(event.detail, style="not dim")
        lines.append(line)
    return lines


def _delay(classes: Iterable[ClassLoad], name: str) -> str:
    delays = [row.p99_delay_ms for row in classes if row.work_class == name]
    return _ms(max(delays)) if delays else ""


def _ms(delay_ms: float) -> str:
    return (
        f"{delay_ms / 1_000:.1f} s"
        if delay_ms >= 10_000
        else f"{delay_ms:.0f} ms"
        if delay_ms >= 10
        else f"{delay_ms:.1f} ms"
    )


def _count(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.1f}k" if value >= 1e4 else f"{value:,.0f}"
