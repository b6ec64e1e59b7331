"""The SQLite file and its one writer. What cannot be written stays in memory and is tried again: telling goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from status.history.days import DayCount
from status.history.schema import upgrade
from status.settings import HistoryRules

_log = structlog.get_logger()

T = TypeVar("T")
Statement = tuple[str, tuple[Any, ...]]
_PUT = "INSERT OR REPLACE INTO {} VALUES ({})"
_DAY_NS = 86_400_000_000_000
_TOLD_AGAIN_S = 60.0


class Store:
    """`put…` notes what shall be written; `flush` writes all that was noted, in one transaction on a thread."""

    def __init__(self, path: Path, executor: Executor | None = None) -> None:
        self._path = path
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")
        self._connection: sqlite3.Connection | None = None
        self._pending: dict[Hashable, Statement] = {}
        self._told_s = -_TOLD_AGAIN_S
        self._flushing = asyncio.Lock()
        self.error = ""
        """Why the last attempt to write failed; empty: it did not."""

    def open(self) -> None:
        """Open the file, or make it. One that is damaged is put aside, whole, and a new one begun.

        Raises:
            HistoryTooNew: only the newer service can read it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                self._fail(error)  # no place, no permission: go on from memory and try again
                return
            aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            for suffix in ("", "-wal", "-shm"):
                part = self._path.with_name(self._path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            _log.error("status.history_damaged", code="HISTORY_DAMAGED", kept_as=str(aside), error=str(error))
            self._connect()

    def _connect(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            upgrade(connection)
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(f"quick_check: {found}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    async def close(self) -> None:
        await self.flush()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._executor.shutdown(wait=False)

    # ---------------------------------------------------------------- writing

    def put(self, kind: str, id_: str, at_ns: int, value: Any) -> None:
        body = msgspec.json.encode(value)
        self.note((kind, id_), _PUT.format("records", "?, ?, ?, ?"), (kind, id_, at_ns, body))

    def delete(self, kind: str, id_: str) -> None:
        self.note((kind, id_), "DELETE FROM records WHERE kind = ? AND id = ?", (kind, id_))

    def put_day(self, component: str, date: str, count: DayCount) -> None:
        row = (component, date, count.measured_s, count.down_s, count.degraded_s, count.maintenance_s)
        self.note(("day", component, date), _PUT.format("days", "?, ?, ?, ?, ?, ?"), row)

    def put_delay(self, component: str, begin_ns: int, looks: int, p50_ms: float, p99_ms: float) -> None:
        row = (component, begin_ns, looks, p50_ms, p99_ms)
        self.note(("delay", component, begin_ns), _PUT.format("delays", "?, ?, ?, ?, ?"), row)

    def put_blip(self, component: str, began_ns: int, ended_ns: int, worst: str) -> None:
        row = (component, began_ns, ended_ns, worst)
        self.note(("blip", component, began_ns), _PUT.format("blips", "?, ?, ?, ?"), row)

    def put_event(self, time_ns: int, kind: str, component: str, detail: str) -> None:
        row = (time_ns, kind, component, detail)
        self.note(("event", time_ns, kind, component), _PUT.format("events", "?, ?, ?, ?"), row)

    def trim(self, now_ns: int, rules: HistoryRules) -> None:
        """Forget what is older than it has to be kept. Unresolved and coming things are never that old."""
        days_ns = now_ns - rules.days_kept * _DAY_NS
        date = time.strftime("%Y-%m-%d", time.gmtime(days_ns / 1e9))
        self.note(("trim", "days"), "DELETE FROM days WHERE date < ?", (date,))
        for table, column in (("blips", "began_ns"), ("events", "time_ns")):
            self.note(("trim", table), f"DELETE FROM {table} WHERE {column} < ?", (days_ns,))
        delays_ns = now_ns - rules.latency_kept_days * _DAY_NS
        self.note(("trim", "delays"), "DELETE FROM delays WHERE begin_ns < ?", (delays_ns,))
        old_ns = now_ns - rules.incidents_kept_days * _DAY_NS
        statement = "DELETE FROM records WHERE kind IN ('incident', 'maintenance') AND at_ns < ?"
        self.note(("trim", "records"), statement, (old_ns,))

    def note(self, key: Hashable, sql: str, row: tuple[Any, ...]) -> None:
        """Write this with the next flush; of one key only the newest is written."""
        self._pending.pop(key, None)
        self._pending[key] = (sql, row)

    async def flush(self) -> bool:
        """Write all that was noted; False if that failed: it stays noted."""
        async with self._flushing:
            if not self._pending:
                return not self.error
            writing, self._pending = self._pending, {}
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._executor, self._write, list(writing.values()))
            except (sqlite3.Error, OSError) as error:
                self._pending = {**writing, **self._pending}
                self._fail(error)
                return False
            except asyncio.CancelledError:
                # It may not have begun; to write it twice does no harm.
                self._pending = {**writing, **self._pending}
                raise
            if self.error:
                _log.info("status.history_written_again")
            self.error = ""
            return True

    def _write(self, statements: Iterable[Statement]) -> None:
        if self._connection is None:
            self._connect()
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN IMMEDIATE")
            for sql, row in statements:
                connection.execute(sql, row)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _fail(self, error: Exception) -> None:
        self.error = f"expected to write {self._path}, found: {error}"
        now_s = time.monotonic()
        if now_s - self._told_s >= _TOLD_AGAIN_S:
            self._told_s = now_s
            _log.error("status.history_not_written", code="HISTORY_NOT_WRITTEN", error=self.error)

    # ---------------------------------------------------------------- reading

    def read(self, sql: str, row: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows as they are in the file; none while there is no file."""
        return [] if self._connection is None else self._connection.execute(sql, row).fetchall()

    def records(self, kind: str, type_: type[T]) -> dict[str, T]:
        """All of a kind, oldest first."""
        return self.records_by(kind, lambda body: msgspec.json.decode(body, type=type_))

    def records_by(self, kind: str, decode: Callable[[bytes], T]) -> dict[str, T]:
        """All of a kind, oldest first. One that cannot be read is told and left where it is."""
        found: dict[str, T] = {}
        for id_, body in self.read("SELECT id, body FROM records WHERE kind = ? ORDER BY at_ns", (kind,)):
            try:
                found[id_] = decode(body)
            except (ValueError, KeyError, TypeError) as error:
                _log.error("status.record_unreadable", code="RECORD_UNREADABLE", kind=kind, id=id_, error=str(error))
        return found

    def day_counts(self) -> dict[tuple[str, str], DayCount]:
        return {(row[0], row[1]): DayCount(*row[2:]) for row in self.read("SELECT * FROM days")}
