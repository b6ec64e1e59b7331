"""`exchange bench`: figures that mean something anywhere: each stands beside a reference of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from rich.table import Table

from exchange.cli.errors import CommandFailed
from exchange.cli.output import console

NAMES = (
    "engine",
    "session",
    "session_nats",
    "unary",
    "grants",
    "journal",
    "journal_nats",
    "replay",
    "cold",
    "depth",
    "memory",
    "failover",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement: `value` in `unit`, the reference's value in the same unit, and value / reference."""

    name: str
    value: float
    unit: str
    reference: float
    ratio: float
    detail: str = ""


def run(names: Sequence[str], *, as_json: bool, failover_path: Path | None = None) -> None:
    """Run the benchmarks of these names, all of them for none, and print their figures.

    `failover_path`: where the time line of a failover is to be drawn.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise CommandFailed("UNKNOWN_BENCHMARK", f"expected some of {' '.join(NAMES)}, was {' '.join(unknown)}")
    figures: list[Figure] = []
    for name in names or NAMES:
        if not as_json:
            console.print(f"[dim]{name} …[/]")
        measure: Callable[..., Figure | list[Figure]] = import_module(f"exchange.cli.bench.{name}").measure
        measured = measure(figure_path=failover_path) if name == "failover" else measure()
        figures += measured if isinstance(measured, list) else [measured]
    if as_json:
        print(json.dumps({figure.name: asdict(figure) for figure in figures}, indent=2))
        return
    table = Table("benchmark", "value", "unit", "reference", "ratio", "detail", title="Medians", title_justify="left")
    for f in figures:
        table.add_row(
            f.name,
            f"{f.value:,.4g}" if f.value < 1_000 else f"{f.value:,.0f}",
            f.unit,
            f"{f.reference:,.4g}" if f.reference < 1_000 else f"{f.reference:,.0f}",
            f"{f.ratio:.2f}",
            f.detail,
        )
    console.print(table)
