"""The tables, and how each version of them becomes the next one. `PRAGMA user_version` says which a file has."""

from __future__ import annotations

import sqlite3

MIGRATIONS = (
    # 1
    """
    CREATE TABLE records (
        kind TEXT NOT NULL, id TEXT NOT NULL, at_ns INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE TABLE days (
        component TEXT NOT NULL, date TEXT NOT NULL, measured_s REAL NOT NULL, down_s REAL NOT NULL,
        degraded_s REAL NOT NULL, maintenance_s REAL NOT NULL, PRIMARY KEY (component, date)
    ) WITHOUT ROWID;
    CREATE TABLE delays (
        component TEXT NOT NULL, begin_ns INTEGER NOT NULL, looks INTEGER NOT NULL, p50_ms REAL NOT NULL,
        p99_ms REAL NOT NULL, PRIMARY KEY (component, begin_ns)
    ) WITHOUT ROWID;
    CREATE TABLE blips (
        component TEXT NOT NULL, began_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, worst TEXT NOT NULL,
        PRIMARY KEY (component, began_ns)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        time_ns INTEGER NOT NULL, kind TEXT NOT NULL, component TEXT NOT NULL, detail TEXT NOT NULL,
        PRIMARY KEY (time_ns, kind, component)
    ) WITHOUT ROWID;
    """,
    # 2: announcements
    """
    CREATE TABLE outbox (
        id TEXT PRIMARY KEY, subscriber TEXT NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL,
        created_ns INTEGER NOT NULL, due_ns INTEGER NOT NULL, attempts INTEGER NOT NULL, state TEXT NOT NULL,
        error TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX outbox_state ON outbox (state, due_ns);
    CREATE TABLE threads (
        subscriber TEXT NOT NULL, subject TEXT NOT NULL, reference TEXT NOT NULL, PRIMARY KEY (subscriber, subject)
    ) WITHOUT ROWID;
    """,
)
VERSION = len(MIGRATIONS)


class HistoryTooNew(RuntimeError):
    """The file was written by a newer version of this service."""

    code = "HISTORY_TOO_NEW"


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a file to the newest version, each step whole or not at all."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise HistoryTooNew(f"expected a history of version {VERSION} or older, found {found}: use the newer service")
    for number in range(found, VERSION):
        connection.executescript(f"BEGIN;{MIGRATIONS[number]}PRAGMA user_version = {number + 1};COMMIT;")
