"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

console = Console()
_WIDTH_MAX = 1_000


def show(rows: Iterable[Any], columns: Sequence[str], as_json: bool, title: str = "") -> None:
    """Print dataclasses as a table of these columns, or all that they hold as JSON."""
    rows = list(rows)
    if as_json:
        print(json.dumps([plain(row) for row in rows], indent=2))
        return
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        is_number = bool(rows) and _is_number(rows[0], column)
        table.add_column(_label(column), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(getattr(row, column), column) for column in columns))
    width = Measurement.get(console, console.options.update(max_width=_WIDTH_MAX), table).maximum
    if width <= console.width:
        console.print(table)
    elif len(rows) == 1:
        console.print(_upright(rows[0], columns, title))
    elif console.is_terminal:
        console.print(table)
    else:
        # In a pipe or a file there is no edge to stay within, and what is cut off cannot be read.
        Console(width=width).print(table)


def _upright(row: Any, columns: Sequence[str], title: str) -> Table:
    """Return a table of one row, a line for each column that says something."""
    table = Table(title=title or None, title_justify="left", show_header=False)
    for column in columns:
        cell = _cell(getattr(row, column), column)
        if cell:
            table.add_row(_label(column), cell)
    return table


def show_line(row: Any, columns: Sequence[str], as_json: bool) -> None:
    """Print one row of something that goes on: a line of JSON, or the columns side by side."""
    if as_json:
        print(json.dumps(plain(row)), flush=True)
    else:
        console.print("  ".join(_cell(getattr(row, column), column) for column in columns), highlight=False)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: decimals as strings, enums by name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(field) for name, field in asdict(value).items()}
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Decimal):
        return format(value, "f")
    return value


def _label(column: str) -> str:
    return column.removesuffix("_ns").replace("_", " ")


def _is_number(row: Any, column: str) -> bool:
    return isinstance(getattr(row, column), int | Decimal) and not isinstance(getattr(row, column), Enum | bool)


def _cell(value: Any, column: str) -> str:
    if column.endswith("time_ns"):
        return datetime.fromtimestamp(value / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if value else ""
    if isinstance(value, Enum):
        return value.name if value.value else ""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list | tuple):
        return " ".join(_cell(item, column) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name} {_cell(item, column)}" for name, item in value.items())
    return "" if value is None else str(value)
