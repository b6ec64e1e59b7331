"""`chaos load`: a load tester for whatever speaks the protocol."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from chaos.experiment.model import Environment, Population
from chaos.experiment.model import Market as Wanted
from chaos.load import echo
from chaos.load.histograms import HistogramLog
from chaos.load.plan import Behaviour, Client, Group, LoadPlan, Market, Retry, market_of
from chaos.load.seconds import LoadSecond
from chaos.load.shapes import SHAPES
from chaos.load.total import LATE_P99_MS_MAX, Total, total_of
from chaos.load.workers import LoadWorkers
from chaos.run.furnish import furnish, withdraw_keys
from chaos.run.record import ExitCode
from chaos.run.target import TargetUnreachable, check_targets
from exchange.client import AsyncClient, EvenkeelError

LEAD_NS = 500_000_000
"""From the word until the load begins: all of its processes must have heard it."""
SHOWN_S = 5
"""Live figures are of the last so many seconds."""
OPERATOR_TIMEOUT_S = 10.0
ECHO = "echo"
GROUP = "load"
ShapeName = Literal["constant", "steps", "ramp", "spike", "day"]
Found = tuple[tuple[str, ...], Market, tuple[Client, ...]]


class LoadKeyMissing(ValueError):
    """Neither keys of clients nor an operator's key was given."""

    code = "LOAD_KEY_MISSING"


