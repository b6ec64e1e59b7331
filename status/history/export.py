"""The history as JSON, for archives and for other tools. Reads the file beside the service that writes it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

_TABLES = ("days", "delays", "blips", "events")
_KINDS = ("component", "incident", "maintenance", "notice")


class HistoryMissing(FileNotFoundError):
    """There is no history yet."""

    code = "HISTORY_MISSING"


def export_history(path: Path) -> dict[str, Any]:
    """Return all that is kept but announcements and keys: rows of tables, and records by kind."""
    if not path.exists():
        raise HistoryMissing(f"expected a history at {path}, found none: the service makes it")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # all of one moment
        exported: dict[str, Any] = {"version": connection.execute("PRAGMA user_version").fetchone()[0]}
        for table in _TABLES:
            exported[table] = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
        for kind in _KINDS:
            rows = connection.execute("SELECT body FROM records WHERE kind = ? ORDER BY at_ns", (kind,))
            exported[f"{kind}s"] = [msgspec.json.decode(row["body"]) for row in rows]
        return exported
    finally:
        connection.close()
