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
from rich.table import Table

console = Console()


def show(rows: Iterable[Any], columns: Sequence[str], as_json: bool, title: str = "") -> None:
    """Print dataclasses as a table of these columns, or all that they hold as JSON."""
    rows = list(rows)
    if as_json:
        print(json.dumps([plain(row) for row in rows], indent=2))
        return
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right" if rows and _is_number(rows[0], column) else "left")
    for row in rows:
        table.add_row(*(_cell(getattr(row, column), column) for column in columns))
    console.print(table)


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
        return " ".join(map(str, value))
    return "" if value is None else str(value)