def load(
    target: Annotated[
        list[str],
        typer.Option(help=f"HOST:PORT of a gateway, once for each; `{ECHO}`: the load measures itself by an echo."),
    ],
    keys: Annotated[
        Path | None, typer.Option(help="A file with an API key a line: a client for each.", exists=True, dir_okay=False)
    ] = None,
    operator_key_file: Annotated[
        Path | None,
        typer.Option(help="Instead: with this key accounts and, if need be, the market are made.", exists=True),
    ] = None,
    market: Annotated[str, typer.Option(help="That is traded.")] = echo.MARKET.symbol,
    price: Annotated[float, typer.Option(help="That orders are laid around.", min=0.000001)] = 60_000.0,
    behaviour: Annotated[Behaviour, typer.Option(help="What clients do.")] = "flow",
    recording: Annotated[
        Path | None, typer.Option(help="Of `--behaviour replay`: a recorded flow.", exists=True, dir_okay=False)
    ] = None,
    clients: Annotated[int, typer.Option(help="How many, with an operator's key.", min=1)] = 10,
    rate: Annotated[float, typer.Option(help="Requests a second of all clients together.", min=0.001)] = 100.0,
    shape: Annotated[ShapeName, typer.Option(help="How the rate goes over the time.")] = "constant",
    duration: Annotated[float, typer.Option(help="In s.", min=1.0)] = 30.0,
    arrivals: Annotated[
        Literal["constant", "poisson", "hawkes"], typer.Option(help="How requests follow each other.")
    ] = "poisson",
    deadline: Annotated[int, typer.Option(help="Of a request, in ms.", min=10)] = 1_000,
    retry: Annotated[Retry, typer.Option(help="What clients do when refused.")] = "none",
    transport: Annotated[Literal["unary", "session"], typer.Option(help="One call each, or a session.")] = "unary",
    workers: Annotated[int, typer.Option(help="Processes that send.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The same one sends the same at the same times.")] = 1,
    late_ms: Annotated[
        float, typer.Option(help="So late at p99 the generator may be by itself.", min=0.1)
    ] = LATE_P99_MS_MAX,
    logs: Annotated[
        Path | None, typer.Option(help="A directory for what every client did and was told. Without: no logs.")
    ] = None,
    hdr: Annotated[Path | None, typer.Option(help="An .hlog file for the latencies of each second.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
    i_own_this_target: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT as after --target: it is mine to load. Needed outside this machine."),
    ] = None,
) -> int:
    """Send load at its times, however slow the target is, and tell what became of it.

    Latency counts from the intended time of sending. Ends with 1 if the generator could not keep its schedule.
    """
    if target != [ECHO]:
        check_targets(target, i_own_this_target or ())
    if (recording is None) == (behaviour == "replay"):
        raise typer.BadParameter("expected a file with --behaviour replay alone", param_hint="--recording")
    secrets = _lines(keys)
    operator_key = "".join(_lines(operator_key_file))
    if target != [ECHO] and not (secrets or operator_key):
        raise LoadKeyMissing("expected --keys with a key a line, or --operator-key-file, found neither")

    def group(made: tuple[Client, ...]) -> Group:
        return Group(
            name=GROUP,
            behaviour=behaviour,
            per_s=rate,
            clients=made,
            markets=(market,),
            process=arrivals,
            retry=retry,
            transport=transport,
            deadline_ms=deadline,
            recording=str(recording or ""),
        )

    async def run() -> Total:
        async with AsyncExitStack() as stack:
            if target == [ECHO]:
                address = await stack.enter_async_context(echo.running_echo())
                found: Found = (address,), echo.MARKET, _numbered([ECHO] * clients)
            else:
                wanted = Wanted(symbol=market, price=price)
                entered = _on_exchange(tuple(target), wanted, secrets, operator_key, clients)
                found = await stack.enter_async_context(entered)
            addresses, traded, made = found
            plan = LoadPlan(
                seed=seed,
                addresses=addresses,
                markets=(traded,),
                groups=(group(made),),
                spans=SHAPES[shape](duration),
                is_logged=logs is not None,
            )
            directory = logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evenkeel-load-")))
            return await _send(plan, directory, workers, late_ms, hdr, None if as_json else Console())

    total = asyncio.run(run())
    if as_json:
        shown = {**msgspec.to_builtins(total), "kept_schedule": total.kept_schedule}
        print(msgspec.json.encode(shown).decode())
    else:
        console = Console()
        console.print(_table(total, "whole load"))
        console.print(total.statement, style="green" if total.kept_schedule else "bold red", highlight=False)
    return int(ExitCode.HELD if total.kept_schedule else ExitCode.BROKEN)


@asynccontextmanager
async def _on_exchange(
    addresses: tuple[str, ...], wanted: Wanted, secrets: list[str], operator_key: str, clients: int
) -> AsyncIterator[Found]:
    """Yield what is loaded and by whom; keys that were made for it are withdrawn at the end."""
    if secrets:
        yield addresses, await _market(addresses, secrets[0], wanted), _numbered(secrets)
        return
    async with AsyncClient(addresses, operator_key, timeout=OPERATOR_TIMEOUT_S) as operator:
        population = Population(name=GROUP, behaviour="flow", clients=clients, per_s=1.0)
        try:
            is_new = all(instrument.symbol != wanted.symbol for instrument in await operator.instruments())
        except EvenkeelError as error:
            raise TargetUnreachable(f"expected an exchange at {', '.join(addresses)}: {error}") from error
        environment = Environment(markets=(wanted,))
        furnished = await furnish(operator, environment, (population,), prefix="chaos-", is_ours=is_new)
        made = tuple(
            Client(name=f"{GROUP}-{number}", account=credential.account, key=credential.key)
            for number, credential in enumerate(furnished.clients[GROUP])
        )
        try:
            yield addresses, await _market(addresses, operator_key, wanted), made
        finally:
            await withdraw_keys(operator, furnished)


async def _market(addresses: tuple[str, ...], key: str, wanted: Wanted) -> Market:
    async with AsyncClient(addresses, key, timeout=OPERATOR_TIMEOUT_S) as client:
        try:
            instruments = {instrument.symbol: instrument for instrument in await client.instruments()}
        except EvenkeelError as error:
            raise TargetUnreachable(f"expected an exchange at {', '.join(addresses)}: {error}") from error
    if wanted.symbol not in instruments:
        known = ", ".join(sorted(instruments)) or "none"
        raise TargetUnreachable(f"expected the market {wanted.symbol} on the exchange, found {known}")
    return market_of(instruments[wanted.symbol], "", Decimal(str(wanted.price)))


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _numbered(secrets: list[str]) -> tuple[Client, ...]:
    """Return a client for each key. Whose account it is, the logs leave open."""
    return tuple(Client(name=f"{GROUP}-{n}", account=0, key=key) for n, key in enumerate(secrets))


async def _send(
    plan: LoadPlan, directory: Path, workers: int, late_ms: float, hdr: Path | None, console: Console | None
) -> Total:
    """Run a plan with its figures shown as they come; Ctrl-C ends it early, with the summary of what there was."""
    load_workers = LoadWorkers(plan, directory, workers)
    seconds: list[LoadSecond] = []
    recent: deque[LoadSecond] = deque(maxlen=SHOWN_S)
    with _Histograms(hdr) as histograms:
        try:
            await load_workers.start()
            await load_workers.begin(time.monotonic_ns() + LEAD_NS)
            with Live(console=console or Console(quiet=True), refresh_per_second=4, transient=True) as live:
                while (second := await load_workers.next_second()) is not None:
                    seconds.append(second)
                    recent.append(second)
                    histograms.write(second)
                    shown = f"{second.t + 1:,} of {plan.duration_s:,.0f} s, last {len(recent)} s"
                    live.update(_table(total_of(recent, late_ms), shown))
        except asyncio.CancelledError:
            # Ctrl-C: what there was is summed up.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        finally:
            await load_workers.finish()
    return total_of(seconds or [LoadSecond(t=0)], late_ms)


class _Histograms:
    """The histograms of each second, in a file if there is to be one."""

    def __init__(self, path: Path | None) -> None:
        self._log = HistogramLog(path) if path is not None else None

    def write(self, second: LoadSecond) -> None:
        if self._log is not None:
            self._log.write(float(second.t), second.latencies)

    def __enter__(self) -> _Histograms:
        return self

    def __exit__(self, *error: object) -> None:
        if self._log is not None:
            self._log.close()


def _table(total: Total, title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("offered", f"{total.offered_per_s:,.1f}/s")
    table.add_row("attempts", f"{total.attempts_per_s:,.1f}/s")
    table.add_row("goodput", f"{total.goodput_per_s:,.1f}/s")
    table.add_row("rejected", f"{total.rejected:,}")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(total.refused.items()))
    table.add_row("refused", f"{sum(total.refused.values()):,}" + (f" ({reasons})" if reasons else ""))
    table.add_row("unknown", f"{total.unknown:,}")
    table.add_row("not sent", f"{total.not_sent:,}")
    for kind, latency in total.latencies.items():
        figures = f"{latency.p50_ms:,.2f} / {latency.p99_ms:,.2f} / {latency.p999_ms:,.2f} ms"
        table.add_row(f"{kind} p50 / p99 / p99.9", figures)
    late = f"{total.late_p99_ms:,.2f} ms, at most {total.late_max_ms:,.2f} ms"
    table.add_row("schedule error p99", late, style="" if total.kept_schedule else "bold red")
    return table
